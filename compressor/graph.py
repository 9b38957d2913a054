"""Which channels of a network belong together.

The network is traced (torch.fx) and walked once with, for every tensor, the identity of each of
its channels. A convolution makes new channels; a sum makes two channels one; a concatenation, a
split or a pixel shuffle rearranges them. What remains are classes of channels that can only be
removed together, from every layer that makes or reads them. This is what shared latent vectors
(DHP, Li et al. 2020, section 3.3) mean, found for any network instead of written down for each.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from compressor.cost import count
from compressor.errors import PocketganError
from compressor.surgery import symbolic
from compressor.tracing.identities import KERNEL_KINDS
from compressor.tracing.walker import Channels, Walker

__all__ = ["KERNEL_KINDS", "ChannelGraph", "LayerChannels", "WrittenSizes", "trace"]


@dataclass(frozen=True)
class LayerChannels:
    """The channel classes of one layer.

    Attributes:
        name: module name.
        inputs: class of each input channel, (in,) int64. Of a norm or PReLU, equal to outputs.
        outputs: class of each output channel, (out,) int64.
        kind: "conv", "transposed", "linear", "depthwise" (each output made from one input), "norm",
            "prelu" or "fixed" (never pruned).
        pair_macs: true multiply-accumulates between one input and one output channel of the same group
            (kernel area times places where the kernel is applied, over all uses); 0 for norms and PReLU.
        groups: of a convolution that is not depthwise. The same places of all groups are of one class.
    """

    name: str
    inputs: np.ndarray
    outputs: np.ndarray
    kind: str
    pair_macs: int
    groups: int = 1

    @property
    def kernel_inputs(self) -> np.ndarray:
        """Class of each place along the weight's input axis: fewer than `inputs` in a grouped convolution."""
        return self.inputs if self.kind == "transposed" else self.inputs[: len(self.inputs) // self.groups]

    @property
    def kernel_outputs(self) -> np.ndarray:
        """The same along its output axis: fewer than `outputs` in a grouped transposed convolution."""
        return self.outputs[: len(self.outputs) // self.groups] if self.kind == "transposed" else self.outputs


@dataclass(frozen=True)
class WrittenSizes:
    """A step in which numbers of channels are written; see `compressor.tracing.identities.Written`.

    Attributes:
        kind: "slice" or "size".
        position: of a slice, its place in the index; of a size, the axis.
        parts: classes before, in and after a slice; classes along the axis of a size.
    """

    kind: str
    position: int
    parts: tuple[np.ndarray, ...]

    def numbers(self, keep: np.ndarray) -> tuple[int, ...]:
        """What `compressor.surgery.resize` writes: (position, start, stop) or (axis, size)."""
        kept = [int(keep[part].sum()) for part in self.parts[:2]]
        return (self.position, kept[0], sum(kept)) if self.kind == "slice" else (self.position, kept[0])


@dataclass(frozen=True)
class ChannelGraph:
    """All layers of a network with their channel classes.

    Attributes:
        layers: by module name, in the order of execution.
        splits: of each channel split, by node name, the classes of each part.
        prunable: (classes,) bool; False for channels of the picture itself and of steps that
            cannot be pruned.
        groups: (classes,) int64; classes with equal numbers are made and read by the same layers,
            and form one latent vector.
        kept_whole: (name, reason) of every step whose channels could not be followed.
        written: slices, views and parameters with numbers of channels in them, by node name.
        parameters: parameters and buffers that the forward uses itself, by name: the axis of their
            channels, and their classes.
        counted: names of those `splits` and `written` whose numbers are computed from a tensor's channels.
        other_macs: true multiply-accumulates of all that is not among the layers, which nothing changes.
    """

    layers: dict[str, LayerChannels]
    splits: dict[str, tuple[np.ndarray, ...]]
    prunable: np.ndarray
    groups: np.ndarray
    kept_whole: tuple[tuple[str, str], ...]
    written: dict[str, WrittenSizes] = field(default_factory=dict)
    parameters: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)
    other_macs: int = 0
    counted: frozenset[str] = frozenset()

    @property
    def classes(self) -> int:
        """The number of channel classes."""
        return len(self.prunable)

    @property
    def layer_macs(self) -> int:
        """True multiply-accumulates of all layers, unpruned."""
        return sum(
            layer.pair_macs * len(layer.outputs) * (len(layer.inputs) // layer.groups)
            for layer in self.layers.values()
        )

    @functools.cached_property
    def channels_each(self) -> np.ndarray:
        """(classes,) how many channels a class is, in the layer where it is fewest: more than 1 where
        channels are tied to each other, as those of a convolution's groups are."""
        fewest = np.full(self.classes, np.iinfo(np.int64).max)
        for layer in self.layers.values():
            for ids in (layer.inputs, layer.outputs):
                found = np.bincount(ids, minlength=self.classes)
                fewest = np.where(found > 0, np.minimum(fewest, found), fewest)
        return np.where(fewest == np.iinfo(np.int64).max, 1, fewest)

    def convolutions(self) -> list[LayerChannels]:
        """The layers with kernels, in the order of execution."""
        return [layer for layer in self.layers.values() if layer.kind not in ("norm", "prelu")]


def trace(module: nn.Module, input_shape: Sequence[int]) -> ChannelGraph:
    """Follow every channel of a network.

    Args:
        module: the network; not changed and not run on real data.
        input_shape: (1, C, H, W).

    Raises:
        PocketganError: the network's forward cannot be traced, or refuses this input shape.
    """
    try:
        traced = symbolic(copy.deepcopy(module).to("meta").eval())
    except Exception as error:
        raise PocketganError(
            "the network's forward cannot be traced",
            got=f"{type(error).__name__}: {error}",
            fix="make its forward free of if and for that depend on tensor values (torch.fx)",
        ) from error
    walker = Walker(traced, module.state_dict().keys())
    try:
        with torch.no_grad():
            dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
            walker.run(torch.empty(tuple(input_shape), device="meta", dtype=dtype))
    except PocketganError:
        raise
    except Exception as error:
        raise PocketganError(
            f"the network does not take an input of shape {tuple(input_shape)}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            fix="give another --size",
        ) from error
    for names in _sharing(module):
        for name in names & walker.layers.keys():
            walker.keep_layer(name, f"shares weights with {', '.join(sorted(names - {name}))}")
    walker.finish()
    graph = _numbered(walker)
    if not walker.unfollowed:
        return graph
    return replace(graph, other_macs=count(module, input_shape).macs - graph.layer_macs)


def _sharing(module: nn.Module) -> list[set[str]]:
    """Modules that hold one and the same parameter."""
    holders: dict[int, set[str]] = {}
    for path, part in module.named_modules():
        for parameter in part.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(path)
    return [names for names in holders.values() if len(names) > 1]


def _numbered(walker: Walker) -> ChannelGraph:
    """Number the classes that remain, and group them by the layers that make and read them."""
    channels: Channels = walker.channels
    roots = channels.roots()
    unique, numbers = np.unique(roots, return_inverse=True)
    prunable = np.ones(len(unique), bool)
    prunable[numbers[np.array(sorted(channels.frozen), dtype=np.int64)]] = False

    layers = {}
    users: list[set[str]] = [set() for _ in unique]
    for name, use in walker.layers.items():
        layer = LayerChannels(
            name, numbers[use.inputs], numbers[use.outputs], use.kind, use.pair_macs, use.groups
        )
        layers[name] = layer
        for role, classes in (("in", layer.inputs), ("out", layer.outputs)):
            for index in set(classes.tolist()):
                users[index].add(f"{role}:{name}")
    splits = {name: tuple(numbers[part] for part in parts) for name, parts in walker.splits.items()}
    written = {
        name: WrittenSizes(step.kind, step.position, tuple(numbers[part] for part in step.parts))
        for name, step in walker.written.items()
    }
    # Each part of a cut is a vector of its own, so that none of them becomes empty.
    for name, parts in (*splits.items(), *((name, step.parts) for name, step in written.items())):
        for place, part in enumerate(parts):
            for index in set(part.tolist()):
                users[index].add(f"part {place}:{name}")
    signatures: dict[tuple[str, ...], int] = {}
    groups = np.array(
        [signatures.setdefault(tuple(sorted(user)), len(signatures)) for user in users], np.int64
    )
    made = {index for layer in layers.values() for index in layer.outputs.tolist()}
    prunable[[index for index in range(len(unique)) if index not in made]] = False
    parameters = {name: (known.axis, numbers[known.ids]) for name, known in walker.parameters.items()}
    written |= {
        walker.reads[name].name: WrittenSizes("size", axis, (classes,))
        for name, (axis, classes) in parameters.items()
    }
    kept_whole = tuple(walker.kept_whole.items())
    return ChannelGraph(
        layers, splits, prunable, groups, kept_whole, written, parameters, 0, frozenset(walker.counted)
    )
