"""From latent entries to a small network with plain weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from compressor.generators.spec import GeneratorSpec
from compressor.graph import KERNEL_KINDS, ChannelGraph


def shrink_spec(spec: GeneratorSpec, graph: ChannelGraph, keep: np.ndarray) -> GeneratorSpec:
    """The architecture that remains when only the classes where `keep` (classes,) is true stay."""
    widths, splits = dict(spec.widths), dict(spec.splits)
    for layer in graph.layers.values():
        inputs, outputs = int(keep[layer.inputs].sum()), int(keep[layer.outputs].sum())
        if (inputs, outputs) != (len(layer.inputs), len(layer.outputs)):
            widths[layer.name] = (inputs, outputs)
    counted = frozenset() if keep.all() else graph.counted
    for name, parts in graph.splits.items():
        if name in counted or not all(keep[part].all() for part in parts):
            splits[name] = tuple(int(keep[part].sum()) for part in parts)
    for name, step in graph.written.items():
        if name in counted or not all(keep[part].all() for part in step.parts):
            before = splits.get(name, ()) if step.kind == "size" else ()
            axes = dict(zip(before[::2], before[1::2], strict=True))  # pruned before, along another axis
            axis, *numbers = step.numbers(keep)
            splits[name] = (axis, *numbers, *(n for pair in axes.items() if pair[0] != axis for n in pair))
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
        for name, value in {
            **dict(module.get_submodule(layer.name).named_parameters(recurse=False)),
            **dict(module.get_submodule(layer.name).named_buffers(recurse=False)),
        }.items():
            key = f"{layer.name}.{name}"
            if key not in small or value.dim() == 0:
                continue
            if name == "weight" and layer.kind in KERNEL_KINDS:
                axis = 1 if layer.kind == "transposed" else 0
                small[key] = _cut(small[key], axis, keep[layer.kernel_outputs])
                small[key] = _cut(small[key], 1 - axis, keep[layer.kernel_inputs])
            elif name == "weight" and layer.kind == "depthwise" and len(value) == len(layer.inputs):
                small[key] = _cut(small[key], 0, keep[layer.inputs])
            else:
                small[key] = _cut(small[key], 0, keep[layer.outputs])
    for name, (axis, classes) in graph.parameters.items():
        small[name] = _cut(small[name], axis, keep[classes])
    return _shared(small, module)


def _cut(value: torch.Tensor, axis: int, kept: np.ndarray) -> torch.Tensor:
    return value.index_select(axis, torch.from_numpy(np.flatnonzero(kept)).to(value.device))


def _shared(small: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """The same for a module that stands under several names, of which the graph knows the first."""
    first = {id(part): name for name, part in module.named_modules()}
    for name, part in module.named_modules(remove_duplicate=False):
        if first[id(part)] != name:
            for key in part.state_dict():
                small[f"{name}.{key}"] = small[f"{first[id(part)]}.{key}"]
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
        weight = masked[key]
        if layer.kind == "depthwise":
            kept = keep[layer.outputs].reshape(weight.shape[:2])
        elif layer.kind == "transposed":
            kept = keep[layer.kernel_inputs][:, None] * keep[layer.kernel_outputs]
        else:
            kept = keep[layer.kernel_outputs][:, None] * keep[layer.kernel_inputs]
        mask = torch.from_numpy(kept).to(weight)
        masked[key] = weight * mask.reshape(*mask.shape, *(1 for _ in weight.shape[2:]))
    return masked
