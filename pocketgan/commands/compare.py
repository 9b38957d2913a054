"""`pocketgan compare`: latency now beside a baseline's, as a gate for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketgan import options
from pocketgan.format_options import format_options
from pocketgan.options import Answer, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.ci.compare import Compared
    from benchmarks.ci.outputs import Outputs


class Percentage(click.ParamType):
    """A share written as 5% (or 5); the command gets 0.05."""

    name = "percent"

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return "PERCENT"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        try:
            share = float(value.strip().removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is no slowdown between 0 and 100 %, such as 5%", param, ctx)
        return share


@command("compare")
@click.argument("baseline", type=options.FILE)
@click.argument("new", type=options.FILE)
@click.option(
    "--threshold",
    type=Percentage(),
    default="5%",
    show_default=True,
    help="The slowdown that must not pass; less than 0.59 of it passes as noise.",
)
@click.option("--allow-missing", is_flag=True, help="A row of BASELINE that NEW lacks is no failure.")
@click.option("--allow-unstable", is_flag=True, help="A row too noisy for a verdict is no failure.")
@click.option("--allow-emulated", is_flag=True, help="Take times of an emulated processor.")
@format_options
def compare_command(
    baseline: Path,
    new: Path,
    threshold: float,
    allow_missing: bool,
    allow_unstable: bool,
    allow_emulated: bool,
    outputs: Outputs,
) -> Answer:
    """Compare the latencies in NEW with those in BASELINE; exit code 3 if something got slower.

    Each is a bench.json or a folder. A folder may hold those of several sessions (one folder each), which are
    taken together: five a side tell a slowdown of 5 % from what differs between sessions.
    Rows are matched by device, runtime, precision, model and threads. What is missing or too noisy for a
    verdict does not pass either.
    """
    from benchmarks.ci.compare import Allowed, compare

    with outputs.told_of_errors("compare"):
        result = compare(
            baseline,
            new,
            threshold=threshold,
            allowed=Allowed(missing=allow_missing, unstable=allow_unstable, emulated=allow_emulated),
        )
    outputs.write(result.rows)
    return Answer(_text(result), result.as_json(), result.problem)


def _text(result: Compared) -> str:
    from benchmarks.ci.rows import plain
    from benchmarks.ci.tables import change_words
    from benchmarks.report import words

    lines = []
    for device in dict.fromkeys(row.key.device for row in result.rows):
        rows = []
        for row in result.rows:
            judged = row.judged
            if row.key.device != device or judged is None:
                continue
            before, after = judged.baseline_ms, judged.new_ms
            if after is None and row.summary is not None:
                after = row.summary.median
            rows.append(
                (
                    judged.verdict,
                    plain(row.key.model),
                    plain(row.key.runtime),
                    str(row.key.threads),
                    "-" if before is None else words.milliseconds(before),
                    "-" if after is None else words.milliseconds(after),
                    change_words(row),
                    f"{judged.sessions[0]}, {judged.sessions[1]}",
                    plain(row.said.removeprefix(f"{judged.verdict}: ")),
                )
            )
        head = ("", "model", "runtime", "threads", "baseline", "new", "change", "sessions", "")
        lines += [plain(device), table(rows, head=head), ""]
    lines += [f"note: {note}" for note in result.notes]
    counts = {
        v: n for v in ("slower", "missing", "unstable", "same", "faster", "new") if (n := result.count(v))
    }
    return "\n".join([*lines, ", ".join(f"{count} {verdict}" for verdict, count in counts.items())])
