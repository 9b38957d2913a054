"""`pocketgan run`: the whole job as a recipe says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from pocketgan import options
from pocketgan.options import Answer, command
from pocketgan.texts import amount

if TYPE_CHECKING:
    from pocketgan.pipeline import RunResult


@command("run")
@click.argument("recipe", type=options.FILE)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, such as prune.steps=100; may be given often.",
)
@click.option("--dry-run", is_flag=True, help="Read everything, say what would be done, and write nothing.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Instead of the recipe's seed.")
@click.option(
    "--output-dir",
    "output",
    type=options.FOLDER,
    metavar="OUT",
    help="The run folder.  [default: the recipe's output_dir, else runs/RECIPE]",
)
@options.resume
@click.pass_obj
def run_command(
    line: list[str],
    recipe: Path,
    settings: tuple[str, ...],
    dry_run: bool,
    seed: int | None,
    output: Path | None,
    resume: bool,
) -> Answer:
    """Prune, distill, judge, export, measure and report as RECIPE says.

    With a section `search` a new generator is searched that paints like the recipe's, which may then be
    anything that answers with pictures. Everything ends up in the run folder; report.html is the page to
    look at. A run that was stopped goes on with --resume.
    """
    from pocketgan.pipeline import run
    from pocketgan.plan import plan
    from pocketgan.recipe import read_recipe

    wanted = read_recipe(recipe, settings)
    folder = (output or wanted.output_dir or Path("runs", recipe.stem)).absolute()
    wanted = dataclasses.replace(wanted, seed=wanted.seed if seed is None else seed, output_dir=folder)
    if dry_run:
        planned = plan(wanted)
        return Answer(_plan_text(planned, folder), planned)
    return finished(run(wanted, folder, resume=resume, command=line))


def finished(result: RunResult) -> Answer:
    """The answer for a finished run."""
    from benchmarks.report.summary import summary, summary_json

    document = {**summary_json(result.folder), "report": str(result.report), "stages": result.stages}
    return Answer(f"{summary(result.folder)}\n\n{result.report}", document, result.problem)


def _plan_text(planned: dict[str, Any], folder: Path) -> str:
    cost, budget, pictures = planned["cost"], planned["budget"], planned["images"]
    metric, generator, searched = budget["metric"], planned["generator"], planned.get("search")
    lines = [f"generator  {generator.get('source')}, of which only the pictures are known"]
    before = ""
    if cost is not None:
        lines = [
            f"generator  {generator['family']}, {amount(cost['parameters'])} parameters, "
            f"{amount(cost['macs'])} MACs"
        ]
        before = f"{amount(cost[metric], metric)} -> "
    if searched is not None:
        lines += [f"note       {note}" for note in searched["notes"]]
        least, most = (amount(end, searched["metric"]) for end in searched["range"])
        lines.append(
            f"search     {searched['asked']}: {amount(searched['target'], searched['metric'])} "
            f"{searched['metric']}, in the space {searched['space']} ({least} to {most})"
        )
    return "\n".join(
        [
            *lines,
            f"budget     {budget['asked']}: {before}{amount(budget['target'], metric)} {metric}"
            f"{''.join(f', {amount(most, name)} {name}' for name, most in budget['also'].items())}",
            f"pictures   {pictures['training']} to train on, {pictures['held_out']} held out",
            f"stages     {', '.join(planned['stages'])}",
            f"run folder {folder}\n",
            yaml.safe_dump(planned["recipe"], sort_keys=False, allow_unicode=True).rstrip(),
        ]
    )
