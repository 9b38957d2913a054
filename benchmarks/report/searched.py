"""search.json, for the report: what was found, position by position, and how the search went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.report.watched import Watched, read_watched
from compressor.files import read_json

_FIGURES = ("loss", "share", "multiplier", "entropy", "temperature")
COLOURS = 8  # that the page has for operators


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
class Turn:
    """How a position came to its operator: the probabilities of `operators` at each noted step."""

    name: str
    operators: tuple[str, ...]
    chances: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Searching:
    """search.json.

    Attributes:
        share: of the target.
        reached: macs, literature_macs, parameters and bytes; so `teacher_cost`, where it is known.
        steps: at which `turns` were noted.
        watched: the sample pictures.
        trials: every tried candidate's losses, one for each round that it was in, the winner's first; NaN
            where one diverged.
    """

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
    teacher_cost: Mapping[str, int] | None
    steps: tuple[int, ...]
    turns: tuple[Turn, ...]
    watched: Watched
    trials: tuple[tuple[float, ...], ...]
    measured: Measured | None = None

    @property
    def used(self) -> list[str]:
        """The operators of the found network, in the order in which they come."""
        return list(dict.fromkeys(place.operator for place in self.places))

    @property
    def offered(self) -> list[str]:
        """The operators that were chosen among, in the order of `operators`."""
        return [name for name in self.operators if any(name in turn.operators for turn in self.turns)]

    @property
    def operators(self) -> list[str]:
        """The operators in use, in the order in which they come, then those that were not taken."""
        open_to = (name for turn in self.turns for name in turn.operators)
        return list(dict.fromkeys([*self.used, *open_to]))


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
    budget, course = document["budget"], document.get("course") or {"steps": (), "positions": ()}
    turns = [
        Turn(
            str(position["name"]),
            tuple(map(str, position["operators"])),
            tuple(tuple(map(float, row)) for row in position["chances"]),
        )
        for position in course["positions"]
        if len(position["operators"]) > 1
    ]
    if any(len(turn.chances) != len(course["steps"]) for turn in turns):
        raise ValueError("probabilities that do not fit their steps")
    cost = document.get("teacher_cost")
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
        teacher_cost={str(key): int(value) for key, value in cost.items()} if cost else None,
        steps=tuple(map(int, course["steps"])),
        turns=tuple(turns),
        watched=read_watched(path, document),
        trials=_trials(document["candidates"]),
        measured=_measured(document["latency"]) if "latency" in document else None,
    )


def _trials(candidates: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, ...], ...]:
    """Those who stayed longest first, and of these the best."""
    found = [
        tuple(math.nan if loss is None else float(loss) for loss in candidate["trial"])
        for candidate in candidates
        if candidate.get("trial")
    ]
    return tuple(sorted(found, key=lambda losses: (-len(losses), math.isnan(losses[-1]), losses[-1])))


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
        device=" ".join(str(device[key]) for key in ("runtime", "precision", "cpu", "phone") if key in device)
        + (", EMULATED" if device.get("emulated") else ""),
        networks=len(table["networks"]),
        ratios=(float(table["sum_over_measured"]["least"]), float(table["sum_over_measured"]["most"])),
        wrong=(float(table["corrected"]["mean"]), float(table["corrected"]["most"])),
    )


def draw(places: Sequence[Place], operators: Sequence[str]) -> Markup:
    """The network from left to right: for each position its width before the widest it could have been,
    coloured by its operator's place in `operators`."""
    broad, most = 1000 / len(places), max(place.widest for place in places)
    parts = [
        Markup('<svg viewBox="0 0 1000 200" preserveAspectRatio="none" role="img" aria-label="{}">').format(
            f"Operators and widths of {len(places)} positions"
        )
    ]
    for index, place in enumerate(places):
        left, wide = index * broad + 0.08 * broad, 0.84 * broad
        colour = f"k{operators.index(place.operator) % COLOURS}"
        for kind, channels in (("was", place.widest), (colour, place.channels)):
            tall = 196 * channels / most
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">'
                    "<title>{}</title></rect>"
                ).format(kind, left, 198 - tall, wide, tall, words_of(place))
            )
    return Markup("").join(parts) + Markup("</svg>")


def draw_turn(turn: Turn, steps: Sequence[int], operators: Sequence[str]) -> Markup:
    """A position's probabilities over the steps as areas upon each other, in the colours of `operators`."""
    first, span = steps[0], max(1, steps[-1] - steps[0])
    across = [1000 * (step - first) / span for step in steps]
    rows = list(turn.chances)
    if len(rows) == 1:
        across, rows = [0.0, 1000.0], rows * 2
    parts = [
        Markup('<svg viewBox="0 0 1000 30" preserveAspectRatio="none" role="img" aria-label="{}">').format(
            f"{turn.name}: "
            + ", ".join(f"{n} {c:.0%}" for n, c in zip(turn.operators, rows[-1], strict=True))
        )
    ]
    below = [0.0] * len(rows)
    for index, name in enumerate(turn.operators):
        above = [low + row[index] for low, row in zip(below, rows, strict=True)]
        edge = [f"{x:.1f} {30 * (1 - y):.2f}" for x, y in zip(across, above, strict=True)]
        edge += [f"{x:.1f} {30 * (1 - y):.2f}" for x, y in reversed([*zip(across, below, strict=True)])]
        colour = operators.index(name) % COLOURS
        parts.append(Markup('<path class="k{}" d="M{}Z"/>').format(colour, "L".join(edge)))
        below = above
    return Markup("").join(parts) + Markup("</svg>")


def words_of(place: Place) -> str:
    """One position in a sentence."""
    return f"{place.name}: {place.operator}, {place.channels} of up to {place.widest} channels"
