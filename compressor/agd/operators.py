"""What an operator of a search space is: layers, with widths relative to what comes in and goes out.

Nothing here knows torch: `compressor.agd.modules` makes layers of it, `compressor.agd.cost` counts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from compressor.agd.reading import among, flag, listed, number, section, whole
from compressor.errors import UsageError

KERNELS = ("conv", "depthwise", "transposed")
WORDS = ("norm", "relu", "leaky_relu", "tanh", "unit_tanh")  # unit_tanh: (tanh + 1) / 2
FACTORS = ("nearest", "shuffle")
SLOPE = 0.2  # of a leaky_relu that says nothing
_TO = re.compile(r"(?:(\d+)\*)?(in|out)(?:/(\d+))?")


@dataclass(frozen=True)
class Width:
    """A number of channels as a share of the operator's input ("in") or output ("out") channels."""

    of: str
    share: Fraction = Fraction(1)

    def __call__(self, inputs: int, outputs: int) -> int:
        """The number of channels, rounded down, at least 1."""
        return max(1, int(self.share * (inputs if self.of == "in" else outputs)))


IN, OUT = Width("in"), Width("out")


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        kind: one of `KERNELS`, `WORDS`, `FACTORS`.
        reads, makes: its channels; both the same where it only changes values.
        kernel: side of a kernel, odd; zero padding keeps height and width at stride 1.
        stride: of a convolution; a transposed one enlarges by it.
        bias: whether a kernel has one.
        factor: what nearest and shuffle enlarge by.
        slope: of a leaky_relu.
    """

    kind: str
    reads: Width
    makes: Width
    kernel: int = 1
    stride: int = 1
    bias: bool = False
    factor: int = 1
    slope: float = 0.0

    @property
    def scale(self) -> Fraction:
        """Output side over input side."""
        if self.kind in FACTORS:
            return Fraction(self.factor)
        return Fraction(self.stride) if self.kind == "transposed" else Fraction(1, self.stride)

    def signature(self, inputs: int, outputs: int) -> str:
        """The layer at these widths in words: "conv3/2 8->16 bias", "norm", "shuffle2"."""
        if self.kind in FACTORS:
            return f"{self.kind}{self.factor}"
        if self.kind not in KERNELS:
            return f"{self.kind}{self.slope:g}" if self.kind == "leaky_relu" else self.kind
        widths = f"{self.reads(inputs, outputs)}->{self.makes(inputs, outputs)}"
        return f"{self.kind}{self.kernel}/{self.stride} {widths}{' bias' if self.bias else ''}"


@dataclass(frozen=True)
class Operator:
    """last(body(x) + shortcut(x)); without a body last(shortcut(x)), without a shortcut last(body(x)).

    Attributes:
        name: in the space.
        body: its layers.
        shortcut: layers that make x as wide as the output where it is not (1x1 convolution, norm); where
            it is, the shortcut is x itself. None: no shortcut.
        last: pointwise layers after the sum.
    """

    name: str
    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] | None
    last: tuple[Layer, ...]

    @property
    def scale(self) -> Fraction:
        """Output side over input side."""
        scale = Fraction(1)
        for layer in self.body:
            scale *= layer.scale
        return scale

    def parts(self, inputs: int, outputs: int, *, bridged: bool = False) -> dict[str, tuple[Layer, ...]]:
        """Layers of "body", "shortcut" and "last" at these widths: a shortcut of equal width has none.

        Args:
            inputs, outputs: channels.
            bridged: give the shortcut its layers at equal widths too.
        """
        bridge = self.shortcut if self.shortcut and (bridged or inputs != outputs) else ()
        return {"body": self.body, "shortcut": bridge or (), "last": self.last}

    def signature(self, inputs: int, outputs: int, *, bridged: bool = False) -> str:
        """All that is computed at these widths, in words: equal signatures compute alike."""
        parts = {
            name: ", ".join(layer.signature(inputs, outputs) for layer in layers)
            for name, layers in self.parts(inputs, outputs, bridged=bridged).items()
        }
        if self.shortcut is None:
            del parts["shortcut"]
        return " ".join(f"{name}[{text}]" for name, text in parts.items() if text or name == "shortcut")


def read_operator(name: str, definition: object, where: str, *, norm: bool) -> Operator:
    """An operator from its definition: {body: [...], shortcut: true, last: [...]}.

    Args:
        name: its name.
        definition: as in the YAML file.
        where: what to call it in messages.
        norm: whether the space normalises; else `norm` layers and that of the shortcut are left out.

    Raises:
        UsageError: a key, a layer or a width does not fit.
    """
    fields = section(definition, where, ("body", "shortcut", "last"))
    if "body" not in fields and "shortcut" not in fields:
        raise UsageError(f"{where} does nothing", allowed="a body of layers, a shortcut, or both")
    body, makes = _layers(fields.get("body", []), f"{where}.body", IN, norm)
    last, _ = _layers(fields.get("last", []), f"{where}.last", OUT, norm)
    if any(layer.kind not in WORDS for layer in last):
        raise UsageError(f"{where}.last holds a layer with channels of its own", allowed=", ".join(WORDS))
    shortcut = flag(fields.get("shortcut", False), f"{where}.shortcut")
    if not (body or shortcut):
        raise UsageError(f"{where} does nothing", allowed="a body of layers, a shortcut, or both")
    if body and makes != OUT:
        raise UsageError(
            f"{where}: its body does not end in the output's width",
            got=_say(makes),
            allowed="its last convolution is without `to`, or with as many channels as a shuffle takes",
        )
    bridge = (Layer("conv", IN, OUT), *([Layer("norm", OUT, OUT)] if norm else []))
    operator = Operator(name, tuple(body), bridge if shortcut else None, tuple(last))
    if shortcut and operator.scale != 1:
        raise UsageError(f"{where} changes height and width, so it cannot have a shortcut")
    return operator


def _layers(definitions: object, where: str, reads: Width, norm: bool) -> tuple[list[Layer], Width]:
    layers = []
    for index, definition in enumerate(listed(definitions, where, empty=True)):
        layer = _layer(definition, f"{where}[{index}]", reads)
        if layer.kind == "norm" and not norm:
            continue
        layers.append(layer)
        reads = layer.makes
    return layers, reads


def _layer(definition: object, where: str, reads: Width) -> Layer:
    if isinstance(definition, str):
        kind = among(definition, where, WORDS)
        return Layer(kind, reads, reads, slope=SLOPE if kind == "leaky_relu" else 0.0)
    if not isinstance(definition, Mapping) or not definition:
        raise UsageError(f"{where} is no layer", got=repr(definition), allowed="as relu, or {conv: 3}")
    kind = among(next(iter(definition)), where, (*KERNELS, *FACTORS, "leaky_relu"))
    if kind == "leaky_relu":
        return Layer(kind, reads, reads, slope=number(section(definition, where, [kind])[kind], where))
    if kind in FACTORS:
        factor = whole(section(definition, where, [kind])[kind], f"{where}.{kind}", 2, 8)
        return Layer(
            kind, reads, _shuffled(reads, factor, where) if kind == "shuffle" else reads, factor=factor
        )
    options = {
        "conv": ("stride", "bias", "to"),
        "depthwise": ("stride", "bias"),
        "transposed": ("stride", "bias", "to"),
    }[kind]
    fields = section(definition, where, (kind, *options))
    kernel = whole(fields[kind], f"{where}.{kind}", 1, 31)
    stride = whole(fields.get("stride", 2 if kind == "transposed" else 1), f"{where}.stride", 1, 8)
    if kernel % 2 == 0 or (kind == "transposed" and not 2 <= stride <= kernel):
        raise UsageError(f"{where} keeps no whole picture", got=dict(definition), allowed="odd kernels")
    makes = reads if kind == "depthwise" else _to(fields.get("to", "out"), f"{where}.to")
    return Layer(kind, reads, makes, kernel, stride, flag(fields.get("bias", False), f"{where}.bias"))


def _to(text: object, where: str) -> Width:
    found = _TO.fullmatch(text.replace(" ", "")) if isinstance(text, str) else None
    if not found or found[1] == "0" or found[3] == "0":
        raise UsageError(f"{where} is no width", got=repr(text), allowed="in, out, 4*in, 4*out, out/2")
    return Width(found[2], Fraction(int(found[1] or 1), int(found[3] or 1)))


def _shuffled(reads: Width, factor: int, where: str) -> Width:
    share = reads.share / factor**2
    if share.denominator != 1:
        need = f"{factor**2}*out"
        raise UsageError(f"{where}: a shuffle by {factor} cannot divide", got=_say(reads), allowed=need)
    return Width(reads.of, share)


def _say(width: Width) -> str:
    top, bottom = width.share.numerator, width.share.denominator
    return f"{f'{top}*' if top > 1 else ''}{width.of}{f'/{bottom}' if bottom > 1 else ''}"


def as_definition(value: Any) -> Any:
    """A deep copy of a definition in JSON types."""
    if isinstance(value, Mapping):
        return {str(key): as_definition(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_definition(item) for item in value]
    return value
