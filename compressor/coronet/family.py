"""A family of networks from one run: falling budgets, each network going on from the one before.

Every budget is a share (or an amount) of the original, and the original stays the teacher throughout;
what changes from member to member is where the search starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compressor.budget import Budget
from compressor.coronet.latency import AIM, Meter
from compressor.coronet.prune import PruneResult
from compressor.coronet.targets import cost_models, everything, joint_cost
from compressor.files import claim_folder, write_json
from compressor.generators import Generator
from compressor.graph import trace

RECORD = "family.json"
FORMAT = "pocketgan.family/1"

Member = Callable[[Budget, Path, "Sequence[Generator] | None"], Sequence[PruneResult]]
"""Prunes to one budget into a folder, from the generators of the member before (None for the first); goes
on by itself where an earlier call was stopped in that folder."""


def prune_family(
    generators: Sequence[Generator],
    budgets: Sequence[Budget],
    output: Path,
    prune_one: Member,
    *,
    meter: Meter | None = None,
    resume: bool = False,
) -> list[list[PruneResult]]:
    """Prune to each budget in turn, into output/macs-75, output/macs-50 and so on.

    Args:
        generators: the originals (one, or CycleGAN's two).
        budgets: from `Budget.parse_family`, falling.
        output: new folder; family.json there lists the members that are finished.
        prune_one: see `Member`.
        meter: what budgets of latency are measured with.
        resume: go on in `output` where an earlier call was stopped; finished members are not redone.

    Returns:
        For each budget, the result of each generator.

    Raises:
        UsageError: a budget cannot be reached; known before any training.
        PocketganError: `output` is taken.
    """
    for generator in generators:
        _check(generator, budgets, meter)
    claim_folder(output, resume=resume)
    found: list[list[PruneResult]] = []
    for budget in budgets:
        earlier = [result.generator for result in found[-1]] if found else None
        found.append(list(prune_one(budget, output / member_name(budget), earlier)))
        write_json(output / RECORD, _document(generators, budgets, found, output))
    return found


def member_name(budget: Budget) -> str:
    """The member's folder: "macs-75" for macs=75%, "macs-2.5G" for macs=2.5G."""
    return budget.text.replace("=", "-").replace("%", "")


def _check(generator: Generator, budgets: Sequence[Budget], meter: Meter | None) -> None:
    """Refuse now what the last member could not reach after hours."""
    graph = trace(generator.module, generator.spec.image.input_shape)
    for budget in budgets:
        models = cost_models(generator, graph, budget, meter)
        wholes = {metric: model(everything(graph)) for metric, model in models.items()}
        joint_cost(graph, generator.module, budget.settled(wholes, AIM), models)


def _document(
    generators: Sequence[Generator],
    budgets: Sequence[Budget],
    found: Sequence[Sequence[PruneResult]],
    output: Path,
) -> dict[str, Any]:
    members = [
        {
            "budget": budget.text,
            "folder": str(result.folder.relative_to(output)),
            "target": result.document["budget"]["target"],
            "reached": result.document["reached"],
            "share": result.document["share"],
        }
        for budget, results in zip(budgets, found, strict=False)
        for result in results
    ]
    return {
        "format": FORMAT,
        "source_sha256": [generator.sha256 for generator in generators],
        "budgets": [budget.text for budget in budgets],
        "complete": len(found) == len(budgets),
        "members": members,
    }
