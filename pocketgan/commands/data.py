"""`pocketgan data`: published sets and weights, fetched and checked."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from compressor.errors import UsageError
from pocketgan.options import FOLDER, Answer, command
from pocketgan.texts import table

ACTIONS = ("list", "fetch")


@command("data")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--output-dir",
    "output",
    type=FOLDER,
    default="data",
    show_default=True,
    metavar="DIR",
    help="The data folder, as tables take it with --data.",
)
@click.option(
    "--source",
    metavar="URL",
    help="Another server, or a folder, that holds the files under their published names.",
)
@click.option(
    "--sha256", "demanded", metavar="HEX", help="Refuse a file of another SHA-256; for one NAME alone."
)
def data_command(
    action: str, names: tuple[str, ...], output: Path, source: str | None, demanded: str | None
) -> Answer:
    """List published sets and weights (list), or bring some into the data folder (fetch NAME...).

    Downloads that stop are gone on with by the same command. A file is checked against its published
    SHA-256; where none is published, the first fetch notes what came, and later ones must match.
    """
    from compressor.data.published import entries, fetch, find

    if action == "list":
        if names or source or demanded:
            raise UsageError("data list takes nothing more", fix="pocketgan data fetch NAME")
        rows = [(e.name, e.about, e.purpose, e.licence) for e in entries().values()]
        shown = table(rows, head=("name", "about", "for", "licence as stated"))
        return Answer(shown, {"entries": [asdict(entry) for entry in entries().values()]})
    if not names:
        raise UsageError("say what to fetch", fix="pocketgan data list, then pocketgan data fetch NAME")
    wanted = find(names)
    if demanded and len(wanted) > 1:
        raise UsageError("--sha256 is of one file", got=", ".join(names), fix="fetch them one by one")
    if demanded and not _is_sha256(demanded):
        raise UsageError("--sha256 is no SHA-256", got=demanded, allowed="64 hexadecimal digits")
    done = [fetch(entry, output, source=source, demanded=demanded or "") for entry in wanted]
    rows = [(each.name, each.state, str(each.path), each.checked) for each in done]
    return Answer(
        table(rows, head=("name", "", "path", "checked")), {"fetched": [each.as_json() for each in done]}
    )


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text.lower())
