"""What a generator is, without its weights: enough to rebuild the module and to feed it images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from compressor.errors import PocketganError, UsageError

if TYPE_CHECKING:
    import torch

FORMAT = "pocketgan.generator/1"


@dataclass(frozen=True)
class ImageFormat:
    """How pictures go in and come out; tensors are float32 NCHW.

    Attributes:
        input_range: values of black and white at the input, e.g. (-1, 1) for CycleGAN.
        output_range: the same at the output.
        size: usual input height and width; costs, exports and latencies refer to it.
        scale: output side over input side (4 for a x4 upscaler).
        multiple: input height and width must be multiples of this.
        channels: input and output channels (1 grey, 3 RGB).
    """

    input_range: tuple[float, float] = (-1.0, 1.0)
    output_range: tuple[float, float] = (-1.0, 1.0)
    size: tuple[int, int] = (256, 256)
    scale: int = 1
    multiple: int = 1
    channels: tuple[int, int] = (3, 3)

    def __post_init__(self) -> None:
        for name in ("input_range", "output_range"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low != high):
                raise UsageError(
                    f"the {name.replace('_', ' ')} does not tell black from white",
                    got=f"{low:g},{high:g}",
                    allowed="two different numbers",
                    fix=f"--{name.replace('_', '-')} 0,1 or -1,1",
                )

    def need_pictures(self, name: object) -> None:
        """Refuse a network whose input or output no picture file can hold.

        Raises:
            UsageError: it has channels other than 1 (grey) or 3 (colour).
        """
        if not set(self.channels) <= {1, 3}:
            raise UsageError(
                f"{name} is not a generator from picture to picture",
                got=f"{self.channels[0]} channels in, {self.channels[1]} out",
                allowed="1 (grey) or 3 (colour)",
            )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """The usual input as (1, C, H, W)."""
        return (1, self.channels[0], *self.size)


@dataclass(frozen=True)
class GeneratorSpec:
    """The architecture of one generator.

    Attributes:
        family: a name in `compressor.generators.families.FAMILIES`, or "custom".
        arguments: the family's constructor arguments (JSON types); for "custom" the
            `factory` ("module:callable").
        image: how pictures go in and come out.
        widths: of a compressed network only: each resized layer's (input, output) channels by
            its module name; norms and PReLU have input == output.
        splits: of a compressed network only: the new numbers of each step that has numbers of channels
            written in it, by the name of its node in the traced graph (torch.fx); see
            `compressor.surgery.resize`.
    """

    family: str
    arguments: Mapping[str, Any]
    image: ImageFormat = field(default_factory=ImageFormat)
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    splits: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        """The module with fresh weights, in eval mode.

        Raises:
            PocketganError: the family or its arguments are not known, or the widths do not fit.
        """
        from compressor.generators.families import construct
        from compressor.surgery import resize

        module = construct(self.family, self.arguments)
        if self.widths or self.splits:
            module = resize(module, self.widths, self.splits)
        return module.eval()

    def as_json(self) -> dict[str, Any]:
        """The document that `architecture.json` holds."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, document: object) -> GeneratorSpec:
        """Read `architecture.json`, refusing every version, key and type we do not know.

        Raises:
            PocketganError: the document is not one that `as_json` could have written.
        """
        fields = _known(document, {"format", "family", "arguments", "image", "widths", "splits"})
        if fields["format"] != FORMAT:
            raise PocketganError(
                "architecture.json is of a format this version does not know",
                got=fields["format"],
                allowed=FORMAT,
                fix="pip install --upgrade pocketgan",
            )
        image = _known(fields["image"], set(ImageFormat.__dataclass_fields__))
        try:
            return cls(
                family=_of(fields["family"], str),
                arguments=_of(fields["arguments"], dict),
                image=ImageFormat(
                    input_range=_numbers(image["input_range"], 2, float),
                    output_range=_numbers(image["output_range"], 2, float),
                    size=_numbers(image["size"], 2, int),
                    scale=_of(image["scale"], int),
                    multiple=_of(image["multiple"], int),
                    channels=_numbers(image["channels"], 2, int),
                ),
                widths={name: _numbers(pair, 2, int) for name, pair in _of(fields["widths"], dict).items()},
                splits={
                    name: _numbers(sizes, len(sizes), int, least=0)
                    for name, sizes in _of(fields["splits"], dict).items()
                },
            )
        except (TypeError, ValueError) as error:
            raise PocketganError("architecture.json holds a value of the wrong kind", got=error) from error


def _known(document: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(document, dict) or set(document) != keys:
        got = sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise PocketganError(
            "architecture.json does not have the expected keys", got=got, allowed=sorted(keys)
        )
    return document


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} where a {kind.__name__} belongs")
    return value


def _numbers(values: Any, count: int, kind: type, least: int = 1) -> Any:
    """A tuple of `count` integers of at least `least`, or of `count` numbers."""
    allowed = (int, float) if kind is float else (int,)
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{values!r} where {count} numbers belong")
    for value in values:
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise TypeError(f"{value!r} where a number belongs")
        if kind is int and value < least:
            raise ValueError(f"{value!r} where a number of at least {least} belongs")
    return tuple(kind(value) for value in values)
