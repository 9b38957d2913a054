"""Which channels of a network belong together.

The network is traced (torch.fx) and walked once with, for every tensor, the identity of each of
its channels. A convolution makes new channels; a sum makes two channels one; a concatenation, a
split or a pixel shuffle rearranges them. What remains are classes of channels that can only be
removed together, from every layer that makes or reads them. This is what shared latent vectors
(DHP, Li et al. 2020, section 3.3) mean, found for any network instead of written down for each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from compressor.channels import Channels, Walker
from compressor.errors import PocketganError


@dataclass(frozen=True)
class LayerChannels:
    """The channel classes of one layer.

    Attributes:
        name: module name.
        inputs: class of each input channel, (in,) int64. Of a norm or PReLU, equal to outputs.
        outputs: class of each output channel, (out,) int64.
        kind: "conv", "transposed", "depthwise", "norm", "prelu" or "fixed".
        pair_macs: true multiply-accumulates between one input and one output channel (kernel
            area times places where the kernel is applied, over all uses); 0 for norms and PReLU.
    """

    name: str
    inputs: np.ndarray
    outputs: np.ndarray
    kind: str
    pair_macs: int


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
    """

    layers: dict[str, LayerChannels]
    splits: dict[str, tuple[np.ndarray, ...]]
    prunable: np.ndarray
    groups: np.ndarray
    kept_whole: tuple[tuple[str, str], ...]

    @property
    def classes(self) -> int:
        """The number of channel classes."""
        return len(self.prunable)

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
        clone = copy.deepcopy(module).to("meta").eval()
        # A network whose splits were resized is traced already, and its steps keep their names.
        traced = clone if isinstance(clone, fx.GraphModule) else fx.symbolic_trace(clone)
    except Exception as error:
        raise PocketganError(
            "the network's forward cannot be traced",
            got=f"{type(error).__name__}: {error}",
            fix="make its forward free of if and for that depend on tensor values (torch.fx)",
        ) from error
    walker = Walker(traced)
    try:
        with torch.no_grad():
            walker.run(torch.empty(tuple(input_shape), device="meta"))
    except PocketganError:
        raise
    except Exception as error:
        raise PocketganError(
            f"the network does not take an input of shape {tuple(input_shape)}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            fix="give another --size",
        ) from error
    return _numbered(walker)


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
        layer = LayerChannels(name, numbers[use.inputs], numbers[use.outputs], use.kind, use.pair_macs)
        layers[name] = layer
        for role, classes in (("in", layer.inputs), ("out", layer.outputs)):
            for index in set(classes.tolist()):
                users[index].add(f"{role}:{name}")
    signatures: dict[tuple[str, ...], int] = {}
    groups = np.array(
        [signatures.setdefault(tuple(sorted(user)), len(signatures)) for user in users], np.int64
    )
    made = {index for layer in layers.values() for index in layer.outputs.tolist()}
    prunable[[index for index in range(len(unique)) if index not in made]] = False
    splits = {name: tuple(numbers[part] for part in parts) for name, parts in walker.splits.items()}
    return ChannelGraph(layers, splits, prunable, groups, tuple(walker.kept_whole.items()))
