"""The adb server: which phones it sees, in what state, and streams to their services.

adbutils makes the connections. It would start a server of its own where none answers, on this machine
and the usual port whatever was asked for, so that is looked after here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from devices.transport import DeviceError, DeviceLost, DeviceTimeout

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection


class AdbServer:
    """One adb server; a farm's host serves its phones through one.

    Args:
        host, port: default ANDROID_ADB_SERVER_HOST and _PORT, else 127.0.0.1:5037. On this machine
            the server is started where none runs; a remote one is not.
    """

    def __init__(self, host: str | None = None, port: int | None = None):
        self.host = host or os.environ.get("ANDROID_ADB_SERVER_HOST") or "127.0.0.1"
        try:
            self.port = port or int(os.environ.get("ANDROID_ADB_SERVER_PORT") or 5037)
        except ValueError as error:
            raise UsageError(
                "ANDROID_ADB_SERVER_PORT is no port", got=os.environ["ANDROID_ADB_SERVER_PORT"]
            ) from error
        self._client: AdbClient | None = None

    def states(self) -> dict[str, str]:
        """What adb says of each device it sees: serial -> "device", "unauthorized", "offline", ...

        Raises:
            DeviceError: there is no adb server, and none can be started.
        """
        listing = self.ask("host:devices")
        rows = (line.split("\t", 1) for line in listing.splitlines())
        return {row[0]: row[1].strip() for row in rows if len(row) == 2}

    def connect(self, address: str, *, timeout: float = 15.0) -> None:
        """`adb connect`: a phone on the network, as HOST or HOST:PORT."""
        answer = self.ask(f"host:connect:{address}", timeout)
        if "connected to" not in answer:
            raise DeviceError(
                f"adb cannot connect to {address}",
                got=answer.strip()[:300],
                fix="switch on wireless debugging on the phone, and check the address and the network",
            )

    def disconnect(self, address: str) -> None:
        """Forget a phone on the network; one that is not there is no error."""
        with contextlib.suppress(DeviceError):
            self.ask(f"host:disconnect:{address}")

    def ask(self, request: str, timeout: float = 10.0) -> str:
        """One request to the server itself, and its answer."""
        with translated("the adb server"), self._client_checked().make_connection(timeout) as connection:
            connection.send_command(request)
            connection.check_okay()
            return connection.read_string_block()

    def stream(self, serial: str, service: str, timeout: float) -> AdbConnection:
        """A connection to one service of one device."""
        connection = self._client_checked().make_connection(timeout)
        try:
            connection.send_command(f"host:transport:{serial}")
            connection.check_okay()
            connection.send_command(service)
            connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection

    def _client_checked(self) -> AdbClient:
        """adbutils would start a server of its own on this machine, on another port, so look first."""
        from adbutils import AdbClient

        if self._client is None or not self._answers():
            if not self._answers():
                self._start()
            self._client = AdbClient(self.host, self.port)
        return self._client

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=3).close()
        except OSError:
            return False
        return True

    def _start(self) -> None:
        where = f"{self.host}:{self.port}"
        if self.host not in ("127.0.0.1", "localhost", "::1"):
            raise DeviceError(
                f"no adb server answers at {where}", fix="start it there: adb -a nodaemon server start"
            )
        from adbutils import adb_path

        try:
            command = [adb_path(), "-P", str(self.port), "start-server"]
            subprocess.run(command, timeout=20, check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            raise DeviceError(
                f"no adb server answers at {where}, and none could be started",
                got=str(error).splitlines()[0][:300],
                fix="install adb: apt-get install adb, or pip install adbutils",
            ) from error


def server_at(address: str | None) -> AdbServer:
    """The adb server at HOST or HOST:PORT, or the usual one.

    Raises:
        UsageError: the address is none.
    """
    if address is None:
        return AdbServer()
    host, _, port = address.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        raise UsageError("this is no adb server", got=repr(address), allowed="HOST or HOST:PORT")
    return AdbServer(host, int(port) if port else None)


STATES: Mapping[str, tuple[str, str | None]] = {
    "device": ("ready", None),
    "unauthorized": ("not authorised", "unlock the phone, and accept this computer's key on its screen"),
    "authorizing": ("waiting for authorisation", "unlock the phone, and accept this computer's key"),
    "offline": ("offline", "unplug the cable and plug it in again, or restart the phone"),
    "no permissions": (
        "no permission on USB",
        "install the udev rules: apt-get install android-sdk-platform-tools-common",
    ),
    "recovery": ("in recovery mode", "restart the phone: adb reboot"),
    "sideload": ("in sideload mode", "restart the phone: adb reboot"),
    "bootloader": ("in its bootloader", "restart the phone: fastboot reboot"),
    "connecting": ("connecting", "wait a moment"),
    "disconnect": ("gone", "check the cable"),
}
"""adb's words for a device's state -> ours, and what to do about it."""


def describe_state(word: str) -> tuple[str, str | None]:
    """adb's word for a state -> (plain words, what to do or None)."""
    for known, meaning in STATES.items():
        if word.startswith(known):
            return meaning
    return word[:60], "restart the phone, and: adb kill-server"


@contextlib.contextmanager
def translated(who: str) -> Iterator[None]:
    """adb's errors, cut connections and expired sockets as our own."""
    from adbutils.errors import AdbError, AdbTimeout

    try:
        yield
    except (AdbTimeout, TimeoutError) as error:
        raise DeviceTimeout(
            f"{who} does not answer", fix="look at the phone; restart it if it hangs"
        ) from error
    except AdbError as error:
        raise _explained(who, str(error)) from error
    except (EOFError, OSError, struct.error, ValueError) as error:
        raise DeviceLost(
            f"the connection to {who} broke",
            got=str(error)[:300] or None,
            fix="check the cable, and try again",
        ) from error


def _explained(who: str, said: str) -> DeviceError:
    word = said.removeprefix("device ").strip()
    if "not found" in said:
        return DeviceLost(f"adb sees no phone {who}", fix="list those it sees: pocketgan devices")
    for state in ("unauthorized", "authorizing", "offline", "no permissions"):
        if state in word:
            meaning, mend = STATES[state]
            kind = DeviceLost if state == "offline" else DeviceError
            return kind(f"{who} is {meaning}", got=said[:300], fix=mend)
    return DeviceLost(f"adb gave up on {who}", got=said[:300], fix="try again; if it stays: adb kill-server")
