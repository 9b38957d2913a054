"""Lays out the quickstart: photographs, and a recipe for compressing the generator that comes along."""

from __future__ import annotations

import json
from pathlib import Path

from compressor.files import atomic, claim_folder
from pocketgan.quickstart.photographs import write_photographs

GENERATOR = Path(__file__).with_name("generator")

_RECIPE = """\
# Compresses the quickstart's generator. Run it again, or change it and run it elsewhere:
#     pocketgan run recipe.yaml --output-dir elsewhere
generator:
  checkpoint: {generator}
data:
  images: photographs/train          # pictures as the generator takes them; no targets needed
  held_out: photographs/held_out     # never trained on; the report's pictures
budget: macs=30%
prune:
  steps: 250
  crop: 128
  round: 8                           # widths that are multiples of 8 run faster
distill:
  steps: 200
  crop: 128
  learning_rate: 0.0005
seed: 0
"""


def prepare(folder: Path, *, resume: bool = False) -> Path:
    """Write the photographs and the recipe.

    Args:
        folder: new folder, or with `resume` one that an earlier call wrote.

    Returns:
        The recipe's path.

    Raises:
        PocketganError: the folder is taken or cannot be written.
    """
    recipe = claim_folder(folder, resume=resume) / "recipe.yaml"
    if not recipe.exists():
        write_photographs(folder / "photographs")
        with atomic(recipe, "w") as file:
            file.write(_RECIPE.format(generator=json.dumps(str(GENERATOR))))
    return recipe
