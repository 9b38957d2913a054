"""`pocketgan bench --runner benchmark_model`: all of it but the program, through the real adb.

Google's program is not here. In its place stands a script of ours on the simulated phone, which prints
lines as the program's documentation and its users show them: what is tested is what goes to the phone and
what is made of what comes back, not the program and not a latency.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from phone import Phone
from small_files import write_onnx
from test_benchmark_model import CLASSIC, LITERT

from benchmarks.on_phone_by_tool import bench_by_tool
from benchmarks.samples import read_bench
from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import sha256
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.benchmark_tool import delegate_flags, open_tool
from devices.transport import DeviceError
from pocketgan.cli import main

SELF_TEST = Path(__file__).resolve().parent.parent / "devices/runner/selftest.tflite"
FULL = (
    "VERBOSE: Replacing 33 out of 33 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partition"
)
PART = FULL.replace("33 out", "20 out")
REST = FULL.replace("33 out of 33", "12 out of 14").replace("TfLiteGpuDelegateV2", "TfLiteXNNPackDelegate")


def program(folder: Path, flags: str, *cases: tuple[str, str, int]) -> Path:
    """A script in the program's place: for each (pattern of its arguments, what it prints, exit code)."""
    lines = ["#!/bin/sh", f"# {flags}", 'case "$*" in']
    lines += [f"{pattern}) printf %s {shlex.quote(said)}; exit {code} ;;" for pattern, said, code in cases]
    path = folder / "benchmark_model"
    path.write_text("\n".join([*lines, "esac", "exit 9", ""]))
    return path


@pytest.fixture
def classic(tmp_path: Path) -> Path:
    gpu = CLASSIC.replace("STARTING!", f"STARTING!\n{FULL}").replace("INFO: Replacing 31", "INFO: Taking 31")
    cases = ("*--use_gpu=true*", gpu, 0), ("*--use_nnapi=true*", gpu.replace(FULL, f"{PART}\n{REST}"), 0)
    return program(tmp_path, "use_nnapi use_xnnpack", *cases, ("*--use_xnnpack=true*", CLASSIC, 0))


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A TFLite file whose name would be code to a shell, and an ONNX file."""
    folder = tmp_path / "exports"
    write_onnx(folder / "generator-fp32.onnx")
    (folder / "$(touch pwned);'-fp32.tflite").write_bytes(SELF_TEST.read_bytes())
    return folder


def test_a_session_records_what_ran(
    phone: Phone, device: AdbTransport, classic: Path, exports: Path, tmp_path: Path
) -> None:
    result = bench_by_tool([exports], device, classic, output=tmp_path / "out", delegate="gpu", rounds=12)
    document = json.loads((tmp_path / "out/bench.json").read_text())
    (series,) = read_bench(tmp_path / "out").series
    assert series == result.series[0] and series.runtime == "benchmark_model gpu"
    assert series.samples_ms == pytest.approx([1240.27] * 6)  # 6 turns of 2: the mean of each
    assert (series.init_ms, series.first_ms) == pytest.approx((5.579, 1357.602))
    assert series.delegation == {
        "replaced": [{"delegate": "TfLiteGpuDelegateV2", "delegated": 33, "nodes": 33, "partitions": 1}]
    }
    ran = document["runner"]["benchmark_model"]
    assert ran == {"sha256": sha256(classic), "dialect": "classic", "flags": ["--use_gpu=true"]}
    assert document["left_out"] == ["generator-fp32.onnx"] and document["parity"] == []
    assert len(document["turns"][0]["turns"]) == 6 and document["heat_by_round"][5]["cooled"]
    asked = [line for line in phone.log if "--graph=" in line]
    assert len(asked) == 6 and all("--num_runs=2" in line and "--use_gpu=true" in line for line in asked)
    assert phone.left() == [] and not list(phone.folder.rglob("pwned"))


def test_a_partial_fallback_fails_unless_allowed(
    phone: Phone, device: AdbTransport, classic: Path, exports: Path, tmp_path: Path
) -> None:
    with pytest.raises(GateError, match="20 of 33 nodes"):
        bench_by_tool([exports], device, classic, output=tmp_path / "out", delegate="nnapi", rounds=5)
    assert not (tmp_path / "out/bench.json").exists() and phone.left() == []
    result = bench_by_tool(
        [exports], device, classic, output=tmp_path / "out", delegate="nnapi", rounds=5, allow_fallback=True
    )
    shares = [(item["delegated"], item["nodes"]) for item in (result.series[0].delegation or {})["replaced"]]
    assert shares == [(20, 33), (12, 14)]


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (CLASSIC, 1, "exit code 1: Overall peak"),
        ("ERROR: Failed to apply GPU delegate.\n", 1, "Failed to apply"),
        ("\x1b[31m<script>$(reboot)\n", 0, "no latency"),
        (CLASSIC.replace("Init: 5579, ", ""), 0, "how long loading"),
    ],
)
def test_a_tool_that_fails_leaves_no_result(
    phone: Phone, device: AdbTransport, exports: Path, tmp_path: Path, said: str, code: int, words: str
) -> None:
    tool = program(tmp_path, "use_xnnpack", ("*", said, code))
    with pytest.raises(DeviceError) as caught:
        bench_by_tool([exports], device, tool, output=tmp_path / "out", rounds=5)
    assert words in str(caught.value) and "\x1b" not in str(caught.value)
    assert not (tmp_path / "out/bench.json").exists() and phone.left() == []


def test_the_newer_tool_is_told_to_leave_nothing(tmp_path: Path) -> None:
    newer = open_tool(program(tmp_path, "use_npu use_xnnpack"))
    assert newer.dialect == "litert"
    strict = ["--use_npu=true", "--use_cpu=false", "--require_full_delegation=true"]
    assert delegate_flags(newer, "npu") == strict
    assert delegate_flags(newer, "gpu", allow_fallback=True) == ["--use_gpu=true", "--use_cpu=true"]
    with pytest.raises(UsageError, match="cpu, gpu, npu"):
        delegate_flags(newer, "nnapi")
    (tmp_path / "other").write_bytes(b"\x7fELF of something else")
    for name in ("other", "missing"):
        with pytest.raises(PocketganError):
            open_tool(tmp_path / name)


def test_the_command(
    phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = program(tmp_path, "use_npu", ("*--use_npu=true*--require_full_delegation=true*", LITERT, 0))
    where = ["--serial", phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--rounds", "5"]
    google = ["--runner", "benchmark_model", "--benchmark-model", str(tool), "--delegate", "npu"]
    files = ["--output-dir", str(tmp_path / "out"), "--csv", str(tmp_path / "out.csv")]
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", str(exports), *where, *google, *files])
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    assert "33 of 33 nodes on DispatchDelegate" in printed.out and "none were compared" in printed.out
    assert "1.18" in printed.out and "benchmark_model npu" in (tmp_path / "out.csv").read_text()


def test_the_tool_can_be_fetched_and_its_hash_is_on_record(
    phone: Phone, adb: AdbServer, classic: Path, exports: Path, tmp_path: Path
) -> None:
    """From a folder in place of Google's server, whose newest builds have one name for ever."""
    (tmp_path / "mirror").mkdir()
    classic.rename(tmp_path / "mirror/android_aarch64_benchmark_model")
    data, run = tmp_path / "data", CliRunner()
    fetch = ["data", "fetch", "benchmark_model", "--source", tmp_path / "mirror", "--output-dir", data]
    done = run.invoke(main, list(map(str, fetch)))
    assert done.exit_code == 0, done.output
    where = ["--serial", phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--rounds", 5]
    google = ["--runner", "benchmark_model", "--benchmark-model", data / "phones/benchmark_model"]
    line = ["bench", exports, *where, *google, "--output-dir", tmp_path / "out", "--json"]
    done = run.invoke(main, list(map(str, line)))
    assert done.exit_code == 0, done.output
    (noted,) = json.loads((data / "checksums.json").read_text())["files"].values()
    assert json.loads(done.stdout)["runner"]["benchmark_model"]["sha256"] == noted["sha256"]


@pytest.mark.parametrize(
    "line",
    [
        ["--runner", "benchmark_model"],
        ["--runner", "arm64"],
        ["--serial", "x", "--runner", "host"],
        ["--serial", "x", "--runner", "benchmark_model"],
        ["--serial", "x", "--benchmark-model", "tool"],
        ["--serial", "x", "--delegate", "gpu"],
        ["--allow-fallback"],
    ],
)
def test_options_that_do_not_go_together(line: list[str], exports: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", str(exports), *line])
    assert ended.value.code == 2
