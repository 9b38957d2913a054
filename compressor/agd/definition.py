"""From the definition of a search space, as its YAML file holds it, to the space."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from compressor.agd.operators import Operator, as_definition, read_operator
from compressor.agd.reading import (
    among,
    fraction,
    listed,
    nearest,
    number,
    parse,
    section,
    whole,
)
from compressor.agd.space import FOLDER, Position, Residual, SearchSpace
from compressor.errors import UsageError
from compressor.generators.spec import ImageFormat

FORMAT = "pocketgan.space/1"
_KEYS = ("format", "name", "norm", "image", "base", "multipliers", "operators", "layers")
_PLACE = ("name", "repeat", "operators", "width", "widths", "widths_of", "width_as")
_GROUP = ("name", "repeat", "residual", "layers")
_WIDTHS = ("width", "widths", "widths_of", "width_as")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST = 1000  # positions
DIVISOR, LEAST, LOSS = 8, 3, Fraction(9, 10)


def width_table(channels: int, multipliers: Sequence[Fraction]) -> tuple[int, ...]:
    """Published widths: channels x multiplier, rounded half up to a multiple of 8.

    8 more where that loses over 10 %, and at least 3. 64 gives 24, 32, 40, 56, 64 for the published
    multipliers 4, 6, 8, 10 and 12 twelfths.
    """
    table = set()
    for multiplier in multipliers:
        exact = channels * multiplier
        width = max(LEAST, int(exact + Fraction(DIVISOR, 2)) // DIVISOR * DIVISOR)
        table.add(width + DIVISOR if width < LOSS * exact else width)
    return tuple(sorted(table))


def read_space(definition: object, where: str = "the search space") -> SearchSpace:
    """A space from its definition; `SearchSpace.definition` gives the same space again.

    Raises:
        UsageError: a key, a value or the structure does not fit; the message says where.
    """
    fields = section(definition, where, _KEYS, ("name", "layers"))
    if fields.get("format", FORMAT) != FORMAT:
        raise UsageError(f"{where} is of a format we do not know", got=fields["format"], allowed=FORMAT)
    norm = among(fields.get("norm", "none"), f"{where}: norm", ("instance", "none")) == "instance"
    base = among(fields.get("base", "none"), f"{where}: base", ("bilinear", "nearest", "input", "none"))
    multipliers = [
        fraction(value, f"{where}: multipliers[{index}]")
        for index, value in enumerate(listed(fields.get("multipliers", [1]), f"{where}: multipliers"))
    ]
    known = dict(parse((FOLDER / "operators.yaml").read_text(encoding="utf-8"), "operators.yaml"))
    own = fields.get("operators", {})
    if not isinstance(own, Mapping):
        raise UsageError(f"{where}: operators is not a section of `key: value` lines", got=repr(own))
    chain = _Chain(where, {**known, **own}, norm, multipliers)
    image = _image(fields.get("image", {}), f"{where}: image")
    for name, operator in own.items():  # also those that no position uses
        _word(name, f"{where}: operators")
        read_operator(name, operator, f"{where}: operators.{name}", norm=norm)
    chain.add(fields["layers"], f"{where}: layers", "")
    finished = chain.finish(image)
    if base == "input" and finished.scale != 1:
        raise UsageError(
            f"{where}: base: the input is smaller than the output",
            got=f"scale {finished.scale}",
            allowed="bilinear, nearest or none",
        )
    used = {name: chain.definitions[name] for name in chain.operators}
    whole_definition = as_definition({**fields, "format": FORMAT, "operators": used})
    return SearchSpace(
        name=_word(fields["name"], f"{where}: name"),
        image=finished,
        positions=tuple(chain.positions),
        operators=chain.operators,
        residuals=tuple(chain.residuals),
        base=None if base == "none" else base,
        definition=whole_definition,
    )


def _word(value: object, where: str) -> str:
    """A name, which a module can have too."""
    from torch import nn  # late: settings are read before torch is needed

    if not isinstance(value, str) or not _NAME.fullmatch(value) or hasattr(nn.ModuleDict(), value):
        allowed = "small letters, digits and _, as cell; not the name of a module's method"
        raise UsageError(f"{where} is no name", got=repr(value), allowed=allowed)
    return value


def _image(value: object, where: str) -> ImageFormat:
    fields = section(value, where, ("input_range", "output_range", "size", "channels"))
    taken: dict[str, Any] = {}
    for name, values in fields.items():
        pair = listed(values, f"{where}.{name}")
        if len(pair) != 2:
            raise UsageError(f"{where}.{name} is not a list of two", got=values)
        read = number if name.endswith("range") else whole
        taken[name] = tuple(read(item, f"{where}.{name}") for item in pair)
        if name.endswith("range") and not taken[name][0] < taken[name][1]:
            raise UsageError(f"{where}.{name} does not rise", got=values)
    return ImageFormat(**taken)


class _Chain:
    """Positions and sums as they are read; residual sums are checked once all widths are known."""

    def __init__(
        self, where: str, definitions: Mapping[str, Any], norm: bool, multipliers: Sequence[Fraction]
    ):
        self.where, self.definitions, self.norm, self.multipliers = where, definitions, norm, multipliers
        self.operators: dict[str, Operator] = {}
        self.positions: list[Position] = []
        self.residuals: list[Residual] = []

    def add(self, layers: object, where: str, prefix: str) -> None:
        """Read a list of layers, which are positions or groups of them."""
        for index, entry in enumerate(listed(layers, where)):
            here = f"{where}[{index}]"
            group = isinstance(entry, Mapping) and "layers" in entry
            fields = section(entry, here, _GROUP if group else _PLACE, () if group else ("name", "operators"))
            name = _word(fields["name"], f"{here}.name") if "name" in fields else ""
            repeat = whole(fields.get("repeat", 1), f"{here}.repeat", 1, _MOST)
            if group and repeat > 1 and not name:
                raise UsageError(f"{here}: what is repeated needs a name")
            for turn in range(1, repeat + 1):
                full = f"{prefix}{name}{turn if 'repeat' in fields else ''}"
                if not group:
                    self._place(full, fields, here)
                    continue
                first, outer = len(self.positions), len(self.residuals)
                self.add(fields["layers"], f"{here}.layers", f"{full}_" if name else prefix)
                if "residual" in fields:
                    scale = number(fields["residual"], f"{here}.residual")
                    self.residuals.insert(outer, Residual(first, len(self.positions) - 1, scale))

    def _place(self, name: str, fields: Mapping[str, Any], where: str) -> None:
        if len(self.positions) >= _MOST:
            raise UsageError(f"{self.where} has too many positions", allowed=f"at most {_MOST}")
        if name in (position.name for position in self.positions):
            raise UsageError(f"{where}: there are two positions of this name", got=name)
        given = [key for key in _WIDTHS if key in fields]
        if len(given) != 1:
            raise UsageError(
                f"{where}: {name} says its width {len(given)} times", got=given, allowed=f"one of {_WIDTHS}"
            )
        widths, tied = self._widths(given[0], fields[given[0]], f"{where}.{given[0]}")
        names = tuple(
            self._operator(word, f"{where}.operators") for word in listed(fields["operators"], where)
        )
        if len(set(names)) < len(names):
            raise UsageError(f"{where}: an operator stands twice", got=names)
        scales = {self.operators[word].scale for word in names}
        if len(scales) > 1:
            raise UsageError(f"{where}: its operators do not enlarge alike", got=sorted(map(str, scales)))
        self.positions.append(Position(name, names, widths, scales.pop(), tied))

    def _operator(self, name: object, where: str) -> str:
        name = among(name, where, self.definitions)
        if name not in self.operators:
            place = f"{self.where}: operators.{name}"
            self.operators[name] = read_operator(name, self.definitions[name], place, norm=self.norm)
        return name

    def _widths(self, key: str, value: object, where: str) -> tuple[tuple[int, ...], int | None]:
        match key:
            case "width":
                return (whole(value, where),), None
            case "widths_of":
                table = width_table(whole(value, where), self.multipliers)
                whole(table[-1], where)
                return table, None
            case "widths":
                widths = tuple(whole(item, where) for item in listed(value, where))
                if list(widths) != sorted(set(widths)):
                    raise UsageError(f"{where} do not rise", got=widths)
                return widths, None
        names = [position.name for position in self.positions]
        if value not in names:
            raise UsageError(f"{where}: no position before it is called {value!r}{nearest(value, names)}")
        index = names.index(value)
        tied = self.positions[index].tied
        return self.positions[index].widths[-1:], index if tied is None else tied

    def finish(self, image: ImageFormat) -> ImageFormat:
        """The image format with scale and multiple, once the chain is known to fit together.

        Raises:
            UsageError: a sum's two sides differ in width or size, or the end is no picture.
        """
        scales = [Fraction(1)]
        for position in self.positions:
            scales.append(scales[-1] * position.scale)
        for residual in self.residuals:
            name = self.positions[residual.first].name
            if scales[residual.first] != scales[residual.last + 1]:
                raise UsageError(f"{self.where}: the sum around {name} changes height and width")
            before, after = self._slot(residual.first - 1, image), self._slot(residual.last, image)
            if before != after:
                end = self.positions[residual.last].name
                raise UsageError(
                    f"{self.where}: the sum from {name} to {end} adds different widths",
                    got=f"{before[1]} and {after[1]}",
                    allowed=f"both `width` and equal, or `width_as` at {end}",
                )
        last = self.positions[-1]
        if last.tied is not None or last.widths != (image.channels[1],):
            raise UsageError(
                f"{self.where}: the last position makes the picture",
                got=last.widths,
                allowed=image.channels[1],
            )
        if scales[-1].denominator != 1:
            raise UsageError(
                f"{self.where} makes pictures smaller", got=scales[-1], allowed="scale 1 or more"
            )
        multiple = math.lcm(*(scale.denominator for scale in scales))
        return ImageFormat(
            image.input_range, image.output_range, image.size, int(scales[-1]), multiple, image.channels
        )

    def _slot(self, index: int, image: ImageFormat) -> tuple[int | None, tuple[int, ...]]:
        """What decides a width: (the position that owns it, or None where it is fixed; its options)."""
        if index < 0:
            return None, (image.channels[0],)
        tied = self.positions[index].tied
        owner = index if tied is None else tied
        widths = self.positions[owner].widths
        return (None if len(widths) == 1 else owner), widths
