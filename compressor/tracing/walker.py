"""The walk over a traced network that carries every tensor's channel identities along."""

from __future__ import annotations

import operator
from collections.abc import Container
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor.surgery import KERNELS, NORMS
from compressor.tracing import steps
from compressor.tracing.follower import Follower
from compressor.tracing.identities import KERNEL_KINDS, Channels, Count, Followed, Ids, LayerUse, Shape, Whole
from compressor.tracing.moves import MIXES, UNKNOWN

__all__ = ["Channels", "LayerUse", "Walker"]

_READS_WEIGHTS = "the network's forward uses its weights directly"
_HARMLESS = {"dim", "ndim", "dtype", "device", "is_cuda", "requires_grad", "is_floating_point", "ndimension"}


class Walker(Follower):
    """Runs the graph on shapes alone (meta tensors), with channel identities beside each value.

    Args:
        traced: the network, on the meta device.
        state: names of the parameters and buffers that are saved; others cannot be cut. None: all.

    Attributes:
        layers: what each layer with channels of its own reads and makes, by module name.
        parameters: parameters and buffers that the forward uses itself, by name, cut like layers.
        reads: where each of these is read first.
        kept_whole: what was kept whole, by the step's name, and why.
        unfollowed: whether there are steps that may multiply and are not among `layers`.
    """

    def __init__(self, traced: fx.GraphModule, state: Container[str] | None = None):
        super().__init__(traced)
        self.state = state
        self.layers: dict[str, LayerUse] = {}
        self.parameters: dict[str, Followed] = {}
        self.kept_whole: dict[str, str] = {}
        self.reads: dict[str, fx.Node] = {}
        self.unfollowed = False
        self._borrowed: set[str] = set()  # layers whose weights the forward uses itself

    def run_node(self, n: fx.Node) -> Any:
        """Run one step on shapes, then find the identities of what came out."""
        value = super().run_node(n)
        self.ids[n] = self._follow(n, value)
        return value

    def finish(self) -> None:
        """After the walk: what later steps have made impossible."""
        for name in sorted(self._borrowed & self.layers.keys()):
            self.keep_layer(name, _READS_WEIGHTS)
        for node, ids in self.ties:
            if self.channels.all_frozen(ids) and steps.name(node) not in self.kept_whole:
                why = "its groups must stay equally wide, and some of their channels cannot go"
                self.kept_whole[steps.name(node)] = f"{self._describe(node)}: {why}"

    def keep_layer(self, name: str, why: str) -> None:
        """Never prune what a layer reads and makes, and say why."""
        self.unfollowed = True  # weights computed on the way may take products of their own
        use = self.layers[name]
        use.kind = "fixed" if use.kind in (*KERNEL_KINDS, "depthwise") else use.kind
        self.channels.freeze(use.inputs)
        self.channels.freeze(use.outputs)
        self.kept_whole[name] = f"{type(self.fetch_attr(name)).__name__} {name}: {why}"

    # -- dispatch -------------------------------------------------------------------------------

    def _follow(self, node: fx.Node, value: Any) -> Any:
        if node.op == "output":
            self._freeze(node)
            return None
        if node.op == "placeholder":
            picture = isinstance(value, torch.Tensor) and value.dim() > 1
            return Followed(self.channels.new(value.shape[1], frozen=True), 1) if picture else None
        if node.op == "get_attr":
            return self._attribute(node, str(node.target), value)
        if not _carries_channels(value):
            return self._number(node, value)
        known = any(
            not isinstance(self.ids.get(source), (Whole, type(None))) for source in node.all_input_nodes
        )
        if node.op == "call_module":
            followed = self._module(node, self.fetch_attr(str(node.target)), value)
        elif not known:
            self.unfollowed = True
            return _whole(value)
        else:
            followed = self.step(node, value)
        if isinstance(followed, str):
            self.keep_whole(node, followed)
            return _whole(value)
        return followed

    def _attribute(self, node: fx.Node, name: str, value: Any) -> Any:
        """A parameter or buffer read by the forward itself: (C,), (C, 1, 1), (1, C, 1, 1) or (1, C, H, W)."""
        if not isinstance(value, torch.Tensor) or value.numel() <= 1:
            return None
        self._borrowed.add(name.rpartition(".")[0])
        if name in self.parameters:
            return self.parameters[name]
        long = [axis for axis, size in enumerate(value.shape) if size > 1]
        axis = long[0] if len(long) == 1 else value.dim() - 3
        owner = self.fetch_attr(name.rpartition(".")[0]) if "." in name else self.module
        saved = self.state is None or name in self.state
        if not saved or axis not in long or isinstance(owner, (*KERNELS, *NORMS, nn.PReLU)):
            return Whole()
        self.reads[name] = node
        self.parameters[name] = Followed(self.channels.new(value.shape[axis]), axis)
        return self.parameters[name]

    def _number(self, node: fx.Node, value: Any) -> Any:
        """What is no tensor: a shape, or a number computed from shapes."""
        source = self.ids.get(node.all_input_nodes[0]) if node.all_input_nodes else None
        target = node.args[1] if node.target is getattr else node.target
        if target in ("shape", "size") and isinstance(source, (Followed, Whole)):
            dims = self.env[node.all_input_nodes[0]].dim()
            if isinstance(value, torch.Size):
                return Shape(source, dims) if isinstance(source, Followed) else Count(_none(), True)
            here = isinstance(source, Followed) and self._arguments(node)[1] % dims == source.axis
            return Count(source.ids, False) if here else Count(_none(), True)  # type: ignore[union-attr]
        if isinstance(source, Shape) and node.target is operator.getitem:
            index = self._arguments(node)[1]
            picked = range(source.dims)[index]
            if isinstance(picked, int):
                here = picked == source.source.axis
                return Count(source.source.ids, False) if here else Count(_none(), True)
            return Count(source.source.ids if source.source.axis in picked else _none(), True)
        if target in _HARMLESS:
            return None
        counts = self._sources(node, Count)
        if any(isinstance(self.ids.get(other), (Followed, tuple, Shape)) for other in node.all_input_nodes):
            self.keep_whole(node, "it writes into a tensor" if node.target is operator.setitem else UNKNOWN)
        if not counts:
            return None
        return Count(np.concatenate([c.ids for c in counts]), any(c.mixed for c in counts))

    # -- layers ---------------------------------------------------------------------------------

    def _module(self, node: Any, layer: nn.Module, value: Any) -> Any:
        if len(node.all_input_nodes) != 1:
            return UNKNOWN
        source = node.all_input_nodes[0]
        found = self.ids.get(source)
        if isinstance(layer, KERNELS):
            return self._kernel(node, layer, found, self.env[source], value)
        if isinstance(found, (Whole, type(None))):
            self.unfollowed = True
            return _whole(value)
        if not isinstance(found, Followed):
            return UNKNOWN
        if isinstance(layer, steps.POINTWISE_MODULES):
            return found
        if isinstance(layer, steps.SPATIAL_MODULES):
            return found if isinstance(value, torch.Tensor) and found.axis == value.dim() - 3 else UNKNOWN
        if isinstance(layer, nn.Softmax) and layer.dim is not None:
            return MIXES if layer.dim % value.dim() == found.axis else found
        if isinstance(layer, nn.GLU):
            return self.halves(node, found, [layer.dim % value.dim()])
        if isinstance(layer, nn.Flatten):
            return self.move(node, found, value, layer)
        if isinstance(layer, (nn.LayerNorm, nn.LocalResponseNorm)):
            return MIXES
        if found.axis != 1:
            return UNKNOWN
        if isinstance(layer, NORMS):
            return self._norm(node, layer, found)
        if isinstance(layer, nn.PReLU):
            return found if layer.num_parameters == 1 else self._per_channel(node, found, "prelu")
        if isinstance(layer, nn.PixelShuffle):
            return self.shuffle(node, "pixel_shuffle", found, layer.upscale_factor)
        if isinstance(layer, nn.PixelUnshuffle):
            return self.shuffle(node, "pixel_unshuffle", found, layer.downscale_factor)
        if isinstance(layer, nn.ChannelShuffle):
            return self.shuffle(node, "channel_shuffle", found, layer.groups)
        return UNKNOWN

    def _norm(self, node: fx.Node, layer: Any, found: Followed) -> Any:
        """Of a GroupNorm whole groups are removed: what remains then has the statistics it had."""
        if isinstance(layer, nn.GroupNorm):
            if layer.num_groups == 1:
                return "its statistics are those of all channels together, and removing one would change them"
            self.channels.tie_rows(found.ids.reshape(layer.num_groups, -1).T)
        return self._per_channel(node, found, "norm")

    def _per_channel(self, node: fx.Node, found: Followed, kind: str) -> Followed:
        self._use(str(node.target), LayerUse(found.ids, found.ids, kind, 0))
        return found

    def _kernel(
        self, node: fx.Node, layer: Any, found: Any, source: torch.Tensor, value: torch.Tensor
    ) -> Any:
        """A convolution or a linear layer: makes new channels from those it reads."""
        name, linear = str(node.target), isinstance(layer, nn.Linear)
        axis = value.dim() - (1 if linear else 3)
        reads, makes = (
            (layer.in_features, layer.out_features) if linear else (layer.in_channels, layer.out_channels)
        )
        if isinstance(found, Followed) and found.axis == axis:
            ids = found.ids
        else:
            ids = self.channels.new(reads, frozen=True)
            if isinstance(found, Followed):
                self.keep_whole(node, "channels lie along another axis than the one it reads")
        # A transposed convolution applies its kernel once per input position.
        transposed = isinstance(layer, nn.ConvTranspose2d)
        places = (source if transposed else value).numel() // (reads if transposed else makes)
        pair_macs = places if linear else places * layer.kernel_size[0] * layer.kernel_size[1]
        groups = 1 if linear else layer.groups
        kind = "linear" if linear else "transposed" if transposed else "conv"
        if "weight" not in dict(layer.named_parameters(recurse=False)):
            kind, made = "fixed", self.channels.new(makes, frozen=True)
        elif groups == 1:
            made = self.channels.new(makes)
        elif groups == reads:
            kind, made = "depthwise", np.repeat(ids, makes // reads)
        else:  # every group keeps the channels at the same places, so that all stay equally wide
            self.tie(node, ids.reshape(groups, -1))
            made = np.tile(self.channels.new(makes // groups), groups)
        use = self._use(name, LayerUse(ids, made, kind, pair_macs, groups))
        if kind == "fixed":
            self.keep_layer(name, "its weights are computed from others (a weight or spectral norm)")
        return Followed(use.outputs, axis)

    def _use(self, name: str, use: LayerUse) -> LayerUse:
        """Record a layer, or tie a further use of a shared layer to the first."""
        first = self.layers.setdefault(name, use)
        if first is not use:
            self.channels.unite(first.inputs, use.inputs)
            self.channels.unite(first.outputs, use.outputs)
            first.pair_macs += use.pair_macs
        return first

    # -- keeping whole --------------------------------------------------------------------------

    def keep_whole(self, node: fx.Node, why: str) -> None:
        """Keep every channel that a step reads, and say so unless all had to stay anyway."""
        self.unfollowed = True
        if not self._freeze(node):
            self.kept_whole[steps.name(node)] = f"{self._describe(node)}: {why}"

    def _freeze(self, node: fx.Node) -> bool:
        """Freeze what a step reads; whether all of it was frozen already."""
        ids = [part for source in node.all_input_nodes for part in _identities(self.ids.get(source))]
        together = np.concatenate([_none(), *ids])
        already = self.channels.all_frozen(together)
        self.channels.freeze(together)
        return already

    def _describe(self, node: fx.Node) -> str:
        return steps.describe(node, self.fetch_attr(str(node.target)) if node.op == "call_module" else None)


def _identities(known: Any) -> list[Ids]:
    if isinstance(known, tuple):
        return [ids for part in known for ids in _identities(part)]
    if isinstance(known, Shape):
        return [known.source.ids]
    return [known.ids] if isinstance(known, (Followed, Count)) else []


def _none() -> Ids:
    return np.empty(0, np.int64)


def _whole(value: Any) -> Any:
    return tuple(_whole(part) for part in value) if isinstance(value, (tuple, list)) else Whole()


def _carries_channels(value: Any) -> bool:
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return any(_carries_channels(item) for item in value)
    return isinstance(value, torch.Tensor)
