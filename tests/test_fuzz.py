"""Damaged inputs end in errors of ours: some of each reader here, and those that once did not."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.fuzz.networks import _tflite
from benchmarks.fuzz.phones import ANSWERS, Telling
from benchmarks.fuzz.records import _bench, _export
from benchmarks.fuzz.targets import TARGETS
from benchmarks.report.history import history
from benchmarks.report.page import report
from benchmarks.samples import read_bench
from compressor.errors import PocketganError
from compressor.files import read_json
from compressor.generators import load, save
from compressor.generators.families import construct
from compressor.generators.spec import GeneratorSpec, ImageFormat
from compressor.typed import typed
from devices.transport import DeviceError, Workspace
from exporters import tflite
from exporters.apply.painter import open_file
from exporters.given import take
from exporters.result import ExportedFile, read_export

SLOW = ("space", "recipe", "generator folder", "export.json", "bench.json")

CARELESS = """
import os, sys
from pathlib import Path
from benchmarks.fuzz import batch
from benchmarks.fuzz.mutations import some_bytes
from benchmarks.fuzz.target import Target
from compressor.errors import PocketganError
from compressor.files import write_json

read = []

def careless(folder):
    read.append((folder / "a").read_bytes())
    if len(read) == 20:
        read.append(b"a" * (1100 << 20))
    elif len(read[-1]) % 3 == 0:
        os.system("true")
    elif len(read[-1]) % 3 == 1:
        raise KeyError("a")
    else:
        raise PocketganError("refused")

target = Target("lengths", lambda: some_bytes(bytes(40)).map(lambda made: {"a": made}), careless)
write_json(Path(sys.argv[1]) / "told.json", batch.run(target, 60, 1, Path(sys.argv[1])))
"""


def python(*line: str) -> None:
    """A process of its own: fuzzing bounds its memory, and a crash in it is not the end of the tests."""
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    python("-m", "benchmarks.fuzz.batch", str(folder), "30", "7", *SLOW)
    python("-m", "benchmarks.fuzz.batch", str(folder), "100", "7", *(set(TARGETS) - set(SLOW)))
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_or_refuses_whatever_comes(fuzzed: Path, name: str) -> None:
    told = json.loads((fuzzed / name / "batch.json").read_text())
    assert told["findings"] == [] and told["inputs"] >= 30
    assert told["refused"] > 0  # damage that never shows tries nothing


def test_what_is_found_is_told_and_its_input_kept(tmp_path: Path) -> None:
    python("-c", CARELESS, str(tmp_path))
    told = json.loads((tmp_path / "told.json").read_text())
    found = {finding["kind"]: finding for finding in told["findings"]}
    assert set(found) == {"RanCode", "KeyError", "MemoryError"} and told["refused"] > 0
    assert "os.system" in found["RanCode"]["message"] and told["added_mb"] > 1000
    kept = tmp_path / "findings" / found["KeyError"]["input"] / "a"
    assert len(kept.read_bytes()) % 3 == 1


# What fuzzing found.


@pytest.mark.parametrize("text", ["[NaN]", "[-Infinity]", "[1e999]", f"[{'9' * 5000}]", "[" * 10000, '"\\q"'])
def test_json_that_python_alone_reads_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PocketganError, match="is not a JSON document"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (float, True), (float, 10**400), (float, float("nan")), (float, "1"), (int, 1.0), (int, False),
        (str, 1), (bool, 1), (tuple[float, ...], 5), (tuple[str, int], ["a"]),
        (dict[str, int], {"a": "b"}), (ExportedFile, []), (float | None, "x"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_an_error(kind: Any, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        typed(kind, value, "a")


def test_what_is_of_its_type_is_read() -> None:
    assert typed(float, 1, "a") == 1.0 and isinstance(typed(float, 1, "a"), float)
    assert typed(float | None, None, "a") is None and typed(Any, [1], "a") == [1]
    assert typed(tuple[tuple[str, float], ...], [["a", 1], ["b", 2.5]], "a") == (("a", 1.0), ("b", 2.5))
    assert typed(dict[str, int], {"a": 1}, "a") == {"a": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"notes": 5},
        {"float_layers": None},
        {"trade": True},
        {"departures": 1.5},
        {"bytes": "10"},
        {"file": "\ud800"},
        {"file": "a\0"},
        {"drop": {"images": [], "limit": 1}},
        {"parity": {"images": [], "threshold_psnr": 40}},
    ],
    ids=str,
)
def test_an_export_record_of_other_types_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = _export()
    document["files"][1] |= change
    (tmp_path / "export.json").write_text(json.dumps(document))
    with pytest.raises(PocketganError, match="is not whole"):
        read_export(tmp_path)


def test_a_plan_without_drops_or_all_in_float_is_reported(tmp_path: Path) -> None:
    document = _export()
    document["files"][1]["trade"][1] |= {"share": 1.0, "drop": None}
    (tmp_path / "export.json").write_text(json.dumps(document))
    timed = _bench()
    plain = timed["series"][0] | {"runtime": "litert", "group": tmp_path.name}
    timed["series"] = [plain, plain | {"file": "generator-int8.tflite", "precision": "int8"}]
    del timed["rounds"], timed["load_after"]
    (tmp_path / "bench.json").write_text(json.dumps(timed))
    assert "Quality against latency" in report(tmp_path).read_text()


def test_a_file_whose_name_is_no_utf_8_is_reported(tmp_path: Path) -> None:
    document = _bench()
    document["series"][0]["file"] = "a\udc80.onnx"
    (tmp_path / "bench.json").write_text(json.dumps(document))
    assert "a\\udc80.onnx" in report(tmp_path).read_text() and "a\\udc80" in history(tmp_path).read_text()


@pytest.mark.parametrize(
    "change",
    [{"threads": [1]}, {"group": []}, {"delegation": {"kept": "x"}}, {"samples_ms": [10**400] * 6}],
    ids=lambda change: next(iter(change)),
)
def test_a_session_of_other_types_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    document = _bench()
    document["series"][0] |= change
    (tmp_path / "bench.json").write_text(json.dumps(document))
    with pytest.raises(PocketganError, match="is damaged"):
        read_bench(tmp_path)


@pytest.mark.parametrize(
    ("family", "arguments", "key"),
    [
        ("srvgg", {"features": 4, "convolutions": 1}, "body.4.weight"),
        ("resnet", {"width": 2, "blocks": 1}, "model.10.conv_block.1.bias"),
        ("srresnet", {"features": 4, "blocks": 1}, "body.0.conv1.weight"),
    ],
)
def test_a_layer_of_a_wild_number_builds_no_network_of_that_many(
    tmp_path: Path, family: str, arguments: dict[str, Any], key: str
) -> None:
    state = construct(family, arguments).state_dict()
    state[re.sub(r"\d+", "99999999999", key, count=1)] = state.pop(key)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(PocketganError, match="fits no generator"):
        load(tmp_path / "a.pth")


def test_a_last_layer_without_a_shape_fits_nothing(tmp_path: Path) -> None:
    for family, last in (("srresnet", "conv_last.weight"), ("srvgg", "body.4.weight")):
        state = construct(family, {"features": 4}).state_dict() | {last: torch.tensor(1.0)}
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "a.safetensors")
        with pytest.raises(PocketganError, match="fits no generator"):
            load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("family", "change"),
    [("srvgg", {"convolutions": 10**9}), ("unet", {"depth": 10**9}), ("rrdbnet", {"unshuffle": 0})],
)
def test_an_architecture_of_wild_numbers_is_refused(
    tmp_path: Path, family: str, change: dict[str, Any]
) -> None:
    spec = GeneratorSpec("srvgg", {"features": 4, "convolutions": 1}, ImageFormat())
    save(spec, spec.build(), tmp_path / "a", {})
    document = spec.as_json() | {"family": family, "arguments": change}
    (tmp_path / "a" / "architecture.json").write_text(json.dumps(document))
    with pytest.raises(PocketganError):
        load(tmp_path / "a")


def damaged_tflite(path: Path, change: Callable[[Any], None]) -> Path:
    tree = tflite.read(_tflite())
    change(tree)
    path.write_bytes(tflite.write(tree))
    return path


def test_a_tflite_file_that_would_end_the_runtimes_process_is_refused(tmp_path: Path) -> None:
    bare = damaged_tflite(tmp_path / "a.tflite", lambda tree: setattr(tree, "buffers", None))
    with pytest.raises(PocketganError, match="LiteRT cannot open"):
        open_file(bare)


def test_a_tflite_file_of_unreadable_names_is_refused(tmp_path: Path) -> None:
    def rename(tree: Any) -> None:
        tree.subgraphs[0].tensors[int(tree.subgraphs[0].inputs[0])].name = b"\xff"

    with pytest.raises(PocketganError, match="LiteRT cannot open"):
        open_file(damaged_tflite(tmp_path / "a.tflite", rename))


def test_a_tflite_file_whose_parts_do_not_fit_is_not_taken(tmp_path: Path) -> None:
    def point(tree: Any) -> None:
        tree.subgraphs[0].inputs = [99]

    with pytest.raises(PocketganError, match="do not fit together"):
        take(damaged_tflite(tmp_path / "a.tflite", point), ImageFormat(), tmp_path / "out")


@pytest.mark.parametrize("free", ["²", "9" * 5000, "-1", "x"])
def test_a_phone_that_tells_no_free_space(tmp_path: Path, free: str) -> None:
    (tmp_path / "df").write_text(ANSWERS["df"].replace("137", free))
    with pytest.raises(DeviceError, match="free space"):
        Workspace(Telling(tmp_path)).free_bytes()


def test_no_pickle_runs_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "made",))

    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(1), "x": Hostile()}}, buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    with pytest.raises(PocketganError, match="we do not"):
        load(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()
