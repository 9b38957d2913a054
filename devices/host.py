"""Facts about the machine that this process runs on, as far as the system tells them."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class HostFacts:
    """One machine, as a measurement must name it.

    Attributes:
        cpu: the processor's model name, or its architecture where the system does not tell.
        architecture: e.g. x86_64 or aarch64.
        cores: physical cores, or None.
        logical_cores: hardware threads.
        usable_cores: those this process may run on (affinity mask and container quota), at least 1.
        governor: frequency governor of the first core, or None where there is none (virtual machines).
        memory_mb: main memory in MiB.
        virtual: the hypervisor's mark is set; other guests may disturb the timings.
        system: e.g. Debian GNU/Linux 12 (bookworm).
        kernel: e.g. Linux 6.1.0.
        python: the interpreter's version.
    """

    cpu: str
    architecture: str
    cores: int | None
    logical_cores: int
    usable_cores: int
    governor: str | None
    memory_mb: int
    virtual: bool | None
    system: str
    kernel: str
    python: str

    def as_json(self) -> dict[str, object]:
        """The facts as one JSON object."""
        return asdict(self)


def facts() -> HostFacts:
    """Read the machine's facts; nothing is measured and nothing needs rights."""
    import psutil

    model, virtual = _processor()
    return HostFacts(
        cpu=model,
        architecture=platform.machine(),
        cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count() or 1,
        usable_cores=usable_cores(),
        governor=_first_line(_CPUS / "cpu0" / "cpufreq" / "scaling_governor"),
        memory_mb=psutil.virtual_memory().total >> 20,
        virtual=virtual,
        system=_system(),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def usable_cores() -> int:
    """Cores this process may keep busy: the affinity mask, cut to a cgroup quota (rounded up)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = (_first_line(Path("/sys/fs/cgroup/cpu.max")) or "max").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(1, count)


def _processor() -> tuple[str, bool | None]:
    """(model name, whether the hypervisor flag is set) from /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), None
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    name = values.get("model name") or values.get("hardware") or platform.machine()
    flags = values.get("flags")
    return " ".join(name.split()), None if flags is None else "hypervisor" in flags.split()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None
