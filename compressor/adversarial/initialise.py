"""Starting from nothing: weights of networks, and of the hypernetwork that makes a generator's weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from compressor.coronet.hypernet import EMBEDDING, HyperNetwork
from compressor.graph import ChannelGraph

SPREAD = 0.02  # standard deviation of fresh weights (DCGAN, Pix2Pix, CycleGAN)


@torch.no_grad()
def initialise(module: nn.Module, seed: int) -> nn.Module:
    """Fresh weights, in place: kernels N(0, 0.02), norms' scales N(1, 0.02), biases 0."""
    draw = torch.Generator().manual_seed(seed)

    def normal(parameter: torch.Tensor, mean: float) -> None:
        parameter.copy_(mean + SPREAD * torch.randn(parameter.shape, generator=draw))

    for part in module.modules():
        weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            normal(part.weight, 0.0)
        elif isinstance(part, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            part.reset_running_stats()
            if weight is not None:
                normal(weight, 1.0)
        else:
            continue
        if bias is not None:
            bias.zero_()
    return module


@torch.no_grad()
def initialise_hypernetwork(hyper: HyperNetwork, graph: ChannelGraph, seed: int) -> None:
    """The published start (DHP, Li et al. 2020, section 3.4), in place, for any form.

    z ~ N(0, 1); w1 ~ U(+-sqrt 3); W2 ~ U(+-sqrt(3 / (m c k^2))); all biases 0. Kernels then have
    variance 1 / (c k^2). The collapsed and gated forms start at A = W2 w1, the same functions. In these
    two, entries that are never pruned start at 1: they only scale, and near zero would silence a
    colour of the picture for long.

    Args:
        hyper: the hypernetwork, with trainable kernels of any value.
        graph: the channel classes it was built on.
        seed: of everything drawn.
    """
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(graph.classes, generator=draw)
    if hyper.form != "dhp":
        latent[~torch.from_numpy(graph.prunable)] = 1.0
    hyper.latent.copy_(latent)
    part: Any
    for part in hyper.parts.values():
        kernels = part.explicit_bias if hyper.form == "dhp" else part.slope  # (out, in, k*k)
        outputs, inputs, area = kernels.shape
        embed = _uniform((outputs, inputs, EMBEDDING), math.sqrt(3.0), draw)
        bound = math.sqrt(3.0 / (EMBEDDING * inputs * area))
        explicit = _uniform((outputs, inputs, area, EMBEDDING), bound, draw)
        for parameter in part.parameters():
            parameter.zero_()
        if hyper.form == "dhp":
            part.embed.copy_(embed)
            part.explicit.copy_(explicit)
        else:
            part.slope.copy_(torch.einsum("oikm,oim->oik", explicit, embed))


def _uniform(shape: tuple[int, ...], bound: float, draw: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=draw) * 2 - 1) * bound
