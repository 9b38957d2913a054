"""`pocketgan distill`: train a pruned generator against the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.options import DistilOptions
from pocketgan import options
from pocketgan.options import Answer, command, from_settings, generator_options

if TYPE_CHECKING:
    from pocketgan.recipe import GeneratorSource


@command("distill")
@click.argument("model", type=options.FILE)
@click.option(
    "--teacher",
    type=options.FILE,
    required=True,
    metavar="CHECKPOINT",
    help="The original, whose pictures MODEL learns to make.",
)
@options.images
@options.new_output
@from_settings(DistilOptions)
@options.seed
@options.resume
@generator_options
def distill_command(
    model: Path,
    teacher: Path,
    images: Path,
    output: Path,
    settings: DistilOptions,
    seed: int,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Train MODEL a little more, so that its pictures come nearer to the teacher's.

    MODEL is what `pocketgan prune` left; its widths stay as they are. OUT becomes a model folder, with
    distill.json: the loss over time.
    """
    from compressor.data.images import list_images
    from compressor.training.distil import distil

    student, guide = source(model).load(), source(teacher).load()
    result = distil(student, guide, list_images(images), output, settings, seed=seed, resume=resume)
    document = result.document
    text = (
        f"loss {document['loss_first']:.4g} -> {document['loss_last']:.4g} in {document['steps']} steps\n"
        f"{output}\n  next: pocketgan export {output} --images DIR --output-dir OUT"
    )
    return Answer(text, {"folder": str(output), **document})
