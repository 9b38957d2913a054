"""`pocketgan report`: the page of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketgan.format_options import format_options
from pocketgan.options import FOLDER, Answer, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.ci.outputs import Outputs


@command("report")
@click.argument("run", type=FOLDER)
@click.option(
    "--history", is_flag=True, help="Build RUN/history.html instead: latency of all sessions below."
)
@click.option("--allow-emulated", is_flag=True, help="Write files of an emulated processor's times too.")
@format_options
def report_command(run: Path, history: bool, allow_emulated: bool, outputs: Outputs) -> Answer:
    """Build RUN/report.html, one page that needs nothing but a browser.

    Stages that have not run are shown as missing. With --junit and its like, the latencies that RUN holds are
    written as such files too. With --history, RUN is a folder of bench folders, one for each session.
    """
    from benchmarks.ci.compare import find_sessions
    from benchmarks.ci.rows import rows_of
    from benchmarks.report.page import report
    from benchmarks.report.summary import summary, summary_json

    if outputs.paths:
        with outputs.told_of_errors("report"):
            sessions = find_sessions(run, allow_emulated=allow_emulated)
        outputs.write([row for session in sessions for row in rows_of(session)])
    if history:
        return _history(run, allow_emulated)
    page = report(run)
    return Answer(f"{summary(run)}\n\n{page}", {**summary_json(run), "report": str(page)})


def _history(folder: Path, allow_emulated: bool) -> Answer:
    from benchmarks.ci.rows import plain
    from benchmarks.report import words
    from benchmarks.report.history import history, tracks

    found = tracks(folder, allow_emulated=allow_emulated)
    page = history(folder, allow_emulated=allow_emulated)
    rows = [
        (
            plain(track.key.name),
            str(len(track.points)),
            words.milliseconds(track.points[-1].summary.median),
            f"{track.change:+.1%}",
        )
        for track in found
    ]
    series = [
        {"name": track.key.name, "sessions": len(track.points), "change": track.change} for track in found
    ]
    text = table(rows, head=("series", "sessions", "last median", "since the first"))
    return Answer(f"{text}\n\n{page}", {"history": str(page), "series": series})
