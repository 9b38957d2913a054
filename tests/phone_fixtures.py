"""Fixtures: an adb server of the tests' own, and a simulated phone on it (see tests/phone.py)."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from phone import Phone
from tiny import SIZE, write_generator, write_pictures

from compressor.errors import PocketganError
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.runner.bundle import WHEELS, Bundle, glibc, prepare


def adb_programs() -> list[str]:
    """The adb programs here: Debian's on PATH, and the one that adbutils brings along."""
    found = [shutil.which("adb")]
    with contextlib.suppress(ImportError):
        import adbutils

        found.append(str(Path(adbutils.__file__).parent / "binaries/adb"))
    return [path for path in found if path and Path(path).is_file()]


@contextlib.contextmanager
def running_adb(program: str | None, home: Path) -> Iterator[AdbServer]:
    """A server on a port of its own, so that a developer's own phones are left alone."""
    if program is None:
        pytest.skip("no adb here: apt-get install adb, or pip install adbutils")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = AdbServer(port=port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADBUTILS_ADB_PATH", program)
        patch.setenv("HOME", str(home))  # its keys
        patch.setenv("ADB_MDNS", "0")
        server.states()  # starts it
    try:
        yield server
    finally:
        subprocess.run([program, "-P", str(port), "kill-server"], timeout=20, check=False)


def wait_until_ready(adb: AdbServer, serial: str) -> None:
    for _ in range(250):
        if adb.states().get(serial) == "device":
            return
        time.sleep(0.02)
    raise AssertionError(f"{serial} did not come up: {adb.states()}")


@pytest.fixture(scope="session")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    with running_adb(next(iter(adb_programs()), None), tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def phone(adb: AdbServer, tmp_path: Path) -> Iterator[Phone]:
    with Phone(tmp_path / "phone") as phone:
        adb.connect(phone.serial)
        wait_until_ready(adb, phone.serial)
        yield phone
        adb.disconnect(phone.serial)


@pytest.fixture
def device(phone: Phone, adb: AdbServer) -> AdbTransport:
    return AdbTransport(phone.serial, adb)


@pytest.fixture(scope="session")
def gathered() -> dict[str, Bundle]:
    """Both runtimes' bundles, from the user's cache."""
    pytest.importorskip("ziglang", reason="builds the runner: pip install ziglang")
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("no arm64 emulator: apt-get install qemu-user-static")
    try:
        glibc()
    except PocketganError as error:
        pytest.skip(str(error))
    return {runtime: prepare(runtime) for runtime in WHEELS}


@pytest.fixture(scope="session")
def six_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real export of a small CycleGAN generator: three precisions in both formats."""
    from compressor.generators import load
    from exporters.export import export

    folder = tmp_path_factory.mktemp("six")
    write_generator(folder / "tiny.pth")
    write_pictures(folder / "pictures", 2)
    none = {"fp32": 0.0, "fp16": 0.0, "int8": 0.0}  # random weights: only the phone's equality counts here
    images = sorted((folder / "pictures").iterdir())
    export(
        load(folder / "tiny.pth"),
        images,
        folder / "out",
        size=(SIZE, SIZE),
        calibration=2,
        thresholds=none,
        processes=0,
    )
    return folder / "out"
