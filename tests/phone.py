"""A simulated phone: adbd's wire protocol on loopback, real commands in a scratch folder.

The real adb connects to it (`adb connect 127.0.0.1:PORT`). /data/local/tmp, /sys/devices/system/cpu
and /proc/self/status are folders of the scratch; getprop, dumpsys, df, timeout and taskset answer as a
phone's would. Programs for arm64 run under qemu-aarch64-static. Set `phone.fault` to have it misbehave.
The wire protocol is tests/adbd.py.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

from adbd import Connection
from phone_facts import BATTERY, FACTS, THERMAL

FAULTS = {
    "die": "hangs up in the middle of a command, and stays away",
    "reboot": "hangs up in the middle of a command, and is away for a second",
    "zero": "ends a command early, as if it had succeeded",
    "stall": "takes a command and never answers",
    "stall-sync": "never answers about a file",
    "garbage": "prints rubbish instead of running a command",
    "flood": "prints without end",
    "full": "has no space left when a push arrives",
    "corrupt": "flips bytes of a file that is pushed",
    "unauthorized": "accepts no key",
}
_MAPPED = ("/data/local/tmp", "/sys/devices/system/cpu", "/sys/class/thermal")


class Phone:
    """One simulated phone, a context manager.

    Attributes:
        serial: what adb calls it.
        folder: its scratch; `data` is its /data/local/tmp.
        fault: None, or one of FAULTS, from now on.
        due: (text, fault): that fault once, at the next command or file's path that holds the text.
        free_kb: what df says.
        heat: (status, degrees) answers of the thermal service in turn; the last one stays.
        log: the commands it was asked to run.
    """

    def __init__(self, folder: Path, soc: str = "SM8650", *, fault: str | None = None):
        self.folder, self.fault, self.free_kb = folder, fault, 40_000_000
        self.due: tuple[str, str] | None = None
        self.heat: list[tuple[int, float]] = [(0, 31.0)]
        self.log: list[str] = []
        self.properties = dict(FACTS[soc].properties)
        self.data = folder / "data/local/tmp"
        self._away_until = 0.0
        self._open: set[Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._furnish(soc)

    def __enter__(self) -> Phone:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            connection.hang_up()

    def reboot(self, seconds: float = 1.0) -> None:
        """Hang up on everybody and stay away for a while."""
        self._away_until = time.monotonic() + seconds
        for connection in list(self._open):
            connection.hang_up()

    def meets(self, text: str) -> str | None:
        """The fault that a command or a file's path meets."""
        if self.due and self.due[0] in text:
            (_, fault), self.due = self.due, None
            return fault
        return self.fault

    def left(self) -> list[str]:
        """What lies on the phone besides the store of pushed files."""
        return sorted(
            str(path.relative_to(self.data))
            for path in self.data.rglob("*")
            if (path.is_file() and "objects" not in path.parts) or path.name.startswith("session-")
        )

    def real(self, text: str) -> str:
        """A command or path with the phone's folders replaced by the scratch's."""
        for prefix in _MAPPED:
            text = re.sub(rf"(?<![\w/.]){re.escape(prefix)}(?![\w])", str(self.folder) + prefix, text)
        return text

    def refresh(self, command: str) -> None:
        """Write what the stand-ins for getprop, dumpsys and df print next."""
        state = self.folder / "state"
        lines = "".join(f"[{key}]: [{value}]\n" for key, value in self.properties.items())
        (state / "properties").write_text(lines)
        status, degrees = self.heat[0]
        if "thermalservice" in command and len(self.heat) > 1:
            status, degrees = self.heat.pop(0)
        (state / "thermalservice").write_text(THERMAL.format(status=status, ap=degrees, skin=degrees - 2))
        (state / "battery").write_text(BATTERY.format(tenths=int(degrees * 10) - 30))
        (state / "power").write_text("mWakefulness=Awake\n")
        (state / "df").write_text(
            "Filesystem       1K-blocks     Used Available Use% Mounted on\n"
            f"/dev/block/dm-42 112640000 65000000 {self.free_kb} 58% /data/user/0\n"
        )

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": "/", "LC_ALL": "C"}

    def _furnish(self, soc: str) -> None:
        self.data.mkdir(parents=True)
        (self.folder / "state").mkdir()
        programs = self.folder / "bin"
        programs.mkdir()
        state = self.folder / "state"
        run = f"""case "$(head -c 20 "$1" 2>/dev/null | tail -c 2 | od -An -tx1)" in
*"b7 00"*) exec qemu-aarch64-static -cpu cortex-a76 -L {self.folder}/arm64 "$@" ;;
*) exec "$@" ;;
esac"""
        for name, body in {
            "getprop": f"cat {state}/properties",
            "dumpsys": f'cat "{state}/$1" 2>/dev/null || echo "Can\'t find service: $1"',
            "df": f"cat {state}/df",
            "run-arm64": run,
            "timeout": f'exec /usr/bin/timeout "$1" "$2" "$3" {programs}/run-arm64 "${{@:4}}"',
            "taskset": f'echo "$1" > {state}/affinity; shift; exec {programs}/run-arm64 "$@"',
        }.items():
            path = programs / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)
        write_cpus(self.folder / "sys/devices/system/cpu", soc)
        # Where qemu looks first: the two runtimes' cpuinfo library fails on this machine's own folder.
        (self.folder / "arm64/sys/devices/system").mkdir(parents=True)
        (self.folder / "arm64/sys/devices/system/cpu").symlink_to(self.folder / "sys/devices/system/cpu")

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._away_until:
                peer.close()
                continue
            connection = Connection(self, peer)
            self._open.add(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)


def write_cpus(folder: Path, soc: str) -> None:
    """A phone's /sys/devices/system/cpu, as cpuinfo and we read it."""
    clusters = FACTS[soc].clusters
    count = sum(len(cores) for cores, _, _ in clusters)
    folder.mkdir(parents=True)
    for name in ("possible", "present", "online"):
        (folder / name).write_text(f"0-{count - 1}\n")
    (folder / "kernel_max").write_text("7\n")
    for cores, low, high in clusters:
        for core in cores:
            frequencies, topology = folder / f"cpu{core}/cpufreq", folder / f"cpu{core}/topology"
            for path, values in (
                (
                    frequencies,
                    {
                        "cpuinfo_min_freq": low,
                        "cpuinfo_max_freq": high,
                        "scaling_governor": "walt" if soc.startswith("SM") else "sugov_ext",
                        "related_cpus": " ".join(map(str, cores)),
                    },
                ),
                (
                    topology,
                    {
                        "physical_package_id": 0,
                        "core_id": core,
                        "core_siblings_list": f"0-{count - 1}",
                        "cluster_cpus_list": ",".join(map(str, cores)),
                    },
                ),
            ):
                path.mkdir(parents=True)
                for name, value in values.items():
                    (path / name).write_text(f"{value}\n")
            (frequencies / "stats").mkdir()
            (frequencies / "stats/time_in_state").write_text(f"{low} 1000\n{high} 200\n")
