"""Groups, shuffles, gates and learned scales, all the way: pruned, saved, exported, timed layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modern import Modern
from safetensors.torch import save_file
from tiny import write_pictures

from compressor.budget import Budget
from compressor.coronet.prune import prune
from compressor.data.images import list_images
from compressor.generators import load
from compressor.graph import trace
from compressor.options import PruneOptions

FACTORY = "modern:modern"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modern")
    torch.manual_seed(0)
    save_file(Modern().state_dict(), folder / "modern.safetensors")
    write_pictures(folder / "pictures")
    generator = load(folder / "modern.safetensors", factory=FACTORY)
    pictures = list_images(folder / "pictures")
    options = PruneOptions(steps=3, batch=1, crop=32, device="cpu", samples=0)
    return prune(generator, pictures, Budget.parse("macs=60%"), folder / "small", options), pictures


def test_every_step_is_followed_and_the_budget_met(small):
    result, _ = small
    assert 0.5 < result.document["share"] <= 0.6  # ties make steps coarse in a network this small
    assert result.document["kept_whole"] == []
    again = load(result.folder, factory=FACTORY)
    x = torch.rand(1, 3, 48, 40) * 2 - 1
    torch.testing.assert_close(again.module(x), result.generator.module(x))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_its_files_agree_with_pytorch(small, tmp_path, kind, precision):
    from exporters.export import export

    result, pictures = small
    made = export(
        result.generator, pictures, tmp_path / "files", formats=(kind,), precisions=(precision,), processes=0
    )
    assert [file.parity.passed for file in made.files] == [True]


def test_its_convolutions_can_be_timed(small, tmp_path):
    from benchmarks.latency_meter import LocalMeter
    from compressor.coronet.latency import latency_model

    result, pictures = small
    generator = result.generator
    graph = trace(generator.module, generator.spec.image.input_shape)
    meter = LocalMeter("onnxruntime", "fp32", 1, pictures, table=tmp_path / "times.json", rounds=5)
    tables = meter.tables(generator, graph)
    assert {"body.0.expand", "body.0.depthwise"} <= tables.keys() and "body.0.down" not in tables
    whole = meter.whole(generator)
    model = latency_model(graph, tables, whole)
    assert model(np.ones(graph.classes)) == pytest.approx(whole, rel=1e-3)
