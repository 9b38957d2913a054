"""What a phone is: facts read from it, each with the command that tells it. Nothing here needs root."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from devices import soc
from devices.adb import AdbTransport
from devices.adb_server import AdbServer, describe_state
from devices.heat import Heat, read_heat
from devices.transport import DeviceError, Transport, checked

_LONGEST = 128  # characters of a property that we keep
_CPU = "/sys/devices/system/cpu"
_CPU_FILES = ("cpuinfo_min_freq", "cpuinfo_max_freq", "scaling_governor", "related_cpus")


@dataclass(frozen=True)
class Cluster:
    """Cores that share one clock.

    Attributes:
        cores: their numbers.
        lowest_khz, highest_khz: the clock's limits.
        governor: who chooses the clock, or None.
    """

    cores: tuple[int, ...]
    lowest_khz: int
    highest_khz: int
    governor: str | None

    @property
    def mask(self) -> int:
        """The bit mask that `taskset` takes."""
        return sum(1 << core for core in self.cores)


@dataclass(frozen=True)
class PhoneFacts:
    """One phone, as a measurement must name it; unknown texts are empty.

    Attributes:
        serial: as adb names it.
        maker, model: of the phone. soc: the chip's part number. chip: its name as people know it.
        android, sdk: the system's version and API level. fingerprint: of its build.
        abi: what it runs first, "arm64-v8a".
        clusters: slowest first; empty where the kernel does not tell.
        screen_on: None where unknown.
        heat: at the time of reading.
        emulator: Android says that it is one.
    """

    serial: str
    maker: str
    model: str
    soc: str | None
    chip: str
    android: str
    sdk: int | None
    fingerprint: str
    abi: str
    clusters: tuple[Cluster, ...]
    screen_on: bool | None
    heat: Heat
    emulator: bool

    @property
    def cores(self) -> str:
        """ "2x2.27 + 3x3.15 + 2x2.96 + 1x3.30 GHz"."""
        parts = [f"{len(cluster.cores)}x{cluster.highest_khz / 1e6:.2f}" for cluster in self.clusters]
        return f"{' + '.join(parts)} GHz" if parts else "unknown"

    def as_json(self) -> dict[str, Any]:
        """The facts as one JSON object."""
        return {**asdict(self), "heat": self.heat.as_json(), "cores": self.cores}


@dataclass(frozen=True)
class Listed:
    """One line of `pocketgan devices`.

    Attributes:
        state: in plain words; advice: what to do about it, or None.
        facts: of a phone that is ready, else None.
    """

    serial: str
    state: str
    advice: str | None
    facts: PhoneFacts | None

    def as_json(self) -> dict[str, Any]:
        """The line as one JSON object."""
        return {**asdict(self), "facts": self.facts.as_json() if self.facts else None}


def list_phones(server: AdbServer | None = None) -> list[Listed]:
    """Every phone that one adb server sees, with facts of those that answer.

    Raises:
        DeviceError: there is no adb server, and none can be started.
    """
    server = server or AdbServer()
    listed = []
    for serial, word in sorted(server.states().items()):
        state, advice = describe_state(word)
        known = None
        if word == "device":
            try:
                known = facts(AdbTransport(serial, server))
            except DeviceError as error:
                state, advice = error.what, error.fix
        listed.append(Listed(plain(serial), plain(state), advice, known))
    return listed


def facts(device: Transport) -> PhoneFacts:
    """Read one phone's facts.

    Raises:
        DeviceError: the phone cannot be reached.
    """
    properties = parse_properties(checked(device, ["getprop"], timeout=10).text)  # the first call of all
    value = properties.get
    part = soc.part_of(properties)
    sdk = value("ro.build.version.sdk", "")
    power = device.shell(["dumpsys", "power"]).text
    awake = re.search(r"mWakefulness=(\w+)", power)
    return PhoneFacts(
        serial=device.serial,
        maker=value("ro.product.manufacturer", ""),
        model=value("ro.product.model", ""),
        soc=part,
        chip=soc.name_of(part),
        android=value("ro.build.version.release", ""),
        sdk=int(sdk) if sdk.isascii() and sdk.isdigit() else None,
        fingerprint=value("ro.build.fingerprint", ""),
        abi=value("ro.product.cpu.abi", ""),
        clusters=read_clusters(device),
        screen_on=awake.group(1) == "Awake" if awake else None,
        heat=read_heat(device),
        emulator="1" in (value("ro.kernel.qemu"), value("ro.boot.qemu")),
    )


def parse_properties(text: str) -> dict[str, str]:
    """getprop's `[key]: [value]` lines; a value may hold line ends, and is made plain."""
    pairs = re.findall(r"^\[([\w.\-:@]+)\]: \[(.*?)\]$(?=\n\[|\s*\Z)", text, re.M | re.S)
    return {key: plain(value) for key, value in pairs}


def read_clusters(device: Transport) -> tuple[Cluster, ...]:
    """The phone's clusters from cpufreq, slowest first; cores that are off are left out."""
    names = " ".join(_CPU_FILES)
    script = (
        f"for c in {_CPU}/cpu[0-9]*; do for n in {names}; do "
        '[ -r "$c/cpufreq/$n" ] && echo "${c##*/} $n $(cat "$c/cpufreq/$n")"; done; done; true'
    )
    cores: dict[int, dict[str, str]] = {}
    for line in checked(device, ["sh", "-c", script]).text.splitlines():
        if found := re.fullmatch(r"cpu(\d{1,3}) (\w+) (.{1,256})", line):
            cores.setdefault(int(found.group(1)), {})[found.group(2)] = found.group(3).strip()
    clusters = {}
    for core, read in cores.items():
        limits = [read.get(name, "") for name in _CPU_FILES[:2]]
        if not all(re.fullmatch(r"\d{1,9}", limit) for limit in limits):
            continue
        related = read.get("related_cpus", "").split()
        together = (
            tuple(sorted(map(int, related)))
            if related and all(re.fullmatch(r"\d{1,3}", number) for number in related)
            else (core,)
        )
        governor = plain(read.get("scaling_governor", "")) or None
        clusters[together] = Cluster(together, int(limits[0]), int(limits[1]), governor)
    return tuple(sorted(clusters.values(), key=lambda cluster: (cluster.highest_khz, cluster.cores)))


def plain(text: str) -> str:
    """A phone's text as one short line of printable characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_LONGEST].strip()
