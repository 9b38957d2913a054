"""A phone's heat: what it says of it, waiting for it to cool, and the traces that throttling leaves.

A hot phone lowers its clock, so a latency counts only with the heat before and after it. Android tells
through `dumpsys thermalservice` (10 and later) and `dumpsys battery`; the kernel counts how long each
cluster ran at each frequency.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from devices.transport import Transport, checked

STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's throttling statuses, PowerManager.THERMAL_STATUS_NONE = 0 and on."""
_NAMED = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+), mName=([^,}]{1,64}), mStatus=(\d+)")


@dataclass(frozen=True)
class Heat:
    """One reading; what the phone does not tell is None or missing.

    Attributes:
        status: 0 (not throttled) to 6, see STATUSES.
        temperatures_c: by sensor, degrees Celsius.
        battery_c, battery_percent, charging: of the battery.
    """

    status: int | None
    temperatures_c: Mapping[str, float]
    battery_c: float | None
    battery_percent: int | None
    charging: bool | None

    @property
    def throttled(self) -> bool:
        return bool(self.status)

    @property
    def words(self) -> str:
        """ "not throttled", or how much, for a table."""
        if self.status is None:
            return "unknown"
        return f"throttled: {STATUSES[self.status]}" if self.status else "not throttled"

    def as_json(self) -> dict[str, Any]:
        """The reading as one JSON object."""
        return {**asdict(self), "temperatures_c": dict(self.temperatures_c)}


@dataclass(frozen=True)
class Cooldown:
    """A wait for the phone to cool: how long it took, the last reading, and whether it was enough."""

    seconds: float
    heat: Heat
    cooled: bool


def read_heat(device: Transport) -> Heat:
    """Read the phone's heat now.

    Raises:
        DeviceError: the phone cannot be reached. A service it does not have is no error.
    """
    return parse_heat(
        checked(device, ["dumpsys", "thermalservice"]).text, checked(device, ["dumpsys", "battery"]).text
    )


def parse_heat(thermal: str, battery: str) -> Heat:
    """The two services' dumps; anything they lack is left out."""
    found = re.search(r"^\s*Thermal Status:\s*(\d+)\s*$", thermal, re.M)
    status = int(found.group(1)) if found and int(found.group(1)) < len(STATUSES) else None
    temperatures = {}
    for value, _, name, _ in _NAMED.findall(thermal):  # later ones are fresher: the HAL's own
        degrees = _number(value)
        if degrees is not None and -60 < degrees < 200:
            temperatures[_plain(name)] = degrees
    fields = dict(re.findall(r"^\s*([A-Za-z ]{1,32}):\s*(\S{1,16})\s*$", battery, re.M))
    tenths, level, state = (_number(fields.get(key, "")) for key in ("temperature", "level", "status"))
    return Heat(
        status=status,
        temperatures_c=temperatures,
        battery_c=None if tenths is None else tenths / 10,
        battery_percent=int(level) if level is not None and 0 <= level <= 100 else None,
        charging=None if state is None else state == 2,  # BatteryManager.BATTERY_STATUS_CHARGING
    )


def cool_down(
    device: Transport,
    *,
    most_seconds: float = 300.0,
    interval: float = 5.0,
    progress: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Cooldown:
    """Wait until the phone is not throttled, at most `most_seconds`; a phone that does not tell passes."""
    waited = 0.0
    while True:
        heat = read_heat(device)
        if not heat.throttled or waited >= most_seconds:
            return Cooldown(waited, heat, not heat.throttled)
        if progress:
            progress(f"{device.serial} is {heat.words}; waiting for it to cool ({waited:.0f} s)")
        step = min(interval, most_seconds - waited)
        sleep(step)
        waited += step


def read_frequencies(device: Transport) -> dict[str, dict[int, int]]:
    """Ticks (10 ms) that each core's cluster has run at each frequency (kHz), by core's name.

    Cores that do not tell are left out; an emulated or restricted kernel may tell nothing.
    """
    script = (
        "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/stats/time_in_state; do "
        '[ -r "$f" ] && { echo "$f"; cat "$f"; }; done; true'
    )
    found: dict[str, dict[int, int]] = {}
    table: dict[int, int] | None = None
    for line in checked(device, ["sh", "-c", script]).text.splitlines():
        if core := re.search(r"/(cpu\d{1,3})/cpufreq/", line):
            table = found.setdefault(core.group(1), {})
        elif table is not None and re.fullmatch(r"\d{1,9} \d{1,15}", line.strip()):
            frequency, ticks = line.split()
            table[int(frequency)] = int(ticks)
    return {core: table for core, table in found.items() if table}


def time_below_top(
    before: Mapping[str, Mapping[int, int]], after: Mapping[str, Mapping[int, int]]
) -> dict[str, float]:
    """Share of the time between two readings that each core's cluster ran below its top frequency.

    A core without a tick between the readings is left out.
    """
    shares = {}
    for core, table in after.items():
        spent = {khz: max(0, ticks - before.get(core, {}).get(khz, 0)) for khz, ticks in table.items()}
        if total := sum(spent.values()):
            shares[core] = 1 - spent[max(spent)] / total
    return shares


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _plain(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())
