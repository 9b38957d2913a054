"""Latency tables filled on a simulated phone, through the real adb and the emulated arm64 runner.

Emulated times mean nothing; what is tested is where they come from, where they are kept and who may use them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from phone import Phone
from tiny_space import write_pictures

from benchmarks.layer_times import LayerTimes, LocalTimer
from benchmarks.phone_meter import PhoneMeter, PhoneTimer
from compressor.agd.latency import latency_table
from compressor.agd.space import load_space
from compressor.errors import GateError
from compressor.generators import GeneratorSpec, load, save
from compressor.generators.spec import ImageFormat
from compressor.graph import trace
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.transport import DeviceError
from pocketgan.cli import main

pytest.importorskip("onnxruntime", reason="needs the export extra")
pytestmark = pytest.mark.usefixtures("gathered")

SPACE = """\
name: tiny
image: {input_range: [-1, 1], output_range: [-1, 1], size: [16, 16]}
operators: {end: {body: [{conv: 3}, tanh]}}
layers:
  - {name: cell, operators: [conv3x3], widths: [4, 16]}
  - {name: last, operators: [end], width: 3}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a space, a generator that can be pruned, and pictures."""
    (tmp_path / "tiny.yaml").write_text(SPACE)
    spec = GeneratorSpec("srvgg", {"features": 2, "convolutions": 1, "scale": 2}, ImageFormat(size=(16, 16)))
    save(spec, spec.build(), tmp_path / "teacher", {})
    write_pictures(tmp_path / "pictures", 3, 16)
    return tmp_path


def meter(device: AdbTransport, folder: Path) -> PhoneMeter:
    pictures, table = sorted((folder / "pictures").iterdir()), folder / "times.json"
    return PhoneMeter(device, "onnxruntime", "fp32", 1, pictures, table=table, rounds=5, allow_emulated=True)


def stored(phone: Phone) -> set[str]:
    """Files that stay on the phone between sessions, without the runner's own."""
    return {path.name for path in phone.data.rglob("*.onnx")} - {"selftest.onnx"}


def test_a_phone_fills_a_table_of_its_own(
    phone: Phone, device: AdbTransport, adb: AdbServer, tiny: Path
) -> None:
    words = [
        "--space",
        tiny / "tiny.yaml",
        "--model",
        tiny / "teacher",
        "--latency-table",
        tiny / "times.json",
    ]
    words += ["--adb-server", f"{adb.host}:{adb.port}", "--allow-emulated", "--json"]
    done = CliRunner().invoke(main, ["devices", "profile", phone.serial, *map(str, words)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    low, high = told["spaces"]["tiny"]
    assert 0 < low < high and told["layers"] == {str(tiny / "teacher"): 3} and told["measured"] > 10
    assert told["device"]["soc"] == "SM8650" and told["device"]["emulated"] is True
    (kept,) = json.loads((tiny / "times.json").read_text())["devices"].values()
    assert kept["identity"] | {"precision": "fp32"} == told["device"]
    assert len(kept["nanoseconds"]) == told["measured"]
    assert phone.left() == [] and not stored(phone)

    # A search and a pruning on this phone, or on its twin, find all of it there; this machine does not.
    ours, space, teacher = meter(device, tiny), load_space(tiny / "tiny.yaml"), load(tiny / "teacher")
    assert latency_table(space, ours.operators, most=ours.most).range() == (low, high)
    assert len(ours.tables(teacher, trace(teacher.module, (1, 3, 16, 16)))) == 3
    assert ours.times.measured == 0 and told["device"] == dict(ours.identity)
    assert LayerTimes(LocalTimer("onnxruntime"), tiny / "times.json")._known == {}
    whole = ours.alone(teacher)  # the exported network, in turns on the phone
    assert whole.candidate > 0 and whole.low <= 1 <= whole.high
    assert phone.left() == []


def test_emulated_times_must_be_asked_for(phone: Phone, device: AdbTransport) -> None:
    with pytest.raises(GateError, match="emulates"):
        PhoneTimer(device, "onnxruntime")
    assert phone.left() == []


@pytest.mark.acceptance  # half a minute, most of it waiting for the phone to come back
def test_a_phone_that_dies_keeps_what_was_timed(phone: Phone, device: AdbTransport, tiny: Path) -> None:
    ours, space = meter(device, tiny), load_space(tiny / "tiny.yaml")
    original, asked = PhoneTimer.time, []

    def dying(self: PhoneTimer, path: Path) -> float:
        asked.append(path)
        if len(asked) == 3:
            phone.fault = "die"
        return original(self, path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(DeviceError):
        patch.setattr(PhoneTimer, "time", dying)
        latency_table(space, ours.operators, most=ours.most)
    (kept,) = json.loads((tiny / "times.json").read_text())["devices"].values()
    assert len(kept["nanoseconds"]) == 2 and all(np.array(list(kept["nanoseconds"].values())) > 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["devices", "profile", "x"], "say what to time"),
        (["prune", "--latency-serial", "x", "--budget", "macs=50%"], "--latency-serial means nothing"),
        (["prune", "--latency-emulated", "--budget", "latency=50%"], "no phone to time on"),
    ],
)
def test_options_that_mean_nothing_are_refused(words: list[str], said: str, tiny: Path) -> None:
    if words[0] == "prune":
        files = ["--images", tiny / "pictures", "--output-dir", tiny / "out"]
        words = ["prune", str(tiny / "teacher"), *words[1:], *map(str, files)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and said in done.output + (done.stderr or "")


@pytest.mark.acceptance
def test_the_command_prunes_to_a_latency_on_the_phone(phone: Phone, adb: AdbServer, tiny: Path) -> None:
    spec = GeneratorSpec("srvgg", {"features": 16, "convolutions": 1, "scale": 2}, ImageFormat(size=(64, 64)))
    save(spec, spec.build(), tiny / "larger", {})
    words = ["--images", tiny / "pictures", "--budget", "latency=80%", "--steps", 2, "--json"]
    words += ["--latency-serial", phone.serial, "--latency-adb-server", f"{adb.host}:{adb.port}"]
    words += ["--latency-table", tiny / "times.json", "--output-dir", tiny / "out", "--latency-emulated"]
    done = CliRunner().invoke(main, ["prune", str(tiny / "larger"), *map(str, words)])
    document = json.loads(done.stdout)
    assert "latency" in document, document
    found = document["latency"]
    assert done.exit_code == (0 if found["met"] else 3), done.output
    assert found["device"]["emulated"] is True and found["device"]["soc"] == "SM8650"
    assert found["low"] <= found["measured"] <= found["high"] and phone.left() == []
