"""The supernet: all operators of a space at their largest widths; narrower ones use the first channels.

A convolution has one full-size weight. At a narrower choice it takes its first filters and of these the
first inputs; a depthwise one has as many groups as channels come in. Nothing else is shared or resized, so
that the network of one choice can be taken out (`derive`) and computes the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.agd.modules import initialise, make_layer, run_chain
from compressor.agd.operators import KERNELS, Layer, Operator
from compressor.agd.space import Choice, SearchSpace
from compressor.generators import Generator, GeneratorSpec


@dataclass(frozen=True)
class Pick:
    """What is computed at one position.

    Attributes:
        operators: (index, scalar that its output is multiplied by, or None for 1); the outputs are summed.
        width: the same for the width; the scalar multiplies the sum. At a tied position (0, None).
    """

    operators: tuple[tuple[int, Tensor | None], ...]
    width: tuple[int, Tensor | None]


class SlicedKernel(nn.Module):
    """A convolution of which the first filters and inputs are used."""

    def __init__(self, layer: Layer, inputs: int, outputs: int):
        super().__init__()
        full = make_layer(layer, inputs, outputs)
        assert isinstance(full, (nn.Conv2d, nn.ConvTranspose2d))
        self.layer = layer
        self.weight = nn.Parameter(full.weight.detach())  # (out, in, k, k); transposed (in, out, k, k)
        self.bias = None if full.bias is None else nn.Parameter(full.bias.detach())

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W'), any number of inputs and outputs up to the full ones."""
        inputs, stride, margin = x.shape[1], self.layer.stride, self.layer.kernel // 2
        bias = None if self.bias is None else self.bias[:outputs]
        if self.layer.kind == "depthwise":
            return F.conv2d(x, self.weight[:inputs], bias, stride, margin, groups=inputs)
        if self.layer.kind == "transposed":
            weight = self.weight[:inputs, :outputs]
            return F.conv_transpose2d(x, weight, bias, stride, margin, stride - 1)
        return F.conv2d(x, self.weight[:outputs, :inputs], bias, stride, margin)


class SlicedNorm(nn.Module):
    """An instance norm of however many channels come in; it has no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x)


class SlicedOperator(nn.Module):
    """An operator at any width; module names equal those of `compressor.agd.modules.PlainOperator`."""

    def __init__(self, operator: Operator, inputs: int, outputs: int, *, last: bool):
        super().__init__()
        self.operator = operator
        self.body = self._made(operator.body, inputs, outputs)
        self.shortcut = self._made(operator.shortcut or (), inputs, outputs)
        self.last = self._made(operator.last, inputs, outputs)
        initialise(operator, self.body, self.shortcut, last=last)

    @staticmethod
    def _made(layers: Sequence[Layer], inputs: int, outputs: int) -> nn.ModuleList:
        def sliced(layer: Layer) -> nn.Module:
            if layer.kind in KERNELS:
                return SlicedKernel(layer, inputs, outputs)
            return SlicedNorm() if layer.kind == "norm" else make_layer(layer, inputs, outputs)

        return nn.ModuleList(map(sliced, layers))

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, scale H, scale W)."""
        inputs = x.shape[1]

        def through(value: Tensor, layers: Sequence[Layer], modules: nn.ModuleList) -> Tensor:
            for layer, module in zip(layers, modules, strict=True):
                kernel = isinstance(module, SlicedKernel)
                value = module(value, layer.makes(inputs, outputs)) if kernel else module(value)
            return value

        operator = self.operator
        total = through(x, operator.body, self.body) if operator.body else None
        if operator.shortcut is not None:
            bridge = x if inputs == outputs else through(x, operator.shortcut, self.shortcut)
            total = bridge if total is None else total + bridge
        assert total is not None
        return through(total, operator.last, self.last)


class Supernet(nn.Module):
    """All networks of a space at once.

    Args:
        space: what can be searched.
        seed: of the fresh weights.
    """

    def __init__(self, space: SearchSpace, seed: int = 0):
        super().__init__()
        self.space = space
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleDict(
                {
                    position.name: nn.ModuleDict(
                        {
                            name: SlicedOperator(
                                space.operators[name],
                                space.options(index - 1)[-1],
                                space.options(index)[-1],
                                last=index == len(space.positions) - 1,
                            )
                            for name in position.operators
                        }
                    )
                    for index, position in enumerate(space.positions)
                }
            )

    def forward(self, x: Tensor, picks: Sequence[Pick]) -> Tensor:
        """(N, C, H, W) in the space's input range -> (N, C', scale H, scale W); one pick a position."""
        space = self.space
        steps = [partial(self._step, index, picks) for index in range(len(space.positions))]
        return run_chain(x, steps, space.residuals, space.base, space.image.scale)

    def _step(self, index: int, picks: Sequence[Pick], x: Tensor) -> Tensor:
        position, pick = self.space.positions[index], picks[index]
        outputs = self.space.options(index)[picks[self.space.owner(index)].width[0]]
        total: Tensor | None = None
        for operator, weight in pick.operators:
            y = self.layers[position.name][position.operators[operator]](x, outputs)  # type: ignore[index]
            y = y if weight is None else weight * y
            total = y if total is None else total + y
        assert total is not None, "a pick names at least one operator"
        return total if pick.width[1] is None else pick.width[1] * total

    def picks_of(self, choice: Choice) -> list[Pick]:
        """The picks that compute one choice."""
        choice.check(self.space)
        return [
            Pick(((operator, None),), (width, None))
            for operator, width in zip(choice.operators, choice.widths, strict=True)
        ]


def derive(supernet: Supernet, choice: Choice) -> Generator:
    """The network of one choice, of family "agd", with the supernet's weights.

    It computes what the supernet computes at `choice`.

    Raises:
        UsageError: this is no choice of the supernet's space.
    """
    spec = spec_of(supernet.space, choice)
    module = spec.build()
    full = supernet.state_dict()
    names = dict(zip((p.name for p in supernet.space.positions), supernet.space.names(choice), strict=True))
    inherited = {}
    for key, part in module.state_dict().items():
        prefix, position, rest = key.split(".", 2)
        whole = full[f"{prefix}.{position}.{names[position]}.{rest}"]
        inherited[key] = whole[tuple(slice(0, size) for size in part.shape)].detach().float().cpu().clone()
    return generator_of(spec, inherited)


def generator_of(spec: GeneratorSpec, state: Mapping[str, Tensor]) -> Generator:
    """A network with these weights (CPU, float32). Its `path` is its space's name: it comes from no file."""
    module, digest = spec.build(), hashlib.sha256()
    module.load_state_dict(dict(state))
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
    return Generator(spec, module.eval(), Path(spec.arguments["space"]["name"]), digest.hexdigest())


def spec_of(space: SearchSpace, choice: Choice) -> GeneratorSpec:
    """The architecture of one choice."""
    choice.check(space)
    arguments = {
        "space": dict(space.definition),
        "operators": list(space.names(choice)),
        "widths": list(space.widths(choice)),
    }
    return GeneratorSpec("agd", arguments, space.image)
