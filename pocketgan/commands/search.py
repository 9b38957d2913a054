"""`pocketgan search`: find a generator for a budget, guided only by a teacher's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.agd.options import SearchOptions
from compressor.errors import UsageError
from pocketgan import options
from pocketgan.latency_options import MeterFor, latency_options, missed
from pocketgan.options import Answer, command, from_settings, generator_options
from pocketgan.texts import amount, table


@command("search")
@click.option(
    "--teacher",
    metavar="TEACHER",
    help="Whose pictures are learnt: a checkpoint, a model folder, MODULE:CALLABLE, a .onnx or .tflite file.",
)
@options.images
@click.option(
    "--teacher-outputs",
    type=options.FOLDER,
    metavar="DIR",
    help="Instead of --teacher: what it made of --images, by the same names.",
)
@click.option(
    "--budget",
    required=True,
    help="What the result may cost: macs=1G, params=350k, bytes=1.8MB, latency=12ms; macs=25% where the "
    "teacher is a network of ours. Two metrics (latency=12ms,params=350k) hold both; several sizes of one "
    "(macs=4G,2G,1G) give a network each, from one search.",
)
@click.option(
    "--pareto",
    type=click.IntRange(2),
    metavar="N",
    help="With two budgets (macs=4G,1G): N networks for budgets between them.",
)
@click.option(
    "--space",
    metavar="NAME",
    help="What is searched: st, st_small, sr, sr_tail, or a YAML file of your own. By default sr_tail for a "
    "teacher of scale 4, st for one of scale 1, and st_small where st cannot be as cheap as the budget.",
)
@options.new_output
@from_settings(SearchOptions)
@latency_options
@options.seed
@options.resume
@generator_options
def search_command(
    teacher: str | None,
    images: Path,
    teacher_outputs: Path | None,
    budget: str,
    pareto: int | None,
    space: str | None,
    output: Path,
    settings: SearchOptions,
    seed: int,
    resume: bool,
    meter_for: MeterFor,
    source: Any,
) -> Answer:
    """Search a generator that paints like TEACHER and costs no more than the budget.

    Nothing but the teacher's pictures is needed. OUT becomes a model folder that the other commands read,
    with search.json: what was asked and reached, operator and width of every position, the search's course.
    With several budgets OUT holds a folder for each (macs-2G, macs-1G), and pareto.json.
    """
    from compressor.agd.fitting import space_for
    from compressor.agd.limits import spread
    from compressor.agd.search import search
    from compressor.agd.teachers import open_teacher
    from compressor.budget import Budget
    from compressor.data.images import list_images
    from compressor.training.loop import choose_device

    if (teacher is None) == (teacher_outputs is None):
        raise UsageError(
            "a search needs a teacher",
            got="--teacher and --teacher-outputs" if teacher else "neither --teacher nor --teacher-outputs",
            allowed="one of them",
        )
    pictures = list_images(images)
    budgets = list(Budget.parse_family(budget))
    if pareto:
        budgets = spread(budgets, pareto)
    meter = meter_for(budgets, pictures)
    named = teacher or str(images)
    given = source(Path(named))
    guide = open_teacher(
        named,
        outputs=teacher_outputs,
        images=pictures if teacher_outputs else None,
        stated=given.stated,
        factory=given.factory,
        arguments=given.arguments,
        device=choose_device(settings.device),
    )
    found = search(
        space_for(guide.image, budgets, space),
        guide,
        pictures,
        budgets,
        output,
        settings,
        meter=meter,
        seed=seed,
        resume=resume,
    )
    documents = [{"folder": str(result.folder), **result.document} for result in found]
    parts = [*guide.notes, _table(documents), *_timed(documents), *_why(documents), _next(documents, teacher)]
    text = "\n\n".join(parts)
    return Answer(text, documents[0] if len(documents) == 1 else {"networks": documents}, missed(documents))


def _table(documents: list[dict[str, Any]]) -> str:
    rows = [
        (
            document["budget"]["asked"],
            f"{document['share']:.2%}",
            amount(document["reached"]["macs"]),
            amount(document["reached"]["parameters"], "parameters"),
            f"{document['validation_loss']:.4g}",
            document["folder"],
        )
        for document in documents
    ]
    return table(rows, head=("budget", "used", "true MACs", "parameters", "validation loss", "folder"))


def _timed(documents: list[dict[str, Any]]) -> list[str]:
    """What was measured of each network, and how far to trust the table that led there."""
    found = [
        {**document["latency"], "folder": document["folder"]}
        for document in documents
        if "latency" in document
    ]
    if not found:
        return []
    from compressor.agd.timed import say

    rows = [
        (
            f"{one['measured'] / 1e6:.3f} ms",
            f"{one['low'] / 1e6:.3f} to {one['high'] / 1e6:.3f}",
            f"{one['predicted'] / 1e6:.3f} ms",
            str(len(one["attempts"])),
            one["folder"],
        )
        for one in found
    ]
    head = ("measured", "95 % interval", "predicted", "attempts", "folder")
    return [table(rows, head=head), say(found[0]["table"])]


def _why(documents: list[dict[str, Any]]) -> list[str]:
    return [f"{document['folder']}: {document['why']}" for document in documents if "why" in document]


def _next(documents: list[dict[str, Any]], teacher: str | None) -> str:
    folder = documents[0]["folder"] if len(documents) == 1 else "FOLDER"
    told = "" if len(documents) == 1 else ", for each"
    guide = f"--teacher {teacher}" if teacher else "--teacher-outputs DIR"
    return f"next{told}: pocketgan distill {folder} {guide} --images DIR --output-dir OUT"
