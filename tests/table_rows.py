"""What tests of tables share: pictures of known figures, and rows by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.tables.model import Table
from compressor.data.bicubic import imresize


def row(table: Table, name: str, **figures: object) -> dict[str, object]:
    """The only row of that name and those figures."""
    rows = [each for each in table.rows if each.name == name and figures.items() <= each.figures.items()]
    (found,) = rows
    return {"source": found.source, "told": found.told, **found.figures}


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(seed: int, side: int) -> np.ndarray:
    """Smooth noise, so that enlarging it means something."""
    small = np.random.default_rng(seed).integers(40, 216, (side // 8, side // 8, 3)).astype(np.uint8)
    return imresize(small, 8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures of Set5, two pairs of facades."""
    folder = tmp_path / "data"
    for number in (1, 2):
        large = noise(number, 64)
        stem = folder / "sr" / "Set5_x4" / f"img_{number:03d}_SRF_4"
        write(stem.with_name(f"{stem.name}_HR.png"), large)
        write(stem.with_name(f"{stem.name}_LR.png"), imresize(large, 0.25))
        for kind, shift in (("real_A", 90), ("real_B", 0), ("fake_B", 10)):
            pixels = np.clip(noise(number, 256).astype(int) + shift, 0, 255).astype(np.uint8)
            write(folder / "pix2pix" / "facades" / f"{number}_{kind}.png", pixels)
    return folder
