"""`pocketgan bench --serial`: exported files on a simulated phone, with parity checked there."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phone import Phone
from phone_fixtures import wait_until_ready
from small_files import write_onnx

from benchmarks.exported import list_files
from benchmarks.on_phone import EMULATED, PARITY_DB, _compared, _entries, _refuse_differing, bench_on_phone
from benchmarks.samples import read_bench
from compressor.errors import GateError, PocketganError, UsageError
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.transport import DeviceError

pytestmark = pytest.mark.usefixtures("gathered")


@pytest.fixture(scope="module")
def own_phone(adb: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with Phone(tmp_path_factory.mktemp("bench") / "phone") as phone:
        adb.connect(phone.serial)
        wait_until_ready(adb, phone.serial)
        yield phone
        adb.disconnect(phone.serial)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Two files that the hand-written converter makes; the name of one would be code to a shell."""
    folder = tmp_path / "exports"
    write_onnx(folder / "generator-fp32.onnx")
    write_onnx(folder / "$(touch pwned);'-fp32.onnx", width=4)
    return folder


def test_a_session_is_recorded_and_marked(
    own_phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path
) -> None:
    device = AdbTransport(own_phone.serial, adb)
    result = bench_on_phone(
        [exports], device, output=tmp_path / "out", rounds=5, warmup=1, cores="fast", allow_emulated=True
    )
    document = json.loads((tmp_path / "out/bench.json").read_text())
    assert document["format"] == EMULATED and document["emulated"] is True
    assert len(result.series) == 2 and all(len(series.samples_ms) == 5 for series in result.series)
    assert all(item["passed"] and item["max_abs"] < 1e-4 for item in document["parity"])
    assert document["device"]["soc"] == "SM8650" and document["affinity"] == "80"
    assert document["heat_before"]["status"] == 0 and document["heat_by_round"][0]["cooled"]
    assert own_phone.left() == [] and document["left_behind"] is None
    assert not list(own_phone.folder.rglob("pwned"))
    with pytest.raises(PocketganError, match="format"):  # no report takes emulated times for a phone's
        read_bench(tmp_path / "out")
    with pytest.raises(PocketganError, match="already holds"):
        bench_on_phone([exports], device, output=tmp_path / "out", rounds=5, allow_emulated=True)


def test_emulated_times_must_be_asked_for(
    own_phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path
) -> None:
    with pytest.raises(GateError, match="emulates"):
        bench_on_phone([exports], AdbTransport(own_phone.serial, adb), output=tmp_path / "out", rounds=5)
    assert not (tmp_path / "out/bench.json").exists() and own_phone.left() == []


def test_the_doctor_tests_both_runtimes_with_a_known_answer(own_phone: Phone, adb: AdbServer) -> None:
    from click.testing import CliRunner

    from pocketgan.cli import main

    words = ["devices", "doctor", own_phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--json"]
    done = CliRunner().invoke(main, [*words, "--allow-emulated"])
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 0, checks
    for runtime in ("onnxruntime", "litert"):
        assert checks[f"runner {runtime}"]["said"].endswith("gives the known answer")
    done = CliRunner().invoke(main, words)  # what it runs on here is no phone's processor
    assert done.exit_code == 1 and "emulates its processor" in done.stdout
    assert own_phone.left() == []


def test_another_picture_fails_the_gate(exports: Path) -> None:
    file = next(file for file in list_files([exports]) if file.path.name == "generator-fp32.onnx")
    (entry,) = _entries([file], [1], 0)
    expected = entry.host.run(entry.values)
    same = _compared(entry, expected)
    assert same.passed and same.max_abs == 0 and same.as_json()["psnr"] is None
    noisy = expected + np.random.default_rng(0).normal(0, 0.01, expected.shape) * np.ptp(expected)
    differs = _compared(entry, noisy.astype(np.float32))
    assert not differs.passed and differs.psnr == pytest.approx(40, abs=0.5)  # -20 log10(0.01)
    assert not _compared(entry, expected * np.nan).passed
    assert not _compared(entry, expected[:, :2]).passed
    _refuse_differing([same], "phone")
    with pytest.raises(GateError, match="another picture"):
        _refuse_differing([same, differs], "phone")


def test_the_command_tells_ci_of_another_picture(
    own_phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pocketgan.cli import main

    monkeypatch.setitem(PARITY_DB, "fp32", float("nan"))  # which no picture reaches
    where = ["--serial", own_phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--rounds", "5"]
    files = ["--output-dir", str(tmp_path / "out"), "--junit", str(tmp_path / "junit.xml")]
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", str(exports), *where, "--warmup", "1", "--allow-emulated", *files])
    assert ended.value.code == 3 and (tmp_path / "out/bench.json").exists()
    cases = list(ElementTree.parse(tmp_path / "junit.xml").iter("testcase"))
    assert len(cases) == 2 and all(case.find("failure") is not None for case in cases)
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.acceptance
def test_six_files_through_the_command(
    own_phone: Phone, adb: AdbServer, six_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pocketgan.cli import main

    where = ["--serial", own_phone.serial, "--adb-server", f"{adb.host}:{adb.port}"]
    options = ["--rounds", "5", "--warmup", "1", "--allow-emulated", "--output-dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", str(six_files), *where, *options])
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    assert "EMULATED" in printed.out and printed.out.count("generator-") == 6
    document = json.loads((tmp_path / "out/bench.json").read_text())
    assert len(document["parity"]) == 6 and all(item["passed"] for item in document["parity"])
    assert own_phone.left() == []


def test_a_phone_that_dies_leaves_no_half_result(
    own_phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = AdbTransport(own_phone.serial, adb)
    from devices.runner.run import Runner

    original = Runner.measure

    def dying(self: Runner, model: Path, *arguments: object, **options: object) -> object:
        if model.parent == exports:
            own_phone.fault = "reboot"
        return original(self, model, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "measure", dying)
    with pytest.raises(DeviceError):
        bench_on_phone([exports], device, output=tmp_path / "out", rounds=5, allow_emulated=True)
    assert not (tmp_path / "out/bench.json").exists() and own_phone.left() == []
    wait_until_ready(adb, own_phone.serial)


def test_numbers_out_of_range(own_phone: Phone, adb: AdbServer, exports: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        bench_on_phone([exports], AdbTransport(own_phone.serial, adb), output=tmp_path, threads=[0])
