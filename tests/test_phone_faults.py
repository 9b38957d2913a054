"""Every fault of the simulated phone by the command line: a clear error, in time, and a clean phone.

`pocketgan bench` runs as processes of their own, one for each fault and phone, side by side, on the real adb.
What runs on the phones is a script in the place of Google's benchmark_model (see test_on_phone_by_tool).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from phone import FAULTS, Phone
from phone_fixtures import wait_until_ready
from test_benchmark_model import CLASSIC
from test_on_phone_by_tool import SELF_TEST, program

from devices.adb_server import AdbServer
from pocketgan.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = "model-fp32.tflite"
CASES = {  # fault: (the command or path that meets it, words of the error)
    "die": ("--graph=", "connection to .* broke|stopped answering"),
    "reboot": ("--graph=", "connection to .* broke|stopped answering"),
    "zero": ("--graph=", "stopped answering while benchmark_model ran"),
    "stall": ("df -k", "does not answer"),
    "stall-sync": (MODEL, "does not answer"),
    "garbage": ("--graph=", "stopped answering while benchmark_model ran"),
    "flood": ("--graph=", "prints without end"),
    "full": (".part", "its disk is full"),
    "corrupt": (".part", "did not arrive whole"),
    "unauthorized": ("", "is not authorised"),
}
LONGEST = 60.0  # seconds: a query's 10 and the phone's grace of 10, clean-up, and a busy machine


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    answer: Mapping[str, Any]
    said: str
    seconds: float
    phone: Phone
    output: Path


def line(serial: str, adb: AdbServer, folder: Path) -> list[str]:
    where = ["--serial", serial, "--adb-server", f"{adb.host}:{adb.port}", "--rounds", "5"]
    google = ["--runner", "benchmark_model", "--benchmark-model", str(folder / "benchmark_model")]
    return ["bench", str(folder / "exports"), *where, *google, "--output-dir", str(folder / "out"), "--json"]


def furnish(folder: Path) -> None:
    """A file to measure, and the tool."""
    (folder / "exports").mkdir(parents=True)
    (folder / "exports" / MODEL).write_bytes(SELF_TEST.read_bytes())
    program(folder, "use_xnnpack", ("*", CLASSIC, 0))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.fixture(scope="module")
def ended(adb: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """What became of one `pocketgan bench` for each fault."""
    folder, found = tmp_path_factory.mktemp("faults"), {}
    with contextlib.ExitStack() as stack:
        running = {}
        for fault, (place, _) in CASES.items():
            own = folder / fault
            furnish(own)
            locked = fault if fault == "unauthorized" else None
            phone = stack.enter_context(Phone(own / "phone", fault=locked))
            stack.callback(adb.disconnect, phone.serial)
            if locked:
                adb._client_checked().connect(phone.serial)
            else:
                adb.connect(phone.serial)
                wait_until_ready(adb, phone.serial)
                phone.due = (place, fault)
            words = [sys.executable, "-m", "pocketgan", *line(phone.serial, adb, own)]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            with (own / "out.txt").open("w") as out, (own / "err.txt").open("w") as err:
                process = subprocess.Popen(words, stdout=out, stderr=err, cwd=own, env=environment)
            stack.callback(process.kill)
            running[fault] = process, phone, time.monotonic()
        codes: dict[str, tuple[int, float]] = {}
        while len(codes) < len(running):
            for fault, (process, _, began) in running.items():
                seconds = time.monotonic() - began
                if fault not in codes and (process.poll() is not None or seconds > 2 * LONGEST):
                    codes[fault] = (-1 if process.returncode is None else process.returncode, seconds)
            time.sleep(0.05)
        for fault, (code, seconds) in codes.items():
            own = folder / fault
            text = (own / "out.txt").read_text()
            answer = json.loads(text) if text.strip() else {}
            said = (own / "err.txt").read_text()
            found[fault] = Ended(code, answer, said, seconds, running[fault][1], own / "out")
        yield found


def test_every_fault_has_its_case() -> None:
    assert set(CASES) == set(FAULTS)


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_ends_in_a_clear_error_in_time_on_a_clean_phone(fault: str, ended: dict[str, Ended]) -> None:
    found = ended[fault]
    assert found.code == 1 and found.seconds < LONGEST, (found.code, found.seconds, found.said)
    assert found.answer["exit_code"] == 1 and re.search(CASES[fault][1], found.answer["error"]), found.answer
    assert "Traceback" not in found.said and found.phone.due is None
    assert not (found.output / "bench.json").exists()
    if fault != "die":
        assert found.phone.left() == []
        return
    # Nobody can tidy up a phone that is gone; the command names what lies there.
    (left,) = [name for name in found.phone.left() if "/" in name]
    assert f"{left} stays on {found.phone.serial}" in found.said


@pytest.mark.parametrize("fault", ["die", "stall", "corrupt"])
def test_the_phone_works_again_afterwards_and_clean_takes_everything_off_it(
    fault: str, ended: dict[str, Ended], adb: AdbServer
) -> None:
    phone, folder = ended[fault].phone, ended[fault].output.parent
    phone._away_until = 0.0
    with contextlib.suppress(AssertionError):
        wait_until_ready(adb, phone.serial)
    adb.connect(phone.serial)
    wait_until_ready(adb, phone.serial)
    done = call(*line(phone.serial, adb, folder))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["left_behind"] is None and (folder / "out/bench.json").exists()
    stay = {path.parent.parent.name for path in phone.data.rglob(MODEL)}
    assert stay == {"objects"}  # the next session need not push it again
    done = call("devices", "clean", phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["bytes"] > 0, done.output
    assert list(phone.data.iterdir()) == []


def test_little_space_is_seen_before_anything_is_pushed(phone: Phone, adb: AdbServer, tmp_path: Path) -> None:
    furnish(tmp_path)
    phone.free_kb = 20_000
    done = call(*line(phone.serial, adb, tmp_path))
    answer = json.loads(done.stdout)
    assert done.exit_code == 1 and "too little space" in answer["error"] and "20 MB free" in answer["got"]
    assert answer["next"].endswith(f"pocketgan devices clean {phone.serial}")
    assert not [path for path in phone.data.rglob("*") if path.is_file()]


def test_a_phone_that_stays_hot_is_waited_for_within_the_sessions_time_and_marked(
    phone: Phone, adb: AdbServer, tmp_path: Path
) -> None:
    furnish(tmp_path)
    phone.heat = [(3, 52.5)]
    words, began = line(phone.serial, adb, tmp_path), time.monotonic()
    done = call(*words, "--max-seconds", "3")
    assert done.exit_code == 0 and time.monotonic() - began < 30, done.output
    document = json.loads(done.stdout)
    assert document["heat_by_round"] and not any(heat["cooled"] for heat in document["heat_by_round"])
    assert 0 < sum(heat["seconds"] for heat in document["heat_by_round"]) <= 3 and phone.left() == []
    words.remove("--json")
    done = call(*words, "--max-seconds", "1", "--force")
    assert done.exit_code == 0 and "THROTTLED by heat" in done.stdout, done.output
