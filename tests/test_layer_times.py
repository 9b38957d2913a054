"""Layers timed on their own, and the table in which their times are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.layer_times import LayerShape, LayerTimes, LocalTimer, default_file
from compressor.errors import UsageError

CONV = LayerShape(
    "conv", (3, 3), (1, 1), (1, 1), (1, 1), (0, 0), False, 1, True, (64, 64), "fp32"
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    return tmp_path_factory.mktemp("cache") / "layer_times.json"


def test_a_layer_is_timed_once_and_wider_ones_take_longer(table):
    times = LayerTimes(LocalTimer("onnxruntime"), table)
    narrow, wide = times(CONV, 4, 4), times(CONV, 64, 64)
    assert times.measured == 2
    assert wide > 3 * narrow > 0  # 256 times the arithmetic
    again = LayerTimes(LocalTimer("onnxruntime"), table)
    assert (again(CONV, 4, 4), again(CONV, 64, 64), again.measured) == (narrow, wide, 0)
    other = LayerTimes(LocalTimer("onnxruntime", threads=2), table)  # another device for all that matters
    other(CONV, 4, 4)
    assert other.measured == 1
    document = json.loads(table.read_text())
    assert len(document["devices"]) == 2 and document["format"] == "pocketgan.layer_times/1"
    (table.parent / "foreign.json").write_text("[]")
    with pytest.raises(UsageError, match="no table"):
        LayerTimes(LocalTimer("onnxruntime"), table.parent / "foreign.json")


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_an_int8_layer_computes_on_integers(runtime, table):
    """The file that is timed stores its weight in 8 bits, and runs."""
    from benchmarks.layer_times import KINDS, _Exports
    from exporters import onnx as onnx_files
    from exporters import tflite as tflite_files

    if runtime == "litert":
        pytest.importorskip("litert_torch", reason="needs the export extra")
    shape = replace(CONV, precision="int8", size=(16, 16))
    content = _Exports(shape, runtime)(8, 16)
    if runtime == "litert":
        kinds = tflite_files.constant_types(content)
    else:
        import onnx

        kinds = onnx_files.constant_types(onnx.load_from_string(content))
    assert kinds["int8"] >= 8 * 16 * 9
    path = table.parent / f"layer.{KINDS[runtime]}"
    path.write_bytes(content)
    assert LocalTimer(runtime).time(path) > 0


def test_the_table_lies_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_file() == tmp_path / "pocketgan" / "layer_times.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_file().parts[-3:] == (".cache", "pocketgan", "layer_times.json")


def test_a_resized_file_holds_the_layer_that_was_asked_for(table):
    """Only the first width goes through the converter; the others must be the same layer all the same."""
    import onnx
    from onnx import numpy_helper

    from benchmarks.layer_times import _Exports

    for module, pair in (("conv", (12, 20)), ("transposed", (20, 12))):
        shape = LayerShape(
            module, (4, 4), (2, 2), (1, 1), (1, 1), (0, 0), False, 1, True, (16, 16), "fp32"
        )  # fmt: skip
        exports = _Exports(shape, "onnxruntime")
        exports(8, 8)
        assert exports._first is not None
        model = onnx.load_from_string(exports(20, 12))
        onnx.checker.check_model(model, full_check=True)
        shapes = [numpy_helper.to_array(constant).shape for constant in model.graph.initializer]
        assert (*pair, 4, 4) in shapes
