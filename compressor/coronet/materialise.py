"""From latent entries to a small network with plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from compressor.generators.spec import GeneratorSpec
from compressor.graph import ChannelGraph


def shrink_spec(spec: GeneratorSpec, graph: ChannelGraph, keep: np.ndarray) -> GeneratorSpec:
    """The architecture that remains when only the classes where `keep` (classes,) is true stay."""
    widths, splits = dict(spec.widths), dict(spec.splits)
    for layer in graph.layers.values():
        inputs, outputs = int(keep[layer.inputs].sum()), int(keep[layer.outputs].sum())
        if (inputs, outputs) != (len(layer.inputs), len(layer.outputs)):
            widths[layer.name] = (inputs, outputs)
    for name, parts in graph.splits.items():
        sizes = tuple(int(keep[part].sum()) for part in parts)
        if sizes != tuple(map(len, parts)):
            splits[name] = sizes
    return replace(spec, widths=widths, splits=splits)


def shrink_state(
    state: Mapping[str, torch.Tensor], module: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> dict[str, torch.Tensor]:
    """The kept slices of every parameter and buffer.

    Args:
        state: the full network's state, with the convolutions' weights made by the hypernetwork.
        module: the full network.
    """
    small = {name: value.detach().clone() for name, value in state.items()}
    for layer in graph.layers.values():
        if layer.kind == "fixed":
            continue
        outputs = torch.from_numpy(np.flatnonzero(keep[layer.outputs]))
        inputs = torch.from_numpy(np.flatnonzero(keep[layer.inputs]))
        for name, value in {
            **dict(module.get_submodule(layer.name).named_parameters(recurse=False)),
            **dict(module.get_submodule(layer.name).named_buffers(recurse=False)),
        }.items():
            key = f"{layer.name}.{name}"
            if key not in small or value.dim() == 0:
                continue
            axis = 1 if layer.kind == "transposed" and value.dim() == 4 else 0
            small[key] = small[key].index_select(axis, outputs.to(value.device))
            if layer.kind in ("conv", "transposed") and value.dim() == 4:
                small[key] = small[key].index_select(1 - axis, inputs.to(value.device))
    return small


def silence(
    weights: Mapping[str, torch.Tensor], graph: ChannelGraph, keep: np.ndarray
) -> dict[str, torch.Tensor]:
    """The hypernetwork's weights with every kernel that reads or makes a removed channel at zero.

    The full network with these weights computes what the materialised one computes, as long as
    biases and affine norms of removed channels are read by no one, which zero kernels ensure.
    """
    masked = dict(weights)
    for layer in graph.convolutions():
        key = f"{layer.name}.weight"
        if key not in masked:
            continue
        outputs = torch.from_numpy(keep[layer.outputs]).to(masked[key])
        inputs = torch.from_numpy(keep[layer.inputs]).to(masked[key])
        if layer.kind == "depthwise":
            masked[key] = masked[key] * outputs[:, None, None, None]
        else:
            pairs = inputs[:, None] * outputs if layer.kind == "transposed" else outputs[:, None] * inputs
            masked[key] = masked[key] * pairs[..., None, None]
    return masked
