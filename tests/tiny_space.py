"""Search spaces small enough to be searched within seconds, and to be walked through network by network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressor.agd.definition import read_space
from compressor.agd.reading import parse
from compressor.agd.space import SearchSpace

TRANSLATION = """\
name: tiny_st
norm: instance
image: {input_range: [-1, 1], output_range: [-1, 1], size: [16, 16]}
operators:
  down: {body: [{conv: 3, stride: 2}, norm, relu]}
  up: {body: [{transposed: 3}, norm, relu]}
  picture: {body: [{conv: 3}, tanh]}
layers:
  - {name: stem, operators: [down], widths: [4, 6, 8]}
  - {name: cell, repeat: 2, operators: [skip, conv3x3, residual, dwsblock], widths: [4, 6, 8, 12]}
  - {name: header, operators: [up], widths: [3, 4, 6, 8]}
  - {name: end, operators: [picture], width: 3}
"""

TIED = """\
name: tiny_sr
base: bilinear
image: {input_range: [0, 1], output_range: [0, 1], size: [8, 8]}
operators:
  plain: {body: [{conv: 3, bias: true}]}
  shuffle: {body: [{conv: 3, bias: true, to: 4*out}, {shuffle: 2}]}
  nearest: {body: [{nearest: 2}, {conv: 3, bias: true}]}
layers:
  - {name: first, operators: [plain], widths: [4, 6, 8]}
  - name: cell
    repeat: 2
    residual: 0.2
    layers:
      - {name: op, operators: [skip, conv3x3, identity], widths: [4, 5, 7]}
      - {name: end, operators: [conv3x3, residual], width_as: first}
  - {name: tail, operators: [shuffle, nearest], width: 3}
"""


def space(text: str) -> SearchSpace:
    """A space from its text."""
    return read_space(parse(text, "tiny.yaml"), "tiny.yaml")


def write_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """Smooth coloured waves, each picture another."""
    from PIL import Image

    folder.mkdir()
    rows, columns = np.mgrid[0:side, 0:side] / side
    for number in range(count):
        waves = [np.sin((number + 2) * rows * k + columns * 5) for k in (1, 2, 3)]
        Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(folder / f"{number}.png")
    return sorted(folder.iterdir())
