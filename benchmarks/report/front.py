"""The Pareto chart: networks found, their teacher and published ones by cost and distance to the teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from benchmarks.report import words
from benchmarks.report.figures import Axis, axis
from benchmarks.report.pareto import Found, Pareto


@dataclass(frozen=True)
class Pin:
    """A mark on the chart: its sign, its place in shares of the axes, what it means, and its kind."""

    sign: str
    x: float
    y: float
    text: str
    kind: str


@dataclass(frozen=True)
class Front:
    """The chart: grid, the front as a line, and pins that the page sets upon it."""

    svg: Markup
    across: Axis
    up: Axis
    pins: tuple[Pin, ...]


def front(pareto: Pareto) -> Front:
    """MACs on a logarithmic scale across, distance to the teacher from zero upwards."""
    costs = [each.macs * pareto.factor for each in pareto.found]
    others = [row.macs for row in pareto.published]
    others += [pareto.teacher * pareto.factor] if pareto.teacher else []
    across = log_axis(min(costs + others), max(costs + others))
    up = _raised(axis(0.0, 1.2 * max(max(each.loss for each in pareto.found), 1e-9), 4))

    def place(macs: float) -> float:
        return across.share(math.log10(macs))

    pins = [
        Pin(str(number), place(cost), up.share(each.loss), words_of(each, pareto.factor), "own")
        for number, (each, cost) in enumerate(zip(pareto.found, costs, strict=True), 1)
    ]
    if pareto.teacher:
        cost = pareto.teacher * pareto.factor
        pins.append(
            Pin("T", place(cost), up.share(0.0), f"the teacher: {words.scaled(cost)} MACs", "teacher")
        )
    for sign, row in zip("ABC", pareto.published, strict=False):
        text = f"{row.name}, published: {words.scaled(row.macs)} MACs"
        pins.append(Pin(sign, place(row.macs), 1.0, text, "published"))
    return Front(_draw(across, up, pins), across, up, tuple(pins))


def _raised(scale: Axis) -> Axis:
    """The same ticks with some room below zero, where the teacher's pin stands."""
    room = 0.1
    ticks = tuple(((share + room) / (1 + room), text) for share, text in scale.ticks)
    return Axis(scale.low - room * (scale.high - scale.low), scale.high, ticks)


def words_of(each: Found, factor: float = 1.0) -> str:
    """One network in a sentence."""
    macs = words.scaled(each.macs * factor)
    return f"{each.asked}: {macs} MACs, distance to the teacher {words.significant(each.loss)}"


def log_axis(low: float, high: float) -> Axis:
    """log10 of positive values, with room at both ends; ticks at 1, or 1, 2 and 5 times powers of ten."""
    margin = max(0.08 * math.log10(high / low), 0.06)
    first, last = math.log10(low) - margin, math.log10(high) + margin
    steps = (
        (1,) if last - first > 2.5 else (1, 2, 5) if last - first > 0.5 else (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    )
    ticks = [
        (math.log10(step * 10.0**power), words.scaled(step * 10.0**power))
        for power in range(math.floor(first), math.ceil(last) + 1)
        for step in steps
    ]
    shown = [((at - first) / (last - first), text) for at, text in ticks if first <= at <= last]
    return Axis(first, last, tuple(shown))


def _draw(across: Axis, up: Axis, pins: Sequence[Pin]) -> Markup:
    parts = [
        Markup(
            '<svg viewBox="0 0 1000 300" preserveAspectRatio="none" role="img" '
            'aria-label="Cost and distance to the teacher of {} networks">'
        ).format(sum(pin.kind == "own" for pin in pins))
    ]
    line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    for share, _ in up.ticks:
        parts.append(line.format("grid", 0, 1000, 300 * (1 - share), 300 * (1 - share)))
    for share, _ in across.ticks:
        parts.append(line.format("grid", 1000 * share, 1000 * share, 0, 300))
    for pin in pins:
        if pin.kind == "published":
            parts.append(line.format("target", 1000 * pin.x, 1000 * pin.x, 0, 300))
    best: list[Pin] = []
    for pin in sorted((pin for pin in pins if pin.kind == "own"), key=lambda pin: (pin.x, pin.y)):
        if not best or pin.y < best[-1].y:  # no cheaper one is as near to the teacher
            best.append(pin)
    line_through = "L".join(f"{1000 * pin.x:.1f} {300 * (1 - pin.y):.1f}" for pin in best)
    parts.append(Markup('<path class="smooth" d="M{}"/></svg>').format(line_through))
    return Markup("").join(parts)


def rows(pareto: Pareto) -> list[Mapping[str, Any]]:
    """The chart as a table: every pin's sign, name, MACs, parameters, loss and published PSNR."""
    table: list[Mapping[str, Any]] = [
        {
            "sign": str(number),
            "kind": "own",
            "name": each.asked,
            "note": each.folder + ("" if each.within else ", over 2 % under its budget"),
            "macs": each.macs * pareto.factor,
            "parameters": each.parameters,
            "loss": each.loss,
            "psnr": None,
        }
        for number, each in enumerate(pareto.found, 1)
    ]
    blank: dict[str, Any] = {"parameters": None, "loss": None, "psnr": None, "note": ""}
    if pareto.teacher:
        macs = pareto.teacher * pareto.factor
        table.append(
            {**blank, "sign": "T", "kind": "teacher", "name": "the teacher", "macs": macs, "loss": 0.0}
        )
    for sign, row in zip("ABC", pareto.published, strict=False):
        told = {"name": row.name, "note": "published", "macs": row.macs, "psnr": row.psnr}
        table.append({**blank, "sign": sign, "kind": "published", **told})
    return table
