"""Our ONNX files in OpenVINO: each precision loads and paints what onnxruntime paints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner

from benchmarks.in_openvino import beside, open_openvino, table
from compressor.errors import PocketganError
from exporters.parity import THRESHOLDS

SIZE = tiny.SIZE


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino")
    from pocketgan.cli import main

    folder = tmp_path_factory.mktemp("openvino")
    tiny.write_job(folder)
    line = ["export", folder / "tiny.pth", "--images", folder / "pictures", "--output-dir", folder / "out"]
    done = CliRunner().invoke(main, [*map(str, line), "--format", "onnx", "--size", f"{SIZE}x{SIZE}"])
    assert done.exit_code == 0, done.stderr
    return folder


def references(folder: Path) -> list:
    from compressor.generators import load
    from exporters.job import Job

    pictures = sorted((folder / "pictures").iterdir())
    return Job(load(folder / "tiny.pth"), (SIZE, SIZE), pictures[:1], pictures[:3], 40.0).references


def test_every_precision_loads_and_agrees(exported: Path) -> None:
    files = sorted((exported / "out").glob("*.onnx"))
    assert len(files) == 3
    found = beside(files, references(exported), (-1.0, 1.0), rounds=2, threads=1)
    record = json.loads((exported / "out" / "export.json").read_text())
    precisions = {file["file"]: file["precision"] for file in record["files"]}
    for name, each in found.items():
        ours, theirs = each["onnxruntime"], each["openvino"]
        assert len(theirs["ms"]) == len(ours["ms"]) == 2
        # half arithmetic is each runtime's own affair: there our gate decides, as it does on export
        least = {"fp32": 80.0, "fp16": THRESHOLDS["fp16"]}.get(precisions[Path(name).name])
        assert min(theirs["psnr"]) > (min(ours["psnr"]) - 3 if least is None else least), (name, each)
    assert table({"tiny": found}).count("tiny") == 3


def test_rounds_end_by_the_clock_once_each_had_five(exported: Path) -> None:
    files = [exported / "out" / "generator-fp32.onnx"]
    (found,) = beside(files, references(exported), (-1.0, 1.0), rounds=10**9, threads=1, seconds=0).values()
    assert [len(each["ms"]) for each in found.values()] == [5, 5]


def test_a_file_it_refuses_is_said(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(PocketganError, match="cannot open"):
        open_openvino(tmp_path / "a.onnx", 1)


def test_without_openvino_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(PocketganError, match="pip install openvino"):
        open_openvino(tmp_path / "a.onnx", 1)
