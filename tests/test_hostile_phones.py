"""A hostile model name, serial, getprop value and benchmark output: no harm on phone, host or page.

All four at once through `pocketgan bench`, the files for CI, the report and the history. Whatever ran of them
would leave a file named pwned, or an element on a page that is not ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from phone import Phone
from report_page import Text, edit
from test_benchmark_model import CLASSIC
from test_on_phone_by_tool import SELF_TEST, program

from devices.adb_server import AdbServer
from devices.phone import list_phones
from pocketgan.cli import main

SHELL = "$(touch pwned)`touch pwned`;touch pwned|touch pwned&'\"\n"
TAG = "<svg onload=alert`1`><img src=x onerror=alert`1`>"
EVIL = f"{TAG}{SHELL}{TAG}"
FLAGS = ("junit", "markdown", "csv", "github-benchmark", "bencher")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def unharmed(phone: Phone, host: Path) -> bool:
    """Whether nothing of EVIL ran on the phone or here."""
    return not [*phone.folder.rglob("pwned"), *host.rglob("pwned")]


def harmless(page: Path) -> Text:
    """A page on which EVIL is text, and nothing else."""
    found = Text(page)
    assert not [key for _, attributes in found.elements for key in attributes if key.startswith("on")]
    assert not [tag for tag, attributes in found.elements if tag == "img" and attributes.get("src") == "x"]
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, so that a command that ran by mistake would leave its trace there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hostile_names_properties_and_output_are_text_everywhere(
    phone: Phone, adb: AdbServer, place: Path
) -> None:
    for name in ("product.manufacturer", "product.model", "soc.model", "build.version.release"):
        phone.properties[f"ro.{name}"] = EVIL
    phone.properties["ro.build.fingerprint"] = EVIL
    (place / "exports").mkdir()
    name = f"{EVIL}-fp32.tflite"
    (place / "exports" / name).write_bytes(SELF_TEST.read_bytes())
    says = f"\x1b[2J{EVIL}\nReplacing 33 out of 33 node(s) with delegate ({TAG}`touch pwned`) node\n{CLASSIC}"
    tool = program(place, "use_xnnpack", ("*", says, 0))
    where = ["--serial", phone.serial, "--adb-server", f"{adb.host}:{adb.port}", "--rounds", 5]
    google = ["--runner", "benchmark_model", "--benchmark-model", tool]
    files = [word for flag in FLAGS for word in (f"--{flag}", place / f"ci.{flag}")]
    done = call("bench", place / "exports", *where, *google, "--output-dir", place / "out", *files)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output and "33 of 33 nodes on <svg" in done.stdout
    document = json.loads((place / "out/bench.json").read_text())
    assert document["series"][0]["file"] == name and document["device"]["model"].startswith(TAG)
    edit(place / "out/bench.json", lambda d: d["device"].update(serial=EVIL))  # adb takes no such serial
    done = call("report", place / "out")
    assert done.exit_code == 0 and "\x1b" not in done.output
    assert "<svg onload=alert`1`>" in harmless(place / "out/report.html").text
    done = call("report", place / "out", "--history")
    assert done.exit_code == 0, done.output
    assert "touch pwned" in harmless(place / "out/history.html").text
    done = call("compare", place / "out", place / "out", "--threshold", "50%", "--json", *files)
    assert done.exit_code in (0, 3) and json.loads(done.stdout)["rows"]
    assert unharmed(phone, place) and phone.left() == []


def test_hostile_properties_are_text_in_the_list_and_the_preflight(
    phone: Phone, adb: AdbServer, place: Path
) -> None:
    phone.properties["ro.product.model"] = f"\x1b[2J{EVIL}"
    phone.properties["ro.product.cpu.abi"] = EVIL
    where = ["--adb-server", f"{adb.host}:{adb.port}"]
    done = call("devices", *where)
    assert done.exit_code == 0 and "<svg" in done.stdout and "\x1b" not in done.output
    assert len([line for line in done.stdout.splitlines() if phone.serial in line]) == 1
    (listed,) = [item for item in list_phones(adb) if item.serial == phone.serial]
    assert listed.facts is not None and listed.facts.model.isprintable()
    assert unharmed(phone, place)


@pytest.mark.parametrize(
    "serial", ["$(touch${IFS}pwned)", "`touch\tpwned`", "a\nhost:kill", TAG, "-e", "x;reboot"]
)
def test_a_hostile_serial_names_no_phone_and_runs_nothing(
    serial: str, phone: Phone, adb: AdbServer, place: Path
) -> None:
    (place / "exports").mkdir()
    (place / "exports/model.tflite").write_bytes(SELF_TEST.read_bytes())
    where = [f"--adb-server={adb.host}:{adb.port}", "--json"]
    for words in (
        ["bench", "exports", f"--serial={serial}", f"--junit={place / 'junit.xml'}"],
        ["devices", "doctor", "--", serial],
        ["devices", "clean", "--", serial],
    ):
        line = [*words[:2], *where, *words[2:]]
        done = subprocess.run(
            [sys.executable, "-m", "pocketgan", *line],
            capture_output=True, text=True, cwd=place, timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        )  # fmt: skip
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, (line, done.stderr)
        assert json.loads(done.stdout)["exit_code"] == done.returncode
    assert unharmed(phone, place) and not [line for line in phone.log if "reboot" in line]
    assert adb.states()[phone.serial] == "device"  # and the server was not told anything else
