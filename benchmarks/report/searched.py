"""search.json, for the report: what was found, position by position, and how the search went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from compressor.files import read_json

_FIGURES = ("loss", "share", "multiplier")


@dataclass(frozen=True)
class Place:
    """A position of the found network: its operator and channels, and the widest it could have been."""

    name: str
    operator: str
    channels: int
    widest: int
    chance: float  # of the operator, at the end of the search


@dataclass(frozen=True)
class Measured:
    """What a budget of latency came to: milliseconds, and how well the table of operators predicted.

    Attributes:
        networks: random ones that were measured before the search.
        ratios: least and most of the sum of their operators over what they took.
        wrong: mean and largest error of predictions, each by the line through the others.
    """

    target: float
    predicted: float
    measured: float
    low: float
    high: float
    attempts: int
    device: str
    networks: int
    ratios: tuple[float, float]
    wrong: tuple[float, float]


@dataclass(frozen=True)
class Searching:
    """search.json. `reached` holds macs, literature_macs, parameters and bytes; `share` is of the target."""

    space: str
    asked: str
    metric: str
    target: int
    share: float
    reached: Mapping[str, int]
    places: tuple[Place, ...]
    trajectory: tuple[Mapping[str, float], ...]
    candidates: int
    why: str | None
    measured: Measured | None = None

    @property
    def operators(self) -> list[str]:
        """The operators in use, in the order in which they come."""
        return list(dict.fromkeys(place.operator for place in self.places))


def read_search(path: Path) -> Searching:
    """Read search.json.

    Raises:
        PocketganError, KeyError, TypeError, ValueError: it is missing or damaged.
    """
    document: dict[str, Any] = read_json(path)
    widest: dict[str, int] = {}
    places = []
    for position in document["positions"]:
        name, tied = str(position["name"]), position.get("tied")
        widest[name] = widest[tied] if tied else max(int(width) for width in position["widths"])
        operator = str(position["operator"])
        chance = float(position["operators"][operator])
        places.append(Place(name, operator, int(position["channels"]), widest[name], chance))
    points = [
        {key: float(point[key]) for key in ("step", *_FIGURES) if key in point}
        for point in document["trajectory"]
    ]
    budget = document["budget"]
    return Searching(
        space=str(document["space"]),
        asked=str(budget["asked"]),
        metric=str(budget["metric"]),
        target=int(budget["target"]),
        share=float(document["share"]),
        reached={str(key): int(value) for key, value in document["reached"].items()},
        places=tuple(places),
        trajectory=tuple(p for p in points if all(map(math.isfinite, p.values()))),
        candidates=len(document["candidates"]),
        why=document.get("why"),
        measured=_measured(document["latency"]) if "latency" in document else None,
    )


def _measured(latency: Mapping[str, Any]) -> Measured:
    table, device = latency["table"], latency["device"]
    target, predicted, measured, low, high = (
        int(latency[key]) / 1e6 for key in ("target", "predicted", "measured", "low", "high")
    )
    return Measured(
        target,
        predicted,
        measured,
        low,
        high,
        attempts=len(latency["attempts"]),
        device=" ".join(str(device[key]) for key in ("runtime", "precision", "cpu") if key in device),
        networks=len(table["networks"]),
        ratios=(float(table["sum_over_measured"]["least"]), float(table["sum_over_measured"]["most"])),
        wrong=(float(table["corrected"]["mean"]), float(table["corrected"]["most"])),
    )


def draw(places: Sequence[Place]) -> Markup:
    """The network from left to right: for each position its width before the widest it could have been,
    shaded by its operator."""
    kinds = list(dict.fromkeys(place.operator for place in places))
    broad, most = 1000 / len(places), max(place.widest for place in places)
    parts = [
        Markup('<svg viewBox="0 0 1000 200" preserveAspectRatio="none" role="img" aria-label="{}">').format(
            f"Operators and widths of {len(places)} positions"
        )
    ]
    for index, place in enumerate(places):
        left, wide = index * broad + 0.08 * broad, 0.84 * broad
        for kind, channels in (("was", place.widest), ("is", place.channels)):
            tall = 196 * channels / most
            shade = 1.0 if kind == "was" else 1 - 0.75 * kinds.index(place.operator) / max(1, len(kinds))
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" '
                    'fill-opacity="{:.2f}"><title>{}</title></rect>'
                ).format(kind, left, 198 - tall, wide, tall, shade, words_of(place))
            )
    return Markup("").join(parts) + Markup("</svg>")


def words_of(place: Place) -> str:
    """One position in a sentence."""
    return f"{place.name}: {place.operator}, {place.channels} of up to {place.widest} channels"
