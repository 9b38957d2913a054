"""Transports against a simulated phone, through the real adb: what works, and how each fault ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phone import Phone
from phone_fixtures import adb_programs, running_adb

from compressor.errors import PocketganError, UsageError
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.local import LocalTransport
from devices.quoting import command_line, plain_name
from devices.transport import (
    DeviceError,
    DeviceLost,
    DeviceTimeout,
    Workspace,
    checked,
    purge,
    retrying,
)

PROGRAMS = adb_programs()
HOSTILE = ["$(touch pwned)", "`id`", "a;b", "a'b\"c", "new\nline", "-rf", "*", "ünïcode", "\\", "a b", "<b>&"]


BOTH = pytest.mark.parametrize(
    "adb", PROGRAMS or [None], ids=["first", "second"][: len(PROGRAMS) or 1], indirect=True
)


@pytest.fixture(scope="module")
def adb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    """One adb program, or each in turn: 29 and 36 differ in what a lost phone looks like."""
    program = getattr(request, "param", PROGRAMS[0] if PROGRAMS else None)
    with running_adb(program, tmp_path_factory.mktemp("home")) as server:
        yield server


@BOTH
def test_shell_carries_code_and_both_streams(device: AdbTransport) -> None:
    done = device.shell(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.code, done.text, done.stderr) == (7, "out\n", b"err\n")
    assert device.shell(["printf", "no newline"]).text == "no newline"
    assert device.shell(["no-such-program"]).code == 127
    assert device.shell(["pwd"], cwd="/data/local/tmp").text.strip().endswith("/data/local/tmp")
    assert device.shell(["sh", "-c", "echo $COLOUR"], environment={"COLOUR": "a 'b'"}).text == "a 'b'\n"


def test_large_output_arrives_whole(device: AdbTransport) -> None:
    done = device.shell(["sh", "-c", "seq 1 200000; echo done >&2"])
    assert done.text.split() == [str(number) for number in range(1, 200001)]


def test_hostile_words_stand_for_themselves(phone: Phone, device: AdbTransport) -> None:
    assert device.shell(["printf", "%s|", *HOSTILE]).text == "".join(f"{word}|" for word in HOSTILE)
    assert not list(phone.folder.rglob("pwned"))
    with pytest.raises(UsageError):
        device.shell(["echo", "a\0b"])
    with pytest.raises(UsageError):
        AdbTransport("a b;reboot", device.server)
    with pytest.raises(UsageError):
        command_line(["x"], {"A;B": "1"})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1))
def test_quoting_survives_a_real_shell(words: list[str]) -> None:
    line = command_line(["printf", "%s\\0", *words])
    output = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True).stdout
    assert output.decode().split("\0")[:-1] == words


@given(st.text())
def test_plain_names_are_plain(name: str) -> None:
    cleaned = plain_name(name)
    assert cleaned and all(letter.isascii() and (letter.isalnum() or letter in "._+-") for letter in cleaned)
    assert not cleaned.startswith(("-", "."))


@BOTH
def test_push_skips_what_is_there_and_pull_brings_it_back(
    phone: Phone, device: AdbTransport, tmp_path: Path
) -> None:
    source = tmp_path / "model $(touch pwned) ;'.bin"
    source.write_bytes(os.urandom(700_001))
    said: list[str] = []
    with Workspace(device, progress=said.append) as work:
        remote = work.push(source)
        assert (phone.folder / remote.lstrip("/")).read_bytes() == source.read_bytes()
        assert work.push(source) == remote and len(said) == 1
        device.shell(["cp", remote, f"{work.folder}/out.bin"])
        work.pull("out.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    with Workspace(device, progress=said.append) as work:  # another session finds it
        assert work.push(source) == remote and len(said) == 1
    assert phone.left() == [] and work.left_behind is None
    assert not list(phone.folder.rglob("pwned"))


def test_a_push_that_takes_long_says_how_far_it_has_come(
    device: AdbTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.transport._TELL", 0.0)
    (tmp_path / "model.onnx").write_bytes(os.urandom(4 * (64 << 10)))  # four pieces
    said: list[str] = []
    with Workspace(device, progress=said.append) as work:
        work.push(tmp_path / "model.onnx")
    assert said[0].startswith("push model.onnx (0.3 MB) to ")
    assert said[1:] == [f"push model.onnx: {share}%" for share in (25, 50, 75)]


def test_purge_leaves_nothing(phone: Phone, device: AdbTransport, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with Workspace(device) as work:
        work.push(tmp_path / "file")
    assert purge(device) > 0 and list(phone.data.iterdir()) == []
    assert purge(device) == 0


def test_pull_of_a_missing_file_leaves_nothing(device: AdbTransport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="there is no file"):
        device.get("/data/local/tmp/nothing", tmp_path / "nothing", timeout=5)
    assert list(tmp_path.glob("*nothing*")) == []


def test_the_session_folder_goes_also_after_failure(phone: Phone, device: AdbTransport) -> None:
    with pytest.raises(RuntimeError, match="ours"), Workspace(device) as work:
        device.shell(["touch", f"{work.folder}/half"])
        raise RuntimeError("ours")
    assert phone.left() == []


def test_what_a_dead_session_left_goes_with_a_later_one(phone: Phone, device: AdbTransport) -> None:
    with Workspace(device):
        root = phone.data / "pocketgan"
        for name, hours in (("session-old", 13), ("session-new", 11), ("objects", 99), ("other", 99)):
            (root / name).mkdir(exist_ok=True)
            os.utime(root / name, (time.time() - 3600 * hours,) * 2)
    with Workspace(device):
        assert not (root / "session-old").exists()
        assert all((root / name).exists() for name in ("session-new", "objects", "other"))


def fails_cleanly(phone: Phone, kind: type[DeviceError], within: float, act) -> DeviceError:
    """`act` ends in an error of this kind in time, with a message, and leaves a clean phone."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        act()
    assert time.monotonic() - began < within
    assert isinstance(caught.value, PocketganError) and len(str(caught.value)) > 20
    assert phone.left() == []
    return caught.value


def session(device: AdbTransport, act) -> None:
    with Workspace(device) as work:
        act(work)


@BOTH
@pytest.mark.parametrize("fault", ["die", "zero", "reboot"])
def test_a_command_cut_short_is_never_a_success(phone: Phone, device: AdbTransport, fault: str) -> None:
    def act(work: Workspace) -> None:
        phone.fault = fault
        try:
            device.shell(["sleep", "5"])
        finally:
            phone._away_until = min(phone._away_until, time.monotonic() + 0.5)

    error = fails_cleanly(phone, DeviceLost, 15, lambda: session(device, act))
    assert error.fix
    assert device.shell(["echo", "back"]).text == "back\n"


def test_repeatable_calls_outlive_a_reboot(phone: Phone, device: AdbTransport) -> None:
    phone.fault = "reboot"
    assert retrying(device, lambda: checked(device, ["echo", "hello"]), attempts=5).text == "hello\n"


@BOTH
def test_a_phone_that_stays_away(phone: Phone, device: AdbTransport) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError), Workspace(device) as work:
        phone.fault = "die"
        try:
            device.shell(["sleep", "5"])
        finally:
            phone.__exit__()
    assert time.monotonic() - began < 30
    assert work.left_behind and work.folder in work.left_behind


def test_a_program_that_hangs_is_stopped_on_the_phone(phone: Phone, device: AdbTransport) -> None:
    error = fails_cleanly(
        phone,
        DeviceTimeout,
        10,
        lambda: session(device, lambda work: device.shell(["sleep", "97"], timeout=1)),
    )
    assert "1 s" in str(error)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 97" not in running


@pytest.mark.parametrize("fault", ["stall", "stall-sync"])
def test_a_phone_that_stalls(
    phone: Phone, device: AdbTransport, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.adb._GRACE", 1.0)
    (tmp_path / "file").write_bytes(b"x" * 1000)

    def act(work: Workspace) -> None:
        phone.fault = fault
        try:
            if fault == "stall":
                device.shell(["true"], timeout=1)
            else:
                device.put(tmp_path / "file", f"{work.folder}/x", timeout=1)
        finally:
            phone.fault = None

    fails_cleanly(phone, DeviceTimeout, 8, lambda: session(device, act))


@BOTH
def test_a_full_disk(phone: Phone, device: AdbTransport, tmp_path: Path) -> None:
    big = tmp_path / "model.onnx"
    big.write_bytes(os.urandom(3 << 20))
    phone.free_kb = 2000
    error = fails_cleanly(phone, DeviceError, 10, lambda: session(device, lambda work: work.push(big)))
    assert "too little space" in str(error)
    phone.free_kb, phone.fault = 4_000_000, "full"
    error = fails_cleanly(phone, DeviceError, 10, lambda: session(device, lambda work: work.push(big)))
    assert "disk is full" in str(error)


def test_a_file_that_changed_on_the_way(phone: Phone, device: AdbTransport, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(os.urandom(100_000))
    phone.fault = "corrupt"
    error = fails_cleanly(
        phone, DeviceError, 10, lambda: session(device, lambda work: work.push(tmp_path / "model.onnx"))
    )
    assert "did not arrive whole" in str(error)


@pytest.mark.parametrize("fault", ["garbage", "flood"])
def test_output_that_is_none(
    phone: Phone, device: AdbTransport, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.adb._LARGEST_OUTPUT", 1 << 20)

    def act(work: Workspace) -> None:
        phone.fault = fault
        try:
            device.shell(["echo", "x"])
        finally:
            phone.fault = None

    fails_cleanly(phone, DeviceError, 10, lambda: session(device, act))


@BOTH
def test_an_unauthorised_phone(adb: AdbServer, tmp_path: Path) -> None:
    with Phone(tmp_path / "phone", fault="unauthorized") as phone:
        with pytest.raises(DeviceError):
            adb.connect(phone.serial)
        with pytest.raises(DeviceError, match=r"authoris|no phone"):
            AdbTransport(phone.serial, adb).shell(["true"])
        adb.disconnect(phone.serial)


def test_a_phone_that_is_not_there(adb: AdbServer) -> None:
    with pytest.raises(DeviceLost, match="no phone R5CT"):
        AdbTransport("R5CT", adb).shell(["true"])
    with pytest.raises(DeviceError, match="cannot connect"):
        adb.connect("127.0.0.1:1")


def test_a_remote_server_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="no adb server answers"):
        AdbServer("127.0.0.2", 1).states()


def test_the_local_transport_answers_alike(tmp_path: Path) -> None:
    device = LocalTransport()
    root = Path(device.root)
    (tmp_path / "file").write_bytes(os.urandom(1000))
    with Workspace(device) as work:
        remote = work.push(tmp_path / "file")
        assert device.size(remote) == 1000
        assert device.shell(["printf", "%s|", *HOSTILE]).text == "".join(f"{word}|" for word in HOSTILE)
        assert device.shell(["no-such-program"]).code == 127
        with pytest.raises(DeviceTimeout):
            device.shell(["sleep", "30"], timeout=0.3)
        with pytest.raises(DeviceError):
            work.pull("nothing", tmp_path / "nothing")
    assert not root.exists()
