"""Quantisation-aware training: a student on its way through INT8's rounding.

Not torch.ao, which PyTorch is retiring and whose observers and fusions are not what our files compute:
training rounds where `exporters` rounds, over the same grids (`compressor.quantisation.rounding`).
Ranges are learned rather than followed by a moving average of extremes: they decide between clipping and
coarseness, which the loss knows and extremes do not, and the files take a pair of bounds as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.generators import Generator
from compressor.quantisation.fake import FakeQuantised
from compressor.quantisation.start import Start, begin, find_sites
from compressor.training import ranks

_PICTURES = 16  # crops that the first ranges are measured on


@dataclass(frozen=True)
class Quantised:
    """What is known of a quantisation-aware training.

    Attributes:
        network: that is trained.
        kept: convolutions that stay float.
        start: where its ranges began.
    """

    network: FakeQuantised
    kept: tuple[str, ...]
    start: Start

    def document(self) -> dict[str, Any]:
        """What distill.json keeps of it."""
        grown = self.network.growth.detach().exp()
        return {
            "layers": [place.name for place in self.network.places],
            "float_layers": list(self.kept),
            "ranges_began_by": self.start.method,
            "psnr_to_float_at_start": self.start.psnr,
            "ranges_grew": {"least": float(grown.min()), "most": float(grown.max())},
        }


def quantisation_aware(
    student: Generator, module: nn.Module, lesson: Callable[[int], torch.Tensor], device: torch.device
) -> Quantised:
    """Put INT8's rounding into a copy of the student.

    Batch norms keep their running statistics from the start: in the files they are part of the
    convolution before them, whose result is rounded as it stands (Krishnamoorthi 2018, section 3.2.2).

    Args:
        student: as it was given, on the CPU.
        module: the copy to train, on the device.
        lesson: the inputs of a step, (batch, C, H, W); the first ones measure the ranges.
        device: where it trains.

    Raises:
        PocketganError: the network cannot be traced, or has nothing to quantise.
    """
    image = student.spec.image
    places, kept = find_sites(student.module, torch.zeros(image.input_shape))
    module.eval()

    def measured() -> Start:
        pictures: list[torch.Tensor] = []
        while len(pictures) < _PICTURES:
            pictures += lesson(len(pictures)).to(device).split(1)
        return begin(module, places, pictures[:_PICTURES], image.output_range)

    start = ranks.on_leader(measured)
    return Quantised(start.network(module, places), tuple(kept), start)
