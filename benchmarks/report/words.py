"""Figures as a reader wants them: units, significant digits, and what to say of infinity."""

from __future__ import annotations

import math

from benchmarks.statistics import Ratio

METRICS = {"macs": "MACs", "parameters": "parameters", "bytes": "bytes", "literature_macs": "literature MACs"}


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without exponent between 0.001 and 1e6."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "∞"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if abs(value) < 1e-3:
        return f"{mantissa}e{int(exponent)}"
    places = digits - 1 - int(exponent)
    return f"{round(value, places):,.{max(0, places)}f}"


def scaled(value: float, unit: str = "") -> str:
    """1234567 -> "1.23 M"; thousands are 10^3, as in MACs, parameters and MB."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{significant(value / factor)} {prefix}{unit}"
    return f"{value:,.0f} {unit}".rstrip()


def size(count: float) -> str:
    """Bytes -> "1.23 MB" (10^6 bytes)."""
    return scaled(count, "B")


def milliseconds(value: float) -> str:
    """Milliseconds with three digits, and their unit."""
    return f"{significant(value)} ms"


def seconds(value: float) -> str:
    """A duration: "8.1 s" or "2 min 5 s"."""
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def decibel(value: float | None) -> str:
    """PSNR; equal pictures have no error at all."""
    if value is None:
        return "unknown"
    return f"{value:.1f} dB" if math.isfinite(value) else "identical"


def times(value: float | None) -> str:
    """A ratio: "2.41×"."""
    if value is None:
        return "unknown"
    return f"{value:.2f}×" if value < 9.995 else f"{significant(value)}×"


def interval(ratio: Ratio) -> str:
    """A ratio's interval: "[2.35, 2.47]"."""
    return f"[{ratio.low:.2f}, {ratio.high:.2f}]"


def percent(share: float) -> str:
    """0.4986 -> "49.86 %"."""
    return f"{100 * share:.2f} %"


def threads(count: int) -> str:
    """ "1 thread", "2 threads"."""
    return f"{count} thread{'' if count == 1 else 's'}"


def writable(text: str) -> str:
    """Text that UTF-8 can hold: what is no UTF-8 in the name of a file is written as Python does."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
