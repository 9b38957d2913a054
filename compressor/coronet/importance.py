"""How much each channel matters to the picture, measured before pruning starts.

A channel class is scaled by 1 - e wherever a convolution reads it; the picture then moves by
e |J_i| to first order, J_i the derivative of the output with respect to the class's gate.
|J_i|^2 is estimated without labels from random projections: E[(v . J_i)^2] = |J_i|^2 for
v ~ N(0, 1) (Hutchinson 1990). Unlike a gradient of the training loss, it does not vanish where
student and teacher are equal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from compressor.graph import KERNEL_KINDS, ChannelGraph


def sensitivity(
    module: nn.Module,
    graph: ChannelGraph,
    batch: Callable[[int], torch.Tensor],
    *,
    probes: int = 16,
    seed: int = 0,
) -> np.ndarray:
    """Root mean square of the change of the output for each channel class.

    Args:
        module: the trained network, in eval mode.
        graph: its channel classes.
        batch: input pictures (N, C, H, W) by number.
        probes: random projections; the estimate's relative error is about sqrt(2 / probes).

    Returns:
        (classes,) float64, >= 0, in output units.
    """
    device = next(module.parameters()).device
    gates = torch.ones(graph.classes, device=device, requires_grad=True)
    readers = [layer for layer in graph.convolutions() if layer.kind in KERNEL_KINDS]
    total = torch.zeros(graph.classes, dtype=torch.float64, device=device)
    generator = torch.Generator().manual_seed(seed)
    for probe in range(probes):
        weights = {}
        for layer in readers:
            weight = module.get_parameter(f"{layer.name}.weight").detach()
            gate = gates[torch.from_numpy(layer.kernel_inputs).to(device)]
            shape = [1] * weight.dim()
            shape[0 if layer.kind == "transposed" else 1] = -1
            weights[f"{layer.name}.weight"] = weight * gate.view(shape)
        # Tied weights: one module under two names would be left with these weights (torch 2.13).
        output = torch.func.functional_call(module, weights, (batch(probe).to(device),), tie_weights=False)
        direction = torch.randn(output.shape, generator=generator).to(device)
        (gradient,) = torch.autograd.grad((output * direction).sum(), gates)
        total += gradient.double() ** 2 / output.numel()
    return np.sqrt(total.cpu().numpy() / probes)


def starting_latent(importance: np.ndarray, saving: np.ndarray, prunable: np.ndarray) -> np.ndarray:
    """Latent entries in [0.5, 1.5], in order of importance for what they cost.

    Removing a set of classes changes the picture by about the root of the sum of importance^2;
    the best set for a budget is therefore taken in order of importance^2 / saving.

    Args:
        importance: (classes,) from `sensitivity`.
        saving: (classes,) what removing each class saves, in the budget's metric.
        prunable: (classes,) bool; the others get 1.
    """
    value = importance[prunable] ** 2 / np.maximum(saving[prunable], 1.0)
    ranks = np.empty(len(value))
    ranks[np.argsort(value, kind="stable")] = np.arange(len(value))
    latent = np.ones(len(importance))
    latent[prunable] = 0.5 + ranks / max(1, len(value) - 1)
    return latent
