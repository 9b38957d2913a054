"""What a search leaves behind: search.json, and pareto.json where there were several budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from compressor.agd.member import Member, choice_of, why_outside
from compressor.agd.space import SearchSpace
from compressor.cost import count
from compressor.files import write_json
from compressor.generators import Generator

RECORD, FAMILY_RECORD = "search.json", "pareto.json"
FORMAT, FAMILY_FORMAT = "pocketgan.search/1", "pocketgan.pareto/1"


def describe(
    space: SearchSpace,
    member: Member,
    best: Mapping[str, Any],
    generator: Generator,
    trajectory: Sequence[Mapping[str, float]],
    timed: Mapping[str, Any] | None = None,
    **told: Any,
) -> dict[str, Any]:
    """search.json: what was asked and reached, the choice at every position, candidates.

    Args:
        space: what was searched.
        member: after `decide`.
        best: the candidate taken.
        generator: derived from it.
        trajectory: of the whole search; figures of other members are left out.
        timed: what was measured, where a budget asks for latency: nanoseconds, and every attempt.
        told: teacher, seed, options.
    """
    limit, choice = member.limit, choice_of(dict(best))
    cost = count(generator.module, space.image.input_shape)
    reached = {name: getattr(cost, name) for name in ("macs", "literature_macs", "parameters", "bytes")}
    if timed is not None:
        reached["latency"] = timed["measured"]
    found = reached[limit.metric]
    with torch.no_grad():
        alpha, ratio = (rows.tolist() for rows in member.architecture.probabilities())
    widths, names = space.widths(choice), space.names(choice)
    positions = [
        {
            "name": position.name,
            "operator": names[index],
            "operators": _chances(position.operators, alpha[index]),
            "channels": widths[index],
            "widths": _chances(map(str, position.widths), ratio[index]),
            "tied": None if position.tied is None else space.positions[position.tied].name,
        }
        for index, position in enumerate(space.positions)
    ]
    document = {
        "format": FORMAT,
        "space": space.name,
        "budget": {
            **{"asked": limit.asked, "metric": limit.metric, "target": limit.target},
            **({"also": dict(limit.also)} if limit.also else {}),
        },
        "reached": reached,
        "share": found / limit.target,
        "within": bool(best["within"]),
        "range": list(member.cost.range()),
        "size": list(space.image.size),
        "scale": space.image.scale,
        "choice": choice.as_json(),
        "positions": positions,
        "residuals": [[r.first, r.last, r.scale] for r in space.residuals],
        "found_at": best["step"],
        "validation_loss": (best.get("trial") or [best["loss"]])[-1],
        "candidates": [dict(candidate) for candidate in member.candidates],
        **told,
        "trajectory": [_own(point, f"_{limit.name}") for point in trajectory],
    }
    if timed is not None:
        document["latency"] = dict(timed)
    if not best["within"]:
        document["why"] = why_outside(limit, best["cost"], timed)
    return document


def _own(point: Mapping[str, float], tail: str) -> dict[str, float]:
    """A point of the trajectory as if there were no other members."""
    named = {key.removesuffix(tail): value for key, value in point.items() if key.endswith(tail)}
    return {key: value for key, value in point.items() if "_" not in key} | named


def _chances(names: Any, row: Sequence[float]) -> dict[str, float]:
    """Each choice's probability at the end of the search."""
    return {str(name): round(value, 4) for name, value in zip(names, row, strict=False)}


def write_family(output: Path, found: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """pareto.json: the networks of several budgets, in their order."""
    members = [
        {
            "folder": str(folder.relative_to(output)),
            **{key: document[key] for key in ("budget", "reached", "share", "within", "validation_loss")},
        }
        for folder, document in found
    ]
    write_json(output / FAMILY_RECORD, {"format": FAMILY_FORMAT, "members": members})
