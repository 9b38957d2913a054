"""Figures as inline SVG. Shapes stretch with the page (no fixed aspect); text stays in HTML beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from benchmarks.report import words
from benchmarks.report.records import Layer
from benchmarks.report.watched import Vector
from benchmarks.statistics import Summary

_OPEN = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
_MOST_POINTS = 600  # of a line; a phone has fewer pixels


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with labelled ticks: (share of the axis, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; beyond the axis is cut."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True)
class Chart:
    """A drawn figure with its two axes, for the page to label."""

    svg: Markup
    across: Axis
    up: Axis


def axis(low: float, high: float, count: int = 4) -> Axis:
    """Ticks at 1, 2 or 5 times a power of ten; `high` is kept, `low` too."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [k * step for k in range(first, int(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(low, high, tuple(((v - low) / (high - low), f"{v:,.{digits}f}") for v in values))


def lines(
    points: Sequence[Mapping[str, float]], key: str, title: str, *, target: float | None = None
) -> Chart | None:
    """A trajectory over steps: raw values thin, their running mean over 5 % of the points bold.

    Returns None where fewer than two points carry the figure.
    """
    known = [(point["step"], point[key]) for point in points if key in point]
    if len(known) < 2:
        return None
    stride = -(-len(known) // _MOST_POINTS)
    raw = known[::stride] + ([known[-1]] if (len(known) - 1) % stride else [])
    smooth = _running_mean(known, max(1, len(known) // 20))[::stride]
    peak = max(*(value for _, value in raw), target or 0.0, 1e-12)
    across, up = axis(known[0][0], known[-1][0], 4), axis(min(0.0, *(v for _, v in raw)), 1.06 * peak, 4)

    def path(values: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(
            f"{1000 * across.share(x):.1f} {300 * (1 - up.share(y)):.1f}" for x, y in values
        )

    parts = [_OPEN.format(1000, 300, title)]
    parts += [
        Markup('<line class="grid" x1="0" x2="1000" y1="{0:.1f}" y2="{0:.1f}"/>').format(300 * (1 - share))
        for share, _ in up.ticks
    ]
    if target is not None:
        parts.append(
            Markup('<line class="target" x1="0" x2="1000" y1="{0:.1f}" y2="{0:.1f}"/>').format(
                300 * (1 - up.share(target))
            )
        )
    parts.append(Markup('<path class="raw" d="{}"/>').format(path(raw)))
    parts.append(Markup('<path class="smooth" d="{}"/></svg>').format(path(smooth)))
    return Chart(Markup("").join(parts), across, up)


def history(summaries: Sequence[Summary], ends: tuple[str, str], title: str) -> Chart:
    """A series from session to session: medians joined by a line, the middle half of each a bar.

    The scale is near the values, so that some percent can be seen; `ends` names the first and last session.
    """
    low, high = min(one.p25 for one in summaries), max(one.p75 for one in summaries)
    room = max(0.25 * (high - low), 0.05 * high)
    up, places = axis(max(0.0, low - room), high + room, 4), [
        (1000 * (index + 0.5) / len(summaries), one) for index, one in enumerate(summaries)
    ]  # fmt: skip
    parts = [_OPEN.format(1000, 300, title)]
    parts += [
        Markup('<line class="grid" x1="0" x2="1000" y1="{0:.1f}" y2="{0:.1f}"/>').format(300 * (1 - share))
        for share, _ in up.ticks
    ]
    for x, one in places:
        top, bottom = 300 * (1 - up.share(one.p75)), 300 * (1 - up.share(one.p25))
        parts.append(
            Markup('<rect class="half" x="{:.1f}" y="{:.1f}" width="8" height="{:.1f}"/>').format(
                x - 4, top, max(2.0, bottom - top)
            )
        )
    line = "L".join(f"{x:.1f} {300 * (1 - up.share(one.median)):.1f}" for x, one in places)
    parts.append(Markup('<path class="smooth" d="M{}"/></svg>').format(line))
    ticks = ((places[0][0] / 1000, ends[0]), (places[-1][0] / 1000, ends[1]))
    return Chart(Markup("").join(parts), Axis(0.0, 1.0, ticks[: min(2, len(places))]), up)


def layers(rows: Sequence[Layer]) -> Chart | None:
    """Output channels layer by layer: the original's column behind, the compressed one's before it."""
    if not rows:
        return None
    width, height = 1000 / len(rows), 300
    up = axis(0, 1.05 * max(row.out_before for row in rows), 4)
    parts = [_OPEN.format(1000, height, f"Output channels of {len(rows)} layers before and after")]
    parts += [
        Markup('<line class="grid" x1="0" x2="1000" y1="{0:.1f}" y2="{0:.1f}"/>').format(height * (1 - share))
        for share, _ in up.ticks
    ]
    for index, row in enumerate(rows):
        left, broad = index * width + width * 0.1, width * 0.8
        for kind, value in (("was", row.out_before), ("is", row.out)):
            tall = height * up.share(value)
            parts.append(
                Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
                    kind, left, height - tall, broad, tall
                )
            )
    for index, row in enumerate(rows):  # above all columns, so that the whole height answers the pointer
        parts.append(
            Markup('<rect class="hit" x="{:.2f}" y="0" width="{:.2f}" height="300" data-layer="{}"/>').format(
                index * width, width, layer_words(row)
            )
        )
    return Chart(Markup("").join(parts) + Markup("</svg>"), axis(1, max(2, len(rows))), up)


def layer_words(row: Layer) -> str:
    """One layer in a sentence."""
    return (
        f"{row.name} · {row.kind} · {row.out_before} → {row.out} channels · "
        f"{words.scaled(row.macs_before)} → {words.scaled(row.macs)} MACs"
    )


def latency_axis(summaries: Sequence[Summary]) -> Axis:
    """One scale for all series, from zero to a little beyond the largest p90; few samples lie outside."""
    return axis(0.0, 1.08 * max(summary.p90 for summary in summaries), 5)


def latency(samples: Sequence[float], summary: Summary, scale: Axis, label: str) -> Markup:
    """One series on the common scale: every sample a hairline, the middle half a bar, the median a line."""
    parts = [_OPEN.format(1000, 28, label)]
    parts += [
        Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="28"/>').format(1000 * share)
        for share, _ in scale.ticks
    ]
    x25, x50, x75 = (1000 * scale.share(value) for value in (summary.p25, summary.median, summary.p75))
    parts.append(Markup('<rect class="reach" x="0" y="12" width="{:.1f}" height="4"/>').format(x50))
    parts += [
        Markup('<line class="sample" x1="{0:.1f}" x2="{0:.1f}" y1="7" y2="21"/>').format(
            1000 * scale.share(v)
        )
        for v in samples
        if v <= scale.high
    ]
    parts.append(
        Markup('<rect class="half" x="{:.1f}" y="8" width="{:.1f}" height="12"/>').format(
            x25, max(2.0, x75 - x25)
        )
    )
    parts.append(Markup('<line class="middle" x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="24"/></svg>').format(x50))
    return Markup("").join(parts)


def strip(values: Sequence[float], scale: Axis, middle: float, label: str) -> Markup:
    """All values as hairlines on one scale, the median bold."""
    parts = [_OPEN.format(1000, 30, label)]
    parts += [
        Markup('<line class="sample" x1="{0:.1f}" x2="{0:.1f}" y1="6" y2="24"/>').format(
            1000 * scale.share(v)
        )
        for v in values
    ]
    x = 1000 * scale.share(middle)
    parts.append(Markup('<line class="middle" x1="{0:.1f}" x2="{0:.1f}" y1="1" y2="29"/></svg>').format(x))
    return Markup("").join(parts)


def width_strip(vector: Vector, steps: Sequence[int]) -> Markup:
    """A vector's width over the steps as an area, its whole length as the height of the strip."""
    first, span = steps[0], max(1, steps[-1] - steps[0])
    places = [
        (1000 * (step - first) / span, 30 * (1 - kept / vector.whole))
        for step, kept in zip(steps, vector.kept, strict=True)
    ]
    if len(places) == 1:
        places.append((1000.0, places[0][1]))
    line = "L".join(f"{x:.1f} {y:.2f}" for x, y in places)
    label = f"{vector.name}: {vector.kept[0]} to {vector.kept[-1]} of {vector.whole}"
    return Markup(
        '<svg viewBox="0 0 1000 30" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="was" width="1000" height="30"/><path class="is" d="M0 30L{}L1000 30Z"/></svg>'
    ).format(label, line)


def _running_mean(known: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Centred mean over about `window` points, narrower at the ends."""
    half = window // 2
    means = []
    for index, (step, _) in enumerate(known):
        near = known[max(0, index - half) : index + half + 1]
        means.append((step, sum(value for _, value in near) / len(near)))
    return means
