"""What a file says of itself, to whoever opens it without us: names and plain strings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from compressor.cost import count
from exporters.byte_pictures import BYTES, ZERO_POINTS
from exporters.versions import versions

if TYPE_CHECKING:
    from compressor.generators import Generator


def facts(
    generator: Generator, size: tuple[int, int], kind: str, layout: str, sides: str, io: str = "float32"
) -> dict[str, str]:
    """Name, task, how to turn pixels into the input and the output into pixels, costs, and where it is from.

    Args:
        generator: what the file was made of.
        size: input (height, width) that MACs are counted at.
        kind: of the arithmetic, "int8-static".
        layout: of input and output, "NCHW".
        sides: which heights and widths it takes, in words.
        io: type of its input and output; "uint8" and "int8" are of bytes (`exporters.byte_pictures`).
    """
    spec, tools = generator.spec, versions()
    image = spec.image
    (low, high), (bottom, top) = image.input_range, image.output_range
    if io != "float32":
        (low, high), (bottom, top) = BYTES, BYTES
    cost = count(generator.module, (1, image.channels[0], *size))
    found = "learned in training" if generator.ranges else "measured on pictures"
    return {
        **({"int8_ranges": found} if kind == "int8-static" else {}),
        "name": generator.path.name,
        "family": spec.family,
        "task": "upscaling" if image.scale > 1 else "image to image",
        "precision": kind,
        "input_layout": layout,
        "input_range": json.dumps([low, high]),
        "output_range": json.dumps([bottom, top]),
        "input_sides": sides,
        "channels": "grey" if image.channels[0] == 1 else "RGB",
        "io": io,
        "preprocessing": f"input = byte / 255 * {high - low:g} + {low:g}",
        "postprocessing": f"byte = round(clip((output - {bottom:g}) / {top - bottom:g}, 0, 1) * 255)",
        **({} if io == "float32" else _in_bytes(ZERO_POINTS[io])),
        "scale": str(image.scale),
        "macs": str(cost.macs),
        "parameters": str(cost.parameters),
        "macs_at": f"{size[0]}x{size[1]}",
        "source_sha256": generator.sha256,
        "pocketgan": tools.pop("pocketgan", ""),
        "tools": json.dumps(tools),
    }


def _in_bytes(zero: int) -> dict[str, str]:
    """How to feed a file of bytes, in place of the arithmetic on floats."""
    return {
        "preprocessing": f"input = byte + {zero}" if zero else "input = byte",
        "postprocessing": f"byte = output - {zero}" if zero else "byte = output",
        "quantisation": json.dumps({"scale": 1, "zero_point": zero}),
    }
