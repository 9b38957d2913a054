"""`pocketgan eval`: how near a generator's pictures are to a reference's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pocketgan import options
from pocketgan.options import Answer, command, generator_options
from pocketgan.texts import decibels, table

if TYPE_CHECKING:
    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator
    from pocketgan.source import GeneratorSource


@command("eval")
@click.argument("model", type=options.FILE)
@options.images
@click.option(
    "--teacher",
    type=options.FILE,
    metavar="TEACHER",
    help="Compare with the pictures of this checkpoint, model folder, .onnx or .tflite file.",
)
@click.option(
    "--reference",
    type=options.FOLDER,
    metavar="DIR",
    help="Compare with these pictures, named as the inputs are.",
)
@click.option(
    "--output-dir",
    "output",
    type=options.FOLDER,
    metavar="OUT",
    help="Keep eval.json and some pictures with their error maps here.",
)
@options.resume
@generator_options
def eval_command(
    model: Path,
    images: Path,
    teacher: Path | None,
    reference: Path | None,
    output: Path | None,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Measure PSNR and SSIM of MODEL's pictures against a teacher's or against a folder of pictures."""
    from compressor.agd.teachers import open_teacher
    from compressor.agd.teachers.opening import is_foreign
    from compressor.data.images import list_images
    from compressor.evaluate import evaluate
    from compressor.files import claim_folder

    guide: Generator | Teacher | None = None
    if teacher is not None and is_foreign(teacher):
        guide = open_teacher(teacher, stated=source(model).stated)
    elif teacher is not None:
        guide = source(teacher).load()
    with tempfile.TemporaryDirectory(prefix="pocketgan-") as scratch:
        folder = claim_folder(output, resume=resume) if output else Path(scratch)
        result = evaluate(
            source(model).student() if teacher else source(model).load(),
            list_images(images),
            folder,
            teacher=guide,
            reference=reference,
            resume=resume,
        )
    return Answer(_text(result.document) + (f"\n\n{output}" if output else ""), result.document)


def _text(document: dict[str, Any]) -> str:
    rows = [(row["name"], decibels(row["psnr"]), f"{row['ssim']:.4f}") for row in document["images"]]
    rows.append(("mean", decibels(document["psnr_mean"]), f"{document['ssim_mean']:.4f}"))
    return (
        f"against: {document['reference']}\n\n{table(rows, head=('picture', 'PSNR', 'SSIM'))}\n\n"
        f"median PSNR {decibels(document['psnr_median'])}; worst: {document['worst']}"
    )
