"""Latency as the budget of a search, on a real runtime: files of operators, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_space import TRANSLATION, space, write_pictures

from compressor.agd.latency import Alone, latency_table
from compressor.agd.space import load_space
from compressor.coronet.latency import ATTEMPTS
from compressor.generators import GeneratorSpec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_operator_files_compute_the_operator(precision: str) -> None:
    """Files given other widths equal PyTorch; in INT8 they hold integers where a whole network's would."""
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    import onnx

    from benchmarks.operator_times import OperatorFiles
    from exporters.onnx import constant_types
    from exporters.runtime import open_onnx

    asked: list[Alone] = []
    latency_table(space(TRANSLATION), lambda wanted: [asked.append(one) or 1.0 for one in wanted])  # type: ignore[func-returns-value]
    files, draw = OperatorFiles("onnxruntime", precision), np.random.default_rng(0)
    kinds, made = ("conv3x3", "dwsblock", "up"), 0
    for one in [one for one in asked if one.place.operator.name in kinds][::5]:
        torch.manual_seed(0)
        reference = one.build()
        torch.manual_seed(0)
        content = files(one)
        entry = draw.normal(size=one.input_shape).astype(np.float32)
        output = open_onnx(content)(entry)
        with torch.no_grad():
            wanted = reference(torch.from_numpy(entry)).numpy()
        integers = constant_types(onnx.load_from_string(content)).get("int8", 0)
        assert output.shape == wanted.shape
        if precision == "fp32":
            assert np.abs(output - wanted).max() < 1e-4
        else:
            assert (integers > 0) == (one.place.operator.name != "up")
        made += 1
    assert 3 <= len(files._converted) < made  # the others were given other widths


def test_an_operator_that_ends_in_a_fused_activation_holds_integers_for_litert() -> None:
    pytest.importorskip("litert_torch", reason="needs the export extra")
    from benchmarks.operator_times import OperatorFiles
    from exporters.tflite import constant_types

    plain = TRANSLATION.replace("norm: instance\n", "").replace(", norm", "")
    asked: list[Alone] = []
    latency_table(space(plain), lambda wanted: [asked.append(one) or 1.0 for one in wanted])  # type: ignore[func-returns-value]
    one = next(one for one in asked if one.place.operator.name == "down")
    assert constant_types(OperatorFiles("litert", "int8")(one)).get("int8", 0) > 0


def test_the_command_searches_for_a_real_latency(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    from click.testing import CliRunner

    from benchmarks.latency_meter import LocalMeter
    from benchmarks.report.page import render
    from benchmarks.report.run_folder import read_run
    from compressor.generators import save
    from compressor.generators.spec import ImageFormat
    from pocketgan.cli import main

    spec = GeneratorSpec("resnet", {"width": 4, "blocks": 1}, ImageFormat(size=(16, 16), multiple=4))
    save(spec, spec.build(), tmp_path / "teacher", {})
    write_pictures(tmp_path / "pictures", 3, 16)
    (tmp_path / "tiny.yaml").write_text(
        "name: tiny\nimage: {input_range: [-1, 1], output_range: [-1, 1], size: [16, 16]}\n"
        "operators: {end: {body: [{conv: 3}, tanh]}}\nlayers:\n"
        "  - {name: cell, repeat: 3, operators: [conv3x3, identity], widths: [8, 64]}\n"
        "  - {name: last, operators: [end], width: 3}\n"
    )
    given = ["--teacher", tmp_path / "teacher", "--images", tmp_path / "pictures", "--json"]
    given += ["--pretrain", 1, "--steps", 1, "--batch", 1, "--finalists", 0, "--trials", 0, "--validation", 1]
    given += ["--space", tmp_path / "tiny.yaml", "--latency-table", tmp_path / "times.json"]
    of = load_space(tmp_path / "tiny.yaml")
    meter = LocalMeter("onnxruntime", "fp32", 1, [], table=tmp_path / "times.json")
    low, high = latency_table(of, meter.operators).range()
    assert 0 < low < high
    words = [*given, "--budget", f"latency={max(2, round((low + high) / 2e3))}us", "--output-dir"]
    done = CliRunner().invoke(main, ["search", *map(str, [*words, tmp_path / "out"])])
    document = json.loads(done.stdout)
    if done.exit_code == 2:  # so slow or fast a moment that the space has nothing for it
        assert "enough for the budget" in json.dumps(document)
        return
    found = document["latency"]
    assert done.exit_code == (0 if found["met"] else 3), done.output
    assert found["device"]["runtime"] == "onnxruntime" and found["device"]["precision"] == "fp32"
    assert 1 <= len(found["attempts"]) <= ATTEMPTS and found["low"] <= found["measured"] <= found["high"]
    assert document["reached"]["latency"] == found["measured"]
    page = render(read_run(tmp_path / "out"))
    assert f"{found['measured'] / 1e6:.3f} ms</b> measured" in page
