"""A search space: a chain of positions, each with operators and widths to choose from, and a choice of them.

The published spaces are `st` (CycleGAN's shape) and `sr` (ESRGAN's); files of the same kind are read by path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.agd.operators import Operator
from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    import numpy as np

FOLDER = Path(__file__).parent / "spaces"


@dataclass(frozen=True)
class Position:
    """One place of the chain.

    Attributes:
        name: unique; names its modules.
        operators: names of the operators to choose from; one: fixed.
        widths: output channels to choose from, rising; one: fixed.
        scale: output side over input side, the same for all its operators.
        tied: an earlier position whose chosen width is this one's; `widths` then holds that one's largest
            alone, so that nothing is chosen here.
    """

    name: str
    operators: tuple[str, ...]
    widths: tuple[int, ...]
    scale: Fraction = Fraction(1)
    tied: int | None = None


@dataclass(frozen=True)
class Residual:
    """x + scale * f(x), where f is the positions from `first` to `last`, both included."""

    first: int
    last: int
    scale: float


@dataclass(frozen=True)
class SearchSpace:
    """What can be searched.

    Attributes:
        name: of the space.
        image: how pictures go in and come out.
        positions: in the order in which a picture passes them.
        operators: by name.
        residuals: sums around positions, the outer before the inner where they begin together.
        base: how the enlarged input is made that the output is added to: "bilinear", "nearest",
            "input" (as it is), or None.
        definition: all of it as JSON types, from which `read_space` makes the same again.
    """

    name: str
    image: ImageFormat
    positions: tuple[Position, ...]
    operators: Mapping[str, Operator]
    residuals: tuple[Residual, ...]
    base: str | None
    definition: Mapping[str, Any] = field(repr=False, compare=False)

    def owner(self, index: int) -> int:
        """The position whose chosen width position `index` has: itself, or the one it is tied to."""
        tied = self.positions[index].tied
        return index if tied is None else tied

    def options(self, index: int) -> tuple[int, ...]:
        """Widths that can come out of a position, of its owner where it is tied; before the first (-1): the
        picture's channels."""
        return (self.image.channels[0],) if index < 0 else self.positions[self.owner(index)].widths

    def widths(self, choice: Choice) -> tuple[int, ...]:
        """Output channels of every position at this choice."""
        return tuple(self.options(i)[choice.widths[self.owner(i)]] for i in range(len(self.positions)))

    def names(self, choice: Choice) -> tuple[str, ...]:
        """Operator names of every position at this choice."""
        return tuple(p.operators[o] for p, o in zip(self.positions, choice.operators, strict=True))

    def sizes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """(height, width) at the input of every position, and at the output, for pictures of `size`."""
        sizes, (height, width) = [size], (Fraction(size[0]), Fraction(size[1]))
        for position in self.positions:
            height, width = height * position.scale, width * position.scale
            if height.denominator != 1 or width.denominator != 1:
                raise UsageError(
                    f"pictures of {size[0]}x{size[1]} do not suit the space {self.name}",
                    allowed=f"height and width that are multiples of {self.image.multiple}",
                )
            sizes.append((int(height), int(width)))
        return tuple(sizes)

    def choice(self, operators: Sequence[str], widths: Sequence[int]) -> Choice:
        """The choice with these operator names and output channels, one each for every position.

        Raises:
            UsageError: the space does not have it.
        """
        if not len(operators) == len(widths) == len(self.positions):
            raise UsageError(
                f"a choice has one operator and width for each of {len(self.positions)} positions"
            )
        chosen_operators, chosen_widths = [], []
        for index, position in enumerate(self.positions):
            if operators[index] not in position.operators:
                allowed = ", ".join(position.operators)
                raise UsageError(
                    f"no such operator at {position.name}", got=operators[index], allowed=allowed
                )
            options, owner = self.options(index), self.owner(index)
            if widths[index] not in options or widths[index] != widths[owner]:
                allowed = str(widths[owner]) if owner != index else ", ".join(map(str, options))
                raise UsageError(f"no such width at {position.name}", got=widths[index], allowed=allowed)
            chosen_operators.append(position.operators.index(operators[index]))
            chosen_widths.append(0 if owner != index else options.index(widths[index]))
        return Choice(tuple(chosen_operators), tuple(chosen_widths))


@dataclass(frozen=True)
class Choice:
    """One network of a space: an index into `operators` and one into `widths` of every position."""

    operators: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def widest(cls, space: SearchSpace) -> Choice:
        """The largest widths; of the operators the first of each position."""
        return cls((0,) * len(space.positions), tuple(len(p.widths) - 1 for p in space.positions))

    @classmethod
    def narrowest(cls, space: SearchSpace) -> Choice:
        """The smallest widths; of the operators the first of each position."""
        return cls((0,) * len(space.positions), (0,) * len(space.positions))

    @classmethod
    def random(cls, space: SearchSpace, draw: np.random.Generator) -> Choice:
        """Operators and widths drawn uniformly and independently."""
        return cls(
            tuple(int(draw.integers(len(p.operators))) for p in space.positions),
            tuple(int(draw.integers(len(p.widths))) for p in space.positions),
        )

    def check(self, space: SearchSpace) -> None:
        """Refuse what is no choice of this space.

        Raises:
            UsageError: as said.
        """
        for indices, which in ((self.operators, "operators"), (self.widths, "widths")):
            counts = [len(getattr(position, which)) for position in space.positions]
            fits = len(indices) == len(counts)
            if not fits or any(not 0 <= i < n for i, n in zip(indices, counts, strict=True)):
                raise UsageError(f"this is no choice of {which} of the space {space.name}", got=indices)

    def as_json(self) -> dict[str, list[int]]:
        """{"operators": [...], "widths": [...]}."""
        return {"operators": list(self.operators), "widths": list(self.widths)}

    @classmethod
    def from_json(cls, document: object) -> Choice:
        """What `as_json` gave.

        Raises:
            PocketganError: it is something else.
        """
        if isinstance(document, Mapping) and set(document) == {"operators", "widths"}:
            lists = [document["operators"], document["widths"]]
            if all(isinstance(x, list) and all(type(i) is int for i in x) for x in lists):
                return cls(tuple(lists[0]), tuple(lists[1]))
        raise PocketganError("this is no choice of a search space", got=document)


def shipped() -> tuple[str, ...]:
    """Names of the spaces that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "operators"))


def load_space(name: str | Path) -> SearchSpace:
    """A shipped space by name ("st", "sr", ...), or one of your own by the path of its YAML file.

    Raises:
        UsageError: there is no such name or file, or it does not define a space.
    """
    from compressor.agd.definition import read_space
    from compressor.agd.reading import nearest, parse

    path = FOLDER / f"{name}.yaml" if str(name) in shipped() else Path(name)
    if not path.is_file():
        allowed = f"{', '.join(shipped())}, or the path of a YAML file"
        raise UsageError(
            f"there is no search space {str(name)!r}{nearest(str(name), shipped())}", allowed=allowed
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read", got=error) from error
    return read_space(parse(text, path.name), path.name)
