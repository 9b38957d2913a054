"""`pocketgan prune`: make a generator fit a budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.options import PruneOptions
from pocketgan import options
from pocketgan.options import Answer, command, from_settings, generator_options
from pocketgan.texts import amount, table

if TYPE_CHECKING:
    from pocketgan.recipe import GeneratorSource


@command("prune")
@click.argument("checkpoint", type=options.FILE)
@options.images
@click.option(
    "--budget",
    required=True,
    help="What the result may cost: macs=50%, macs=2.5G, params=350k or bytes=1.8MB.",
)
@options.new_output
@from_settings(PruneOptions)
@options.seed
@options.resume
@generator_options
def prune_command(
    checkpoint: Path,
    images: Path,
    budget: str,
    output: Path,
    settings: PruneOptions,
    seed: int,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Prune the generator in CHECKPOINT to a budget with CoroNet, trained against its own pictures.

    OUT becomes a model folder that the other commands read, with prune.json: what was asked and reached,
    and the width of every layer before and after.
    """
    from compressor.budget import Budget
    from compressor.coronet.prune import prune
    from compressor.data.images import list_images

    limit = Budget.parse(budget)
    generator = source(checkpoint).load()
    result = prune(generator, list_images(images), limit, output, settings, seed=seed, resume=resume)
    return Answer(_text(result.document, output), {"folder": str(output), **result.document})


def _text(document: dict[str, Any], output: Path) -> str:
    before, after = document["original"], document["reached"]
    rows = [
        (name, amount(before[key], key), amount(after[key], key), f"{after[key] / before[key]:.1%}")
        for name, key in (
            ("true MACs", "macs"),
            ("literature MACs", "literature_macs"),
            ("parameters", "parameters"),
            ("weights", "bytes"),
        )
    ]
    asked = document["budget"]
    return (
        f"{asked['asked']} reached: {document['share']:.2%} of the original's {asked['metric']}\n\n"
        f"{table(rows, head=('', 'original', 'pruned', 'share'))}\n\n"
        f"{output}\n  next: pocketgan distill {output} --teacher CHECKPOINT --images DIR --output-dir OUT"
    )
