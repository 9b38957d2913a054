"""`pocketgan table`: the comparisons, each from one command, and where each of their rows comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.errors import UsageError
from pocketgan.options import FILE, FOLDER, Answer, command
from pocketgan.texts import table as columns

if TYPE_CHECKING:
    from benchmarks.tables.model import Table

TABLES = ("sr", "st", "pix2pix", "latency")
FORMATS = ("terminal", "markdown", "csv", "svg")
SETS = ("set5", "set14", "bsd100", "urban100")


@command("table")
@click.argument("which", type=click.Choice(TABLES))
@click.argument("folders", metavar="[BENCH_DIR]...", nargs=-1, type=FILE)
@click.option(
    "--data",
    type=FOLDER,
    metavar="DIR",
    help="Sets and weights, as pocketgan data fetches them.  [default: POCKETGAN_DATA, else data]",
)
@click.option(
    "--set",
    "sets",
    type=click.Choice(SETS),
    multiple=True,
    help="Of sr: measure only this set; may be given again.",
)
@click.option(
    "--record",
    type=FOLDER,
    metavar="DIR",
    help="Records of benchmarks.  [default: benchmarks/results of the source tree]",
)
@click.option(
    "--cache",
    type=FOLDER,
    metavar="DIR",
    help="Where measured figures are kept.  [default: the user's cache]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="terminal",
    show_default=True,
    help="How the table is written; svg is a plot.",
)
@click.option("--output", type=FILE, metavar="FILE", help="Write it there instead of printing it.")
def table_command(
    which: str,
    folders: tuple[Path, ...],
    data: Path | None,
    sets: tuple[str, ...],
    record: Path | None,
    cache: Path | None,
    form: str,
    output: Path | None,
) -> Answer:
    """Print a comparison: super resolution, style transfer, Pix2Pix, or the latency of sessions in BENCH_DIR.

    Each row says whether it was measured here, recorded by one of our benchmarks, or published by others;
    what is missing is said with the command that brings it. Measured figures are kept, so that a stopped call
    goes on and a second one is quick.
    """
    from benchmarks.tables.records import HERE

    if folders and which != "latency":
        raise UsageError(f"table {which} takes no folders of sessions", got=folders[0], fix="give --data DIR")
    if sets and which != "sr":
        raise UsageError(f"table {which} has no sets to choose", got=sets[0])
    data = data or Path(os.environ.get("POCKETGAN_DATA", "data"))
    made = _build(which, folders, data, sets, record or HERE, cache)
    text = _rendered(made, form)
    if output is None:
        return Answer(text, made.as_json())
    from compressor.files import atomic

    with atomic(output, "w") as file:
        file.write(text if text.endswith("\n") else f"{text}\n")
    return Answer(str(output), {**made.as_json(), "output": str(output)})


def _build(
    which: str,
    folders: tuple[Path, ...],
    data: Path,
    sets: tuple[str, ...],
    record: Path,
    cache: Path | None,
) -> Table:
    from benchmarks.tables.kept import Kept
    from compressor.files import cache_folder

    kept = Kept(cache or cache_folder() / "tables")
    match which:
        case "sr":
            from benchmarks.tables import sr

            chosen = [name for name in sr.SETS if name.lower() in sets or not sets]
            return sr.build(data, record, kept, tuple(chosen))
        case "st":
            from benchmarks.tables import st

            return st.build(data, record, kept)
        case "pix2pix":
            from benchmarks.tables import pix2pix

            return pix2pix.build(data, record, kept)
    from benchmarks.tables import latency

    return latency.build(folders, record)


def _rendered(made: Table, form: str) -> str:
    from benchmarks.tables import render

    match form:
        case "markdown":
            return render.markdown(made)
        case "csv":
            return render.csv_text(made)
        case "svg":
            return render.svg(made)
    head, lines = render.cells(made)
    body = columns(lines, head=head) if lines else "no rows"
    return "\n".join([made.title, "", body, "", *(f"- {note}" for note in render.notes(made))])
