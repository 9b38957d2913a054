"""A generator and pictures small enough to run the whole job on within seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 32

RECIPE = f"""\
generator:
  checkpoint: tiny.pth
  size: [{SIZE}, {SIZE}]
data:
  images: pictures
budget: macs=50%
prune:
  steps: 8
distill:
  steps: 8
bench:
  rounds: 5
  warmup: 1
seed: 3
"""


def write_generator(path: Path, seed: int = 0) -> None:
    """A CycleGAN ResNet with 1 block of 32 channels and random weights."""
    import torch

    from compressor.generators.families import construct

    torch.manual_seed(seed)
    torch.save(construct("resnet", {"width": 8, "blocks": 1, "bias": True}).state_dict(), path)


def write_pictures(folder: Path, count: int = 5) -> None:
    """Smooth coloured blobs, each picture another."""
    from PIL import Image

    folder.mkdir()
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for number in range(count):
        waves = [np.sin((number + 2) * rows * k + columns * 5) for k in (1, 2, 3)]
        Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(folder / f"{number}.png")


def write_job(folder: Path) -> Path:
    """Generator, pictures and recipe in a folder; the recipe's path."""
    write_generator(folder / "tiny.pth")
    write_pictures(folder / "pictures")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"
