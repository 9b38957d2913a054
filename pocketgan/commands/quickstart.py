"""`pocketgan quickstart`: the whole job on what comes along."""

from __future__ import annotations

from pathlib import Path

import click

from pocketgan import options
from pocketgan.commands.run import finished
from pocketgan.options import Answer, command


@command("quickstart")
@click.option(
    "--output-dir",
    "output",
    type=options.FOLDER,
    default=Path("quickstart"),
    show_default=True,
    metavar="OUT",
    help="New folder for photographs, recipe and run.",
)
@options.resume
@click.pass_obj
def quickstart_command(line: list[str], output: Path, resume: bool) -> Answer:
    """Compress a small generator that paints photographs like watercolours, and show what came out.

    Generator and photographs come with the package and its dependencies: nothing is downloaded. Takes a
    few minutes on two cores. OUT/run/report.html is the page to look at, OUT/recipe.yaml a recipe to
    change and run.
    """
    from pocketgan.pipeline import run
    from pocketgan.quickstart.prepare import prepare
    from pocketgan.recipe import read_recipe

    recipe = read_recipe(prepare(output, resume=resume))
    return finished(run(recipe, output.absolute() / "run", resume=resume, command=line))
