"""Fuzzed: settings that people write, recipes and search spaces."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fuzz.mutations import each_of, some_text
from benchmarks.fuzz.target import Files, Target

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_RECIPE = """\
generator:
  checkpoint: a.pth
  size: [64, 64]
  input_range: [-1, 1]
data:
  images: pictures
  held_out: 0.2
search:
  budget: macs=60%
  space: st_small
  steps: 10
  truth: false
train: {steps: 5, learning_rate: 1e-3}
budget: macs=50%
prune:
  steps: 8
  crop: 64
  round: 8
distill: {steps: 8, batch: 2}
export:
  formats: [onnx, tflite]
  precisions: [fp32, int8]
  min_psnr: 40
bench:
  threads: [1, 2]
  max_seconds: 2.5
seed: 3
output_dir: runs/a
"""
_SETTINGS = "prune.steps=9\nexport.formats=[onnx]\nbudget=params=10k,macs=2M\ndistill.crop=32"


def _recipes() -> SearchStrategy[Files]:
    files = {"recipe.yaml": _RECIPE.encode(), "settings": _SETTINGS.encode()}
    return each_of(files, lambda _, content: some_text(content.decode()))


def _read_recipe(folder: Path) -> None:
    reader = importlib.import_module("pocketgan.recipe")  # commands stand above benchmarks: by its name alone
    given = folder / "settings"
    settings = given.read_text(encoding="utf-8", errors="replace").split("\n") if given.exists() else []
    recipe = reader.read_recipe(folder / "recipe.yaml", settings)
    reader.write_recipe(recipe, folder / "again.yaml")
    if reader.read_recipe(folder / "again.yaml") != recipe:
        raise AssertionError("a recipe that was read is written as another one")


def _spaces() -> SearchStrategy[Files]:
    from hypothesis import strategies as st

    from compressor.agd.space import FOLDER, shipped

    texts = [(FOLDER / f"{name}.yaml").read_text(encoding="utf-8") for name in shipped()]
    return st.sampled_from(texts).flatmap(some_text).map(lambda content: {"space.yaml": content})


def _read_space(folder: Path) -> None:
    from compressor.agd.definition import read_space
    from compressor.agd.space import Choice, load_space

    space = load_space(folder / "space.yaml")
    widest = Choice.widest(space)
    space.choice(space.names(widest), space.widths(widest))
    if read_space(space.definition) != space:
        raise AssertionError("a space's own definition makes another space")


TARGETS = {
    "recipe": Target("recipe.yaml and --set", _recipes, _read_recipe),
    "space": Target("a search space's YAML", _spaces, _read_space),
}
