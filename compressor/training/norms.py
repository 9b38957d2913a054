"""Batch norm over the batch of all processes, so that several train as one would."""

from __future__ import annotations

import torch
from torch import nn

from compressor.launch import world
from compressor.training.ranks import SharedSum


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose batch statistics, in training, are those of all processes' slices together.

    The same arithmetic on CPU (gloo) and GPU (NCCL), where torch's SyncBatchNorm knows only the latter.
    Parameters and buffers have BatchNorm2d's names.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1] * world()
        mean = SharedSum.apply(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = SharedSum.apply(centred.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        made = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            made = made * self.weight[:, None, None] + self.bias[:, None, None]
        return made.to(x.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def share_statistics(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm2d by a `SharedBatchNorm2d` with its state; nothing with one process."""
    if world() == 1:
        return module
    for name, part in list(module.named_modules()):
        if type(part) is nn.BatchNorm2d:
            shared = SharedBatchNorm2d(
                part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats
            )
            shared.load_state_dict(part.state_dict())
            shared.to(next(iter(part.state_dict().values())).device).train(part.training)
            for ours, theirs in zip(shared.parameters(), part.parameters(), strict=True):
                ours.requires_grad_(theirs.requires_grad)
            if not name:
                return shared
            holder, _, own = name.rpartition(".")
            setattr(module.get_submodule(holder), own, shared)
    return module
