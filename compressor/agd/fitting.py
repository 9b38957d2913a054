"""A shipped space made to fit a teacher: its pictures' ranges, channels and usual size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compressor.agd.cost import METRICS, cost_table
from compressor.agd.definition import read_space
from compressor.agd.operators import as_definition
from compressor.agd.space import SearchSpace, load_space
from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.generators.spec import ImageFormat

SPACES = {
    1: ("st", "st_small"),
    4: ("sr_tail",),
}  # by the teacher's scale; the first that can meet the budgets
_ENDS = {(-1.0, 1.0): "tanh", (0.0, 1.0): "unit_tanh"}  # the last layer that keeps to a range


def space_for(image: ImageFormat, budgets: Sequence[Budget], name: str | None = None) -> SearchSpace:
    """The space that a teacher's student is searched in, with the teacher's format.

    Args:
        image: of the teacher; costs will count at its usual size.
        budgets: what it should be able to meet.
        name: of a shipped space, or the path of a file; by default as the teacher's scale and the budgets
            have it.

    Raises:
        UsageError: there is no space for that scale, or the space cannot have the teacher's format.
    """
    if name is None and image.scale not in SPACES:
        raise UsageError(
            "no space comes along for a teacher of this scale",
            got=f"x{image.scale}",
            allowed=", ".join(f"x{scale}: {spaces[0]}" for scale, spaces in SPACES.items()),
            fix="write one of your own: --space FILE.yaml",
        )
    names = SPACES[image.scale] if name is None else (name,)
    for known in names:
        space = load_space(known)
        if space.image.scale != image.scale:
            raise UsageError(
                f"the space {space.name} does not enlarge as the teacher does",
                got=f"x{space.image.scale}",
                allowed=f"x{image.scale}",
            )
        space = fitted(space, image)
        if known != names[-1] and all(_holds(space, budget) for budget in budgets):
            break
    return space


def _holds(space: SearchSpace, budget: Budget) -> bool:
    """Whether a budget in amounts lies within what a space costs."""
    if budget.amount is None or budget.metric not in METRICS:
        return True
    least, _ = cost_table(space, budget.metric).range()
    return least <= budget.amount


def fitted(space: SearchSpace, image: ImageFormat) -> SearchSpace:
    """A space with another format of pictures; what its last layer keeps to follows the output's range.

    Raises:
        UsageError: the space cannot have it.
    """
    ours = space.image
    if any(side % ours.multiple for side in image.size):
        raise UsageError(
            f"pictures of this size do not suit the space {space.name}",
            got=f"{image.size[0]}x{image.size[1]}",
            allowed=f"multiples of {ours.multiple}",
            fix="--size HxW",
        )
    definition = as_definition(space.definition)
    if image.output_range != ours.output_range:
        ends = set(_ENDS.values()) & _words(definition["operators"])
        if ends and image.output_range not in _ENDS:
            raise UsageError(
                f"the space {space.name} cannot make pictures of this range",
                got=image.output_range,
                allowed=", ".join(map(str, _ENDS)),
                fix="a teacher with such a range, or a space without tanh at its end",
            )
        if ends:
            definition["operators"] = _exchanged(definition["operators"], ends, _ENDS[image.output_range])
    if space.base and (image.input_range != image.output_range or image.channels[0] != image.channels[1]):
        if space.base != "input":
            channels = f"{image.channels[0]} to {image.channels[1]}"
            raise UsageError(
                f"the space {space.name} adds to its input, which must be like the output",
                got=f"{image.input_range} to {image.output_range}, {channels}",
                allowed="equal ranges and channels",
            )
        definition["base"] = "none"  # a network of its own does without
    if image.channels[1] != ours.channels[1]:
        definition["layers"][-1]["width"] = image.channels[1]
    definition["image"] = {
        "input_range": list(image.input_range),
        "output_range": list(image.output_range),
        "size": list(image.size),
        "channels": list(image.channels),
    }
    return read_space(definition, space.name)


def _words(definition: Any) -> set[str]:
    """Every word in a definition."""
    if isinstance(definition, dict):
        return set().union(*map(_words, definition.values())) if definition else set()
    if isinstance(definition, list):
        return set().union(*map(_words, definition)) if definition else set()
    return {definition} if isinstance(definition, str) else set()


def _exchanged(definition: Any, old: set[str], new: str) -> Any:
    """A definition with some words exchanged for another."""
    if isinstance(definition, dict):
        return {key: _exchanged(value, old, new) for key, value in definition.items()}
    if isinstance(definition, list):
        return [_exchanged(value, old, new) for value in definition]
    return new if definition in old else definition
