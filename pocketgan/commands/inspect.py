"""`pocketgan inspect`: what a checkpoint holds, and what its generator costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketgan.options import FILE, Answer, command, generator_options
from pocketgan.texts import amount, table

if TYPE_CHECKING:
    from compressor.generators.inspection import Inspection
    from pocketgan.source import GeneratorSource


@command("inspect")
@click.argument("file", type=FILE)
@click.option("--layers", is_flag=True, help="List every layer with its output, parameters and MACs.")
@generator_options
def inspect_command(file: Path, layers: bool, source: Callable[[Path], GeneratorSource]) -> Answer:
    """Say what FILE holds: family, widths, parameters, MACs, or which keys did not fit.

    FILE is a checkpoint (.pth, .pt, .ckpt, .safetensors) or a folder that pocketgan wrote. True MACs are
    the multiplications that are done; literature MACs are what papers on GAN compression print.
    """
    from compressor.generators.inspection import inspect

    asked = source(file)
    found = inspect(file, factory=asked.factory, image=asked.image(), arguments=asked.arguments)
    return Answer(_text(found, layers), found.as_json())


def _text(found: Inspection, layers: bool) -> str:
    cost, image = found.cost, found.spec.image
    rows = [
        ("family", found.family),
        *((f"  {name}", _brief(value)) for name, value in found.spec.arguments.items()),
        ("input", f"{'x'.join(map(str, found.input_shape))} in {_range(image.input_range)}"),
        ("output", f"{image.channels[1]} channels, scale {image.scale}, in {_range(image.output_range)}"),
        ("compressed", f"{len(found.spec.widths)} layers resized" if found.spec.widths else "no"),
        ("parameters", f"{cost.parameters:,}"),
        ("weights", amount(cost.bytes, "bytes")),
        ("peak activations", "unknown" if found.memory is None else amount(found.memory, "bytes")),
        ("true MACs", f"{amount(cost.macs)} ({cost.macs:,})"),
        ("literature MACs", f"{amount(cost.literature_macs)} ({cost.literature_macs:,})"),
        ("SHA-256", found.sha256),
    ]
    text = table(rows)
    if layers:
        text += "\n\n" + table(
            [
                (x.name, x.kind, "x".join(map(str, x.output_shape)), f"{x.parameters:,}", f"{x.macs:,}")
                for x in cost.layers
            ],
            head=("layer", "kind", "output", "parameters", "MACs"),
        )
    text += "".join(f"\nnot counted: {name}" for name in cost.uncounted)
    return text + "".join(f"\nnote: {note}" for note in found.notes)


def _brief(value: object) -> str:
    """An argument; of a search space (a whole definition) its name."""
    return str(value.get("name", "...")) if isinstance(value, dict) else str(value)


def _range(values: tuple[float, float]) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"
