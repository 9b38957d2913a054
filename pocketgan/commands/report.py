"""`pocketgan report`: the page of a run folder."""

from __future__ import annotations

from pathlib import Path

import click

from pocketgan.options import FOLDER, Answer, command


@command("report")
@click.argument("run", type=FOLDER)
def report_command(run: Path) -> Answer:
    """Build RUN/report.html, one page that needs nothing but a browser.

    Stages that have not run are shown as missing.
    """
    from benchmarks.report.page import report
    from benchmarks.report.summary import summary, summary_json

    page = report(run)
    return Answer(f"{summary(run)}\n\n{page}", {**summary_json(run), "report": str(page)})
