"""AGD's networks in the rest of the toolkit: inspected, pruned, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from compressor.agd.definition import read_space
from compressor.agd.space import Choice
from compressor.agd.supernet import Supernet, derive
from compressor.budget import Budget
from compressor.coronet.prune import prune
from compressor.cost import count
from compressor.data.images import write_image
from compressor.generators import Generator, load, save
from compressor.graph import trace
from compressor.options import PruneOptions
from exporters.export import export
from pocketgan.cli import main

SIDE = 16

TRANSLATE: dict[str, Any] = {
    "name": "translate",
    "norm": "instance",
    "image": {"size": [SIDE, SIDE]},
    "operators": {
        "down": {"body": [{"conv": 3, "stride": 2}, "norm", "relu"]},
        "up": {"body": [{"transposed": 3}, "norm", "relu"]},
        "picture": {"body": [{"conv": 7}, "tanh"]},
    },
    "layers": [
        {"name": "down", "operators": ["down"], "width": 16},
        {"name": "cell1", "operators": ["residual"], "width": 12},
        {"name": "cell2", "operators": ["dwsblock"], "width": 12},
        {"name": "cell3", "operators": ["skip"], "width": 16},
        {"name": "cell4", "operators": ["identity"], "width": 16},
        {"name": "up", "operators": ["up"], "width": 8},
        {"name": "picture", "operators": ["picture"], "width": 3},
    ],
}
ENLARGE: dict[str, Any] = {
    "name": "enlarge",
    "base": "bilinear",
    "image": {"size": [SIDE, SIDE], "input_range": [0, 1], "output_range": [0, 1]},
    "operators": {
        "plain": {"body": [{"conv": 3, "bias": True}]},
        "nearest": {"body": [{"nearest": 2}, {"conv": 3, "to": "in"}, "leaky_relu", {"conv": 3}]},
        "shuffle": {"body": [{"conv": 3, "to": "4*out"}, {"shuffle": 2}]},
    },
    "layers": [
        {"name": "first", "operators": ["plain"], "width": 12},
        {
            "residual": 1,
            "layers": [
                {"residual": 0.2, "name": "cell", "repeat": 2, "layers": [
                    {"name": "op1", "operators": ["conv3x3"], "width": 16},
                    {"name": "op2", "operators": ["dwsblock"], "width_as": "first"},
                ]},
            ],
        },
        {"name": "up", "operators": ["nearest"], "width": 8},
        {"name": "picture", "operators": ["shuffle"], "width": 3},
    ],
}  # fmt: skip
BOTH = pytest.mark.parametrize("definition", [TRANSLATE, ENLARGE], ids=["translate", "enlarge"])


def generator(definition: dict[str, Any]) -> Generator:
    space = read_space(definition)
    return derive(Supernet(space, 0), Choice.widest(space))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    for index in range(3):
        coarse = draw.random((4, 4, 3)).astype(np.float32)
        write_image(tmp_path / "pictures" / f"{index}.png", np.kron(coarse, np.ones((8, 8, 1))))
    return sorted((tmp_path / "pictures").iterdir())


@BOTH
def test_every_channel_is_followed(definition: dict[str, Any]) -> None:
    made = generator(definition)
    graph = trace(made.module, made.spec.image.input_shape)
    assert not graph.kept_whole
    if definition is ENLARGE:  # sums tie the trunk: first, both cells' ends
        ends = [graph.layers[f"layers.cell{i}_op2.body.4"].outputs for i in (1, 2)]
        assert all(np.array_equal(graph.layers["layers.first.body.0"].outputs, end) for end in ends)


@BOTH
def test_pruned(definition: dict[str, Any], pictures: list[Path], tmp_path: Path) -> None:
    made = generator(definition)
    options = PruneOptions(steps=2, batch=1, crop=SIDE, samples=0, device="cpu")
    small = prune(made, pictures, Budget.parse("macs=50%"), tmp_path / "small", options).generator
    shape = made.spec.image.input_shape
    assert 0.45 < count(small.module, shape).macs / count(made.module, shape).macs <= 0.5
    assert small.spec.family == "agd" and small.spec.widths


@pytest.mark.parametrize(
    ("definition", "kind"), [(TRANSLATE, "onnx"), (ENLARGE, "tflite")], ids=["translate", "enlarge"]
)
def test_exported(definition: dict[str, Any], kind: str, pictures: list[Path], tmp_path: Path) -> None:
    made, out = generator(definition), tmp_path / "files"
    (file,) = export(
        made, pictures, out, formats=(kind,), precisions=("fp32",), parity_images=1, processes=0
    ).files
    assert file.file == f"generator-fp32.{kind}"
    assert file.parity is not None and file.parity.psnr_min >= 90


def test_inspect_names_the_space_and_what_was_chosen(tmp_path: Path) -> None:
    made = generator(TRANSLATE)
    save(made.spec, made.module, tmp_path / "model", {})
    said = CliRunner().invoke(main, ["inspect", str(tmp_path / "model")])
    assert said.exit_code == 0, said.output
    assert "translate" in said.output and "unknown" not in said.output
    assert "'dwsblock'" in said.output and "layers" not in said.output
    told = CliRunner().invoke(main, ["inspect", str(tmp_path / "model"), "--json"])
    document = json.loads(told.stdout)["architecture"]["arguments"]
    assert document["widths"] == [16, 12, 12, 16, 16, 8, 3]
    with torch.no_grad():
        x = torch.rand(1, 3, SIDE, SIDE)
        assert torch.equal(load(tmp_path / "model").module(x), made.module(x))
