"""The walk over a traced network that carries every tensor's channel identities along."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from compressor.surgery import CONVOLUTIONS, NORMS

# Steps after which channel i is still channel i.
_SAME_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d, nn.ConstantPad2d,
    nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_SAME_FUNCTIONS = {
    F.relu, F.leaky_relu, F.relu6, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh,
    F.tanh, F.sigmoid, F.softplus, F.dropout, F.dropout2d, F.interpolate, F.avg_pool2d, F.max_pool2d,
    F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
    torch.relu, torch.tanh, torch.sigmoid, torch.clamp, torch.abs, torch.sqrt, torch.rsqrt, torch.exp,
    torch.square, torch.neg, operator.neg,
}  # fmt: skip
_SAME_METHODS = {
    "relu", "relu_", "tanh", "sigmoid", "clamp", "clamp_", "clip", "abs", "sqrt", "rsqrt", "exp", "square",
    "neg", "contiguous", "float", "clone", "detach", "to", "type_as",
}  # fmt: skip
_ELEMENTWISE_FUNCTIONS = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.isub, operator.imul,
    operator.itruediv, operator.pow, torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.maximum,
    torch.minimum,
}  # fmt: skip
_ELEMENTWISE_METHODS = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "pow", "pow_"}
_REDUCTIONS = {torch.mean, torch.sum, torch.var, torch.std, torch.amax, torch.amin}
_REDUCTION_METHODS = {"mean", "sum", "var", "std", "amax", "amin"}
_SIZE_METHODS = {"size", "dim"}

Ids = np.ndarray


class Channels:
    """Channel identities with union-find: equal roots must live and die together."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self.frozen: set[int] = set()

    def new(self, count: int, *, frozen: bool = False) -> Ids:
        """Make `count` fresh identities."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        if frozen:
            self.frozen.update(range(start, start + count))
        return np.arange(start, start + count)

    def freeze(self, ids: Ids) -> None:
        """Never remove these."""
        self.frozen.update(ids.tolist())

    def unite(self, left: Ids, right: Ids) -> None:
        """Tie the i-th of `left` to the i-th of `right`."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            self._parent[self._root(a)] = self._root(b)

    def roots(self) -> np.ndarray:
        """The root of every identity, (count,) int64."""
        return np.array([self._root(index) for index in range(len(self._parent))], np.int64)

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index


@dataclass
class LayerUse:
    """The identities a layer reads and makes; several uses of a shared layer are tied together."""

    inputs: Ids
    outputs: Ids
    kind: str
    pair_macs: int


class Walker(fx.Interpreter):
    """Runs the graph on shapes alone (meta tensors), with channel identities beside each value."""

    def __init__(self, traced: fx.GraphModule):
        super().__init__(traced)
        self.channels = Channels()
        self.layers: dict[str, LayerUse] = {}
        self.splits: dict[str, tuple[Ids, ...]] = {}
        self.kept_whole: dict[str, str] = {}
        self._ids: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one step on shapes, then find the identities of what came out."""
        value = super().run_node(n)
        self._ids[n] = self._follow(n, value)
        return value

    def _follow(self, node: Any, value: Any) -> Any:
        if node.op == "output":
            for source in node.all_input_nodes:
                self._freeze(source)
            return None
        if node.op in ("placeholder", "get_attr"):
            return self._fresh(value, frozen=True)
        if node.op == "call_module":
            followed = self._module(node, self.fetch_attr(str(node.target)), value)
        else:
            followed = self._function(node, value)
        if followed is None and _carries_channels(value):
            for source in node.all_input_nodes:
                self._freeze(source)
            self.kept_whole[_name(node)] = "this step's channels cannot be followed"
            return self._fresh(value, frozen=True)
        return followed

    # -- layers ---------------------------------------------------------------------------------

    def _module(self, node: Any, layer: nn.Module, value: Any) -> Any:
        ids = self._ids.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        if ids is None or isinstance(ids, tuple):
            return None
        name = str(node.target)
        if isinstance(layer, CONVOLUTIONS):
            return self._convolution(name, layer, ids, self.env[node.all_input_nodes[0]], value)
        if isinstance(layer, NORMS):
            return self._per_channel(name, ids, "norm")
        if isinstance(layer, nn.PReLU):
            return ids if layer.num_parameters == 1 else self._per_channel(name, ids, "prelu")
        if isinstance(layer, _SAME_MODULES):
            return ids
        if isinstance(layer, nn.PixelShuffle):
            return self._pixel_shuffle(ids, layer.upscale_factor)
        if isinstance(layer, nn.PixelUnshuffle):
            return np.repeat(ids, layer.downscale_factor**2)
        return None

    def _convolution(self, name: str, layer: Any, ids: Ids, source: torch.Tensor, value: torch.Tensor) -> Ids:
        transposed = isinstance(layer, nn.ConvTranspose2d)
        # A transposed convolution applies its kernel once per input position.
        height, width = (source if transposed else value).shape[2:]
        pair_macs = height * width * layer.kernel_size[0] * layer.kernel_size[1]
        if layer.groups == 1:
            kind = "transposed" if transposed else "conv"
            made = self.channels.new(layer.out_channels)
        elif layer.groups == layer.in_channels and layer.out_channels == layer.in_channels:
            kind, made = "depthwise", ids
        else:
            kind, made = "fixed", self.channels.new(layer.out_channels, frozen=True)
            self.channels.freeze(ids)
            self.kept_whole[name] = f"a convolution in {layer.groups} groups"
        return self._use(name, LayerUse(ids, made, kind, pair_macs)).outputs

    def _per_channel(self, name: str, ids: Ids, kind: str) -> Ids:
        self._use(name, LayerUse(ids, ids, kind, 0))
        return ids

    def _use(self, name: str, use: LayerUse) -> LayerUse:
        """Record a layer, or tie a further use of a shared layer to the first."""
        first = self.layers.setdefault(name, use)
        if first is not use:
            self.channels.unite(first.inputs, use.inputs)
            self.channels.unite(first.outputs, use.outputs)
            first.pair_macs += use.pair_macs
        return first

    # -- functions and methods ------------------------------------------------------------------

    def _function(self, node: Any, value: Any) -> Any:
        target: Any = node.target
        ids = self._ids.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        if target is operator.getitem:
            return self._getitem(node, ids)
        if target in (torch.cat, torch.concat):
            return self._concatenate(node)
        if target in _ELEMENTWISE_FUNCTIONS or (node.op == "call_method" and target in _ELEMENTWISE_METHODS):
            return self._elementwise(node, value)
        if ids is None or isinstance(ids, tuple):
            return None
        if target in (torch.split, torch.chunk) or target in ("split", "chunk"):
            return self._split(node, ids, value)
        if target in _SAME_FUNCTIONS or (node.op == "call_method" and target in _SAME_METHODS):
            return ids
        if target is F.pad:
            return ids if len(_argument(node, 1, "pad", ())) <= 4 else None
        if target in _REDUCTIONS or (node.op == "call_method" and target in _REDUCTION_METHODS):
            keeps = isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] == len(ids)
            return ids if keeps and not {1, -3} & set(_dims(_argument(node, 1, "dim", 1))) else None
        if target in (torch.pixel_shuffle, F.pixel_shuffle):
            return self._pixel_shuffle(ids, int(_argument(node, 1, "upscale_factor", 1)))
        if target in (torch.pixel_unshuffle, F.pixel_unshuffle):
            return np.repeat(ids, int(_argument(node, 1, "downscale_factor", 1)) ** 2)
        return None

    def _pixel_shuffle(self, ids: Ids, factor: int) -> Ids:
        """Output channel c is made of input channels c*s^2 ... c*s^2 + s^2 - 1."""
        blocks = ids.reshape(-1, factor**2)
        for column in range(1, factor**2):
            self.channels.unite(blocks[:, column], blocks[:, 0])
        return blocks[:, 0].copy()

    def _concatenate(self, node: Any) -> Any:
        parts: list[Any] = [self._ids.get(part) for part in _argument(node, 0, "tensors", ())]
        if _argument(node, 1, "dim", 0) not in (1, -3) or not all(isinstance(p, np.ndarray) for p in parts):
            return None
        return np.concatenate(parts)

    def _split(self, node: Any, ids: Ids, value: Any) -> Any:
        if _argument(node, 2, "dim", 0) not in (1, -3):
            return None
        bounds = np.cumsum([part.shape[1] for part in value])[:-1]
        parts = tuple(np.split(ids, bounds))
        self.splits[node.name] = parts
        return parts

    def _getitem(self, node: Any, ids: Any) -> Any:
        index = node.args[1]
        if isinstance(ids, tuple) and isinstance(index, int):
            return ids[index]
        whole = isinstance(index, tuple) and len(index) >= 2 and all(i == slice(None) for i in index[:2])
        plain = whole and not any(isinstance(i, int) or i is None for i in index)
        return ids if isinstance(ids, np.ndarray) and plain else None

    def _elementwise(self, node: fx.Node, value: Any) -> Any:
        """Tie the operands' channels; a single channel is spread over the others'."""
        if not isinstance(value, torch.Tensor):
            return None
        found = [self._ids.get(source) for source in node.all_input_nodes]
        operands = [ids for ids in found if isinstance(ids, np.ndarray)]
        full = [ids for ids in operands if value.dim() > 1 and len(ids) == value.shape[1]]
        if not full:
            return None
        for ids in operands:
            if len(ids) != len(full[0]):
                self.channels.freeze(ids)
        for ids in full[1:]:
            self.channels.unite(ids, full[0])
        return full[0]

    # -- helpers --------------------------------------------------------------------------------

    def _fresh(self, value: Any, *, frozen: bool) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(self._fresh(item, frozen=frozen) for item in value)
        if not isinstance(value, torch.Tensor):
            return None
        axis = {3: 0, 1: 0}.get(value.dim(), 1)  # parameters come as (C,) or (C, 1, 1)
        return self.channels.new(value.shape[axis] if value.dim() else 1, frozen=frozen)

    def _freeze(self, source: fx.Node) -> None:
        ids = self._ids.get(source)
        for part in ids if isinstance(ids, tuple) else (ids,):
            if isinstance(part, np.ndarray):
                self.channels.freeze(part)


def _carries_channels(value: Any) -> bool:
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return any(_carries_channels(item) for item in value)
    return isinstance(value, torch.Tensor)


def _argument(node: Any, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _dims(dims: Any) -> Sequence[int]:
    return dims if isinstance(dims, (tuple, list)) else (dims,)


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name
