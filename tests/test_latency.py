"""Latency sessions with real runtimes; bench.json written, read back and refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_files import write_onnx, write_tflite

from benchmarks.exported import list_files
from benchmarks.latency import bench, read_bench
from benchmarks.statistics import speed_up
from compressor.errors import PocketganError, UsageError
from compressor.files import sha256
from exporters.result import ExportedFile, ExportResult


def write_export(folder: Path, names: list[str], missing: tuple[str, ...] = ()) -> None:
    files = [ExportedFile(name, "onnxruntime", name[-9:-5], "fp32") for name in names]
    files += [ExportedFile(name, "litert", "int8", "int8-static", error="no") for name in missing]
    source = {"shape": [1, 3, 256, 256], "range": [0.0, 1.0]}
    ExportResult(folder, {}, source, {}, {}, tuple(files)).write()


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    folder = tmp_path_factory.mktemp("run") / "export"
    for group, width in (("original", 48), ("compressed", 4)):
        write_onnx(folder / group / "generator-fp32.onnx", width, 256)
        write_export(folder / group, ["generator-fp32.onnx"], missing=("generator-int8.tflite",))
    return folder


def test_a_session_is_interleaved_complete_and_read_back(exports, tmp_path):
    result = bench([exports], output=tmp_path, threads=[1], rounds=9, warmup=2)
    assert read_bench(tmp_path) == read_bench(tmp_path / "bench.json") == result
    assert [(item.group, item.precision, item.threads, item.block) for item in result.series] == [
        ("compressed", "fp32", 1, 0),
        ("original", "fp32", 1, 0),
    ]
    for item in result.series:
        assert (len(item.samples_ms), len(item.warmup_ms)) == (9, 2)
        assert min(item.init_ms, item.first_ms, *item.warmup_ms, *item.samples_ms) > 0
        assert item.peak_rss_mb > item.base_rss_mb > 1
        assert item.sha256 == sha256(exports / item.group / item.file)
    assert result.document["order"] == "interleaved" and result.document["rounds"] == 9
    assert set(result.document["runtimes"]) == {"onnxruntime"}
    assert "median" not in (tmp_path / "bench.json").read_text()
    compressed, original = result.series
    # 12 times fewer multiplications; a busy machine may blur that, but not to nothing
    assert speed_up(original.samples_ms, compressed.samples_ms).value > 1.5


def test_time_limit_keeps_five_samples(exports, tmp_path):
    result = bench([exports / "original"], output=tmp_path, threads=[1], rounds=5000, max_seconds=0.001)
    assert len(result.series[0].samples_ms) == 5
    assert (result.document["rounds"], result.document["rounds_asked"]) == (5, 5000)
    assert result.series[0].group == "original"


def test_results_are_replaced_only_when_asked(exports, tmp_path):
    first = bench([exports / "compressed"], output=tmp_path, threads=[1], rounds=5)
    with pytest.raises(PocketganError, match="already holds"):
        bench([exports / "compressed"], output=tmp_path, threads=[1], rounds=5)
    assert bench([exports / "compressed"], output=tmp_path, threads=[1], resume=True) == first
    assert bench([exports / "compressed"], output=tmp_path, threads=[1], rounds=5, replace=True) != first


def test_resume_measures_again_when_a_file_changed(exports, tmp_path):
    shutil.copytree(exports / "compressed", tmp_path / "mine")
    first = bench([tmp_path / "mine"], output=tmp_path / "out", threads=[1], rounds=5)
    write_onnx(tmp_path / "mine" / "generator-fp32.onnx", 6, 256)
    second = bench([tmp_path / "mine"], output=tmp_path / "out", threads=[1], rounds=5, resume=True)
    assert first.series[0].sha256 != second.series[0].sha256


def test_memory_that_holds_one_session_makes_blocks(exports, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.latency._RESERVE", 1.0)  # all memory must stay free
    result = bench([exports], output=tmp_path, threads=[1], rounds=5)
    assert [item.block for item in result.series] == [0, 1]
    assert "2 blocks" in result.document["order"]


def test_foreign_files_without_export_json(tmp_path):
    pytest.importorskip("litert_torch", reason="needs the export extra")
    write_tflite(tmp_path / "theirs" / "net_int8.tflite")
    file = list_files([tmp_path / "theirs"])[0]
    assert (file.group, file.runtime, file.precision) == ("theirs", "litert", "int8")
    result = bench([tmp_path / "theirs"], output=tmp_path / "out", threads=[1], rounds=5)
    assert result.series[0].delegation == {"nodes": 2, "delegated": 2, "partitions": 1, "kept": {}}


def test_groups_of_one_name_are_told_apart(exports, tmp_path):
    for run in ("a", "b"):
        shutil.copytree(exports / "compressed", tmp_path / run / "compressed")
    groups = {file.group for file in list_files([tmp_path / "a", tmp_path / "b"])}
    assert groups == {"a/compressed", "b/compressed"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": [0]}, "threads are counted"),
        ({"rounds": 2}, "too few rounds"),
        ({"warmup": -1}, "negative"),
        ({"max_seconds": float("nan")}, "negative"),
    ],
)
def test_impossible_numbers_are_refused(exports, tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        bench([exports], output=tmp_path, **wrong)


def test_folders_without_files_are_refused(exports, tmp_path):
    with pytest.raises(PocketganError, match="there is no folder"):
        bench([tmp_path / "none"], output=tmp_path / "out")
    with pytest.raises(PocketganError, match="holds no exported files"):
        bench([tmp_path], output=tmp_path / "out")
    shutil.copytree(exports / "compressed", tmp_path / "gone")
    (tmp_path / "gone" / "generator-fp32.onnx").unlink()
    with pytest.raises(PocketganError, match="but missing"):
        bench([tmp_path / "gone"], output=tmp_path / "out")
    (tmp_path / "gone" / "export.json").write_text('{"format": "pocketgan.export/9"}')
    with pytest.raises(PocketganError, match="does not know"):
        bench([tmp_path / "gone"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_stops_the_session_with_its_name(exports, tmp_path):
    shutil.copytree(exports, tmp_path / "export")
    (tmp_path / "export" / "original" / "generator-fp32.onnx").write_bytes(b"damaged")
    with pytest.raises(PocketganError, match=r"original/generator-fp32\.onnx"):
        bench([tmp_path / "export"], output=tmp_path / "out", rounds=5)
    assert not (tmp_path / "out" / "bench.json").exists()


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"format": "pocketgan.bench/1"}', '{"format": "pocketgan.bench/1", "series": [{}]}'],
)
def test_damaged_results_are_refused(tmp_path, content):
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(PocketganError, match=r"bench\.json"):
        read_bench(tmp_path)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_a_killed_session(exports, tmp_path, how):
    import psutil

    code = "from pathlib import Path; from benchmarks.latency import bench\n"
    code += f"bench([Path({str(exports)!r})], output=Path({str(tmp_path / 'out')!r}), rounds=100000)"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(children := psutil.Process(parent.pid).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) >= 2
    os.kill(parent.pid, how)
    parent.wait(20)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not (tmp_path / "out" / "bench.json").exists()
