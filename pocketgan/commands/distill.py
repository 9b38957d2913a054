"""`pocketgan distill`: train a pruned generator against the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import UsageError
from compressor.options import DistilOptions
from pocketgan import options
from pocketgan.options import Answer, command, from_settings, generator_options

if TYPE_CHECKING:
    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator
    from pocketgan.source import GeneratorSource


@command("distill")
@click.argument("model", type=options.FILE)
@click.option(
    "--teacher",
    type=options.FILE,
    metavar="TEACHER",
    help="What makes the pictures that MODEL learns to make: a checkpoint, a model folder, MODULE:CALLABLE "
    "(which makes the network with its weights), a .onnx or a .tflite file.",
)
@click.option(
    "--teacher-outputs",
    type=options.FOLDER,
    metavar="DIR",
    help="Instead of --teacher: what it made of the pictures of --images, matched by name.",
)
@click.option(
    "--teacher-layout",
    type=click.Choice(["NCHW", "NHWC"]),
    help="Order of the axes of a .onnx or .tflite TEACHER, where its shape does not tell.",
)
@options.images
@options.new_output
@from_settings(DistilOptions)
@options.seed
@options.resume
@generator_options
def distill_command(
    model: Path,
    teacher: Path | None,
    teacher_outputs: Path | None,
    teacher_layout: str | None,
    images: Path,
    output: Path,
    settings: DistilOptions,
    seed: int,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Train MODEL a little more, so that its pictures come nearer to the teacher's.

    MODEL is what `pocketgan prune` left; its widths stay as they are. OUT becomes a model folder, with
    distill.json: the loss over time. With --qat it carries the ranges that its INT8 files will use.
    """
    from compressor.agd.teachers import open_teacher
    from compressor.agd.teachers.opening import is_foreign
    from compressor.data.images import list_images
    from compressor.training.distil import distil

    if (teacher is None) == (teacher_outputs is None):
        raise UsageError(
            "distill needs one teacher",
            got="none" if teacher is None else "two",
            allowed="--teacher TEACHER or --teacher-outputs DIR",
        )
    student, pictures = source(model).student(), list_images(images)
    guide: Generator | Teacher
    if teacher_outputs is not None:
        guide = open_teacher(images, outputs=teacher_outputs, images=pictures, image=student.spec.image)
    elif teacher is not None and is_foreign(teacher):
        guide = open_teacher(teacher, stated=source(model).stated, layout=teacher_layout)
    else:
        assert teacher is not None
        guide = source(teacher).load()
    result = distil(student, guide, pictures, output, settings, seed=seed, resume=resume)
    document = result.document
    text = (
        f"loss {document['loss_first']:.4g} -> {document['loss_last']:.4g} in {document['steps']} steps\n"
        + "".join(f"note: {note}\n" for note in document["notes"])
        + _quantised(document.get("quantisation"))
        + f"{output}\n  next: pocketgan export {output} --images DIR --output-dir OUT"
    )
    return Answer(text, {"folder": str(output), **document})


def _quantised(found: dict[str, Any] | None) -> str:
    """What was trained for INT8, as a line of its own."""
    if found is None:
        return ""
    kept = found["float_layers"]
    told = f"; {len(kept)} stay in float: {', '.join(kept)}" if kept else ""
    return f"INT8: {len(found['layers'])} convolutions trained with its rounding{told}\n"
