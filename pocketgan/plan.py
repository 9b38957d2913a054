"""What a run would do: everything read and checked, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.budget import Budget
from compressor.errors import UsageError
from pocketgan.recipe import Recipe
from pocketgan.stages import ask, reach, settled, stages_of

if TYPE_CHECKING:
    from compressor.agd.member import Limit
    from compressor.agd.space import SearchSpace
    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator


@dataclass(frozen=True)
class Checked:
    """What was read of a recipe that can be done.

    Attributes:
        generator: the original, if it is a network.
        teacher, space, limit: with a search: who teaches, what is searched, and for how much.
    """

    generator: Generator | None
    teacher: Teacher | None = None
    space: SearchSpace | None = None
    limit: Limit | None = None


def check(recipe: Recipe) -> Checked:
    """Refuse what cannot be done before anything is written.

    Raises:
        PocketganError: the generator or the pictures cannot be read.
        UsageError: a budget is already met, or cannot be reached.
    """
    generator = recipe.generator.load() if recipe.generator.is_network else None
    if recipe.search is not None:
        return _check_search(recipe, generator)
    assert generator is not None  # the recipe has seen to it
    reach(generator, Budget.parse(recipe.budget))
    return Checked(generator)


def _check_search(recipe: Recipe, generator: Generator | None) -> Checked:
    """The space can meet the first budget, and a second one is less."""
    from compressor.agd.fitting import space_for
    from compressor.agd.limits import limits_of

    assert recipe.search is not None
    budgets = [Budget.parse(text) for text in recipe.budgets().values()]
    teacher = ask(recipe)
    space = space_for(teacher.image, budgets[:1], recipe.search.space_name)
    (limit,) = limits_of(space, budgets[:1], teacher)
    if recipe.prunes:
        final = settled(budgets[1], generator or teacher)
        if any(part.metric == limit.metric and (part.amount or 0) >= limit.target for part in final.parts()):
            raise UsageError(
                "nothing is left to prune: the search comes to the budget itself",
                got=f"search.budget: {limit.target:,} {limit.metric}, budget: {recipe.budget}",
                allowed="a budget smaller than search.budget; or no search.budget, to search only",
            )
    return Checked(generator, teacher, space, limit)


def plan(recipe: Recipe) -> dict[str, Any]:
    """What a run would do, having read the generator and listed the pictures but written nothing.

    Returns:
        JSON types: family and cost of the original (None where it only teaches), the budget's target,
        with a search its space and what that can cost, numbers of pictures, the recipe.

    Raises:
        PocketganError, UsageError: see `check`.
    """
    training, held_out = recipe.data.split()
    checked = check(recipe)
    budget = Budget.parse(recipe.budget)
    named: dict[str, Any] = {"source": recipe.generator.named}
    totals: dict[str, int] = {}
    if checked.generator is not None:
        own = checked.generator
        named = {"family": own.spec.family, "sha256": own.sha256, "notes": own.notes}
        totals = _totals(own, budget)
    return {
        "generator": named,
        "cost": totals or None,
        **({"search": _searching(checked)} if checked.limit else {}),
        "budget": {
            "asked": budget.text,
            "metric": budget.metric,
            "target": budget.limit(totals.get(budget.metric, 0)),
            "also": {part.metric: part.limit(totals.get(part.metric, 0)) for part in budget.also},
        },
        "images": {"training": len(training), "held_out": len(held_out)},
        "stages": list(stages_of(recipe)),
        "recipe": recipe.as_plain(),
    }


def _searching(checked: Checked) -> dict[str, Any]:
    from compressor.agd.cost import cost_table

    limit, space, teacher = checked.limit, checked.space, checked.teacher
    assert limit is not None and space is not None and teacher is not None
    return {
        "space": space.name,
        "asked": limit.asked,
        "metric": limit.metric,
        "target": limit.target,
        "range": list(cost_table(space, limit.metric).range()),
        "notes": list(teacher.notes),
    }


def _totals(generator: Generator, budget: Budget) -> dict[str, int]:
    from compressor.coronet.memory import peak_memory
    from compressor.cost import count

    shape = generator.spec.image.input_shape
    cost = count(generator.module, shape)
    totals = {name: int(getattr(cost, name)) for name in ("macs", "literature_macs", "parameters", "bytes")}
    if any(part.metric == "memory" for part in budget.parts()):
        totals["memory"] = peak_memory(generator.module, shape)
    return totals
