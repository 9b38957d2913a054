"""The learning rate of Pix2Pix and CycleGAN: constant, then linear to zero."""

from __future__ import annotations


def linear(epoch: int, constant: int, decay: int, peak: float) -> float:
    """Learning rate of an epoch, counted from 0.

    `peak` for `constant` epochs; then it falls by peak / (decay + 1) an epoch and would be zero in the
    epoch after the last (as upstream computes it).
    """
    return peak * (1 - max(0, epoch + 1 - constant) / (decay + 1))
