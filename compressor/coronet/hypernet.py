"""Hypernetworks: every convolution's weights made from the latent vectors of its channels.

For input channel i and output channel j of a convolution with kernel size k (DHP, Li et al. 2020,
eq. 3 to 5, embedding size m = 8):

    dhp        Z = z_i z_j + b0;  E = Z w1 + b1;  O = W2 E + b2          b0 scalar, w1 b1 (m), W2 (k*k, m)
    collapsed  O = z_i z_j A + C        the same functions, since no nonlinearity stands between;  A, C (k*k)
    gated      O = z_i z_j A            so that a latent entry at zero silences its channel exactly

A depthwise convolution is made from its channel's own entry: z_i = 1. A linear layer is a convolution with
k = 1; a grouped convolution has one entry for the same place of all its groups.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.graph import ChannelGraph
from compressor.surgery import KERNELS

FORMS = ("gated", "collapsed", "dhp")
EMBEDDING = 8


class HyperNetwork(nn.Module):
    """The latent entries, one per channel class, and what turns them into weights.

    Args:
        module: the network whose weights it reproduces exactly at the start.
        graph: its channel classes.
        latent: (classes,) starting value of each entry, not zero; divided out of the rest.
        form: one of `FORMS`.
        seed: of the published form's random embedding.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: ChannelGraph,
        latent: np.ndarray,
        form: str = "gated",
        seed: int = 0,
    ):
        super().__init__()
        self.form = form
        self.latent = nn.Parameter(torch.tensor(latent, dtype=torch.float32))
        self.convolutions = [layer.name for layer in graph.convolutions() if layer.kind != "fixed"]
        self._transposed: dict[str, bool] = {}
        self._depthwise: dict[str, bool] = {}
        self.parts = nn.ModuleDict()
        generator = torch.Generator().manual_seed(seed)
        for index, name in enumerate(self.convolutions):
            layer, convolution = graph.layers[name], module.get_submodule(name)
            assert isinstance(convolution, KERNELS)
            self._transposed[name] = layer.kind == "transposed"
            self._depthwise[name] = layer.kind == "depthwise"
            self.register_buffer(f"inputs{index}", torch.from_numpy(layer.kernel_inputs), persistent=False)
            self.register_buffer(f"outputs{index}", torch.from_numpy(layer.kernel_outputs), persistent=False)
            weight = convolution.weight.detach()
            pairs = self._pairs(index, name).detach()
            kernels = self._to_pairs(name, weight) / pairs[..., None]  # (out, in, k*k)
            self.parts[str(index)] = _FORMS[form](kernels, generator)
        self._shapes = {
            name: tuple(module.get_parameter(f"{name}.weight").shape) for name in self.convolutions
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """The weight of every convolution by parameter name, in the shapes PyTorch wants."""
        made = {}
        for index, name in enumerate(self.convolutions):
            kernels = self.parts[str(index)](self._pairs(index, name))
            if self._transposed[name]:
                kernels = kernels.transpose(0, 1)
            made[f"{name}.weight"] = kernels.reshape(self._shapes[name])
        return made

    def _pairs(self, index: int, name: str) -> torch.Tensor:
        """z_out z_in^T, (out, in); (channels, 1) of a depthwise convolution."""
        made = self.latent[getattr(self, f"outputs{index}")][:, None]
        if self._depthwise[name]:
            return made
        return made * self.latent[getattr(self, f"inputs{index}")][None, :]

    def _to_pairs(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A weight as (out, in, k*k), of one group where there are several; a linear layer's with k = 1."""
        if self._depthwise[name]:
            return weight.reshape(weight.shape[0] * weight.shape[1], 1, -1)
        kernels = weight.transpose(0, 1) if self._transposed[name] else weight
        return kernels.reshape(*kernels.shape[:2], -1)


class _Gated(nn.Module):
    def __init__(self, kernels: torch.Tensor, generator: torch.Generator):
        super().__init__()
        self.slope = nn.Parameter(kernels.clone())

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return pairs[..., None] * self.slope


class _Collapsed(_Gated):
    def __init__(self, kernels: torch.Tensor, generator: torch.Generator):
        super().__init__(kernels, generator)
        self.offset = nn.Parameter(torch.zeros_like(kernels))

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.offset, pairs[..., None], self.slope)


class _Published(nn.Module):
    """Latent, embedding and explicit layer; W2 = A w1^T / |w1|^2 reproduces any kernel A exactly."""

    def __init__(self, kernels: torch.Tensor, generator: torch.Generator):
        super().__init__()
        pairs = kernels.shape[:2]
        embed = torch.rand((*pairs, EMBEDDING), generator=generator).to(kernels) * 2 - 1
        embed *= math.sqrt(3.0)
        self.latent_bias = nn.Parameter(torch.zeros(pairs, device=kernels.device))
        self.embed = nn.Parameter(embed)
        self.embed_bias = nn.Parameter(torch.zeros_like(embed))
        unit = embed / embed.square().sum(2, keepdim=True)
        self.explicit = nn.Parameter(kernels[..., :, None] * unit[..., None, :])  # (out, in, k*k, m)
        self.explicit_bias = nn.Parameter(torch.zeros_like(kernels))

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        latent = pairs + self.latent_bias
        embedding = latent[..., None] * self.embed + self.embed_bias
        return _Contract.apply(self.explicit, embedding) + self.explicit_bias


class _Contract(torch.autograd.Function):
    """W2 E for every pair of channels: (out, in, k*k, m), (out, in, m) -> (out, in, k*k).

    PyTorch's own gradient of W2 is a product of matrices for each pair, all of them tiny: half as fast
    as the outer product that it amounts to.
    """

    @staticmethod
    def forward(ctx: Any, explicit: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(explicit, embedding)
        return torch.einsum("oikm,oim->oik", explicit, embedding)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        explicit, embedding = ctx.saved_tensors
        by_explicit = gradient[..., :, None] * embedding[..., None, :]
        return by_explicit, torch.einsum("oik,oikm->oim", gradient, explicit)


_FORMS = {"gated": _Gated, "collapsed": _Collapsed, "dhp": _Published}
