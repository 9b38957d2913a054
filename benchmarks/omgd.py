"""Online distillation after OMGD (Ren et al., ICCV 2021), to measure what it costs beside CoroNet.

A full-width teacher is trained against a discriminator. In the same step a narrow student learns from the
teacher's picture of that step and sees no discriminator:

    10 (1 - SSIM) + 1e4 Gram + 10 feature + 1e-5 total variation + channel distillation

Where the published scheme costs more than what is measured here:
    - one teacher, the wide one; published is a second, deeper one;
    - VGG19's first three blocks (to relu3_4) instead of VGG16's first four, about 0.8 of the work;
    - the teacher paints each picture once, for its own update and for the student;
    - connectors (1x1 convolutions) act on channel means, which gives what the mean of their result gives.
It is written to be timed: the balance of the terms depends on the scale of VGG's features, and is not tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from compressor.coronet.pix2pix import NAME, Pix2PixGame
from compressor.generators import Generator
from compressor.surgery import CONVOLUTIONS
from compressor.training.loop import train_mode
from compressor.training.losses import Distance

SSIM, GRAM, FEATURE, VARIATION = 10.0, 1e4, 10.0, 1e-5  # weights, as published
CHANNEL = 1.0  # our choice; costs nothing
TAPS = 4  # layers whose channels are compared
_WINDOW, _SIGMA = 11, 1.5  # of SSIM (Wang et al. 2004)


class OnlineDistillation:
    """Teacher and student, trained together on the pictures of a Pix2Pix game.

    Args:
        game: pictures, discriminator and losses of the teacher; also its discriminator's update.
        teacher: full width, trained from its weights of now.
        student: the same architecture, narrower.
        vgg: VGG19's weights, as `compressor.training.losses.Distance` takes them.
        rate: Adam's, for both; beta1 0.5.
    """

    def __init__(
        self,
        game: Pix2PixGame,
        teacher: Generator,
        student: Generator,
        vgg: Path,
        rate: float,
        device: torch.device,
    ):
        self.game, self.rate, self.device = game, rate, device
        self.teacher = train_mode(teacher.module.to(device)).requires_grad_(True)
        self.student = train_mode(student.module.to(device)).requires_grad_(True)
        image = student.spec.image
        self.low, self.span = image.output_range[0], image.output_range[1] - image.output_range[0]
        features = Distance(image, vgg).features
        assert features is not None
        self.features = features.to(device)
        self.seen = {"teacher": _Taps(self.teacher), "student": _Taps(self.student)}
        self.connectors = nn.ModuleList(
            nn.Conv2d(ours, theirs, 1)
            for ours, theirs in zip(self.seen["student"].widths, self.seen["teacher"].widths, strict=True)
        ).to(device)
        self.teachers = torch.optim.Adam(self.teacher.parameters(), rate, (0.5, 0.999), fused=True)
        students = [*self.student.parameters(), *self.connectors.parameters()]
        self.students = torch.optim.Adam(students, rate, (0.5, 0.999), fused=True)
        self.shown: tuple[torch.Tensor, torch.Tensor]

    def step(self, number: int) -> dict[str, float]:
        """One update of discriminator and teacher, and one of the student."""
        figures = self.game.update({NAME: self._paint}, self.teachers, number, self.rate)
        given, wanted = self.shown
        loss = self.distance(self.student(given), wanted)
        self.students.zero_grad(set_to_none=True)
        loss.backward()
        self.students.step()
        return {**figures, "student": loss.item()}

    def distance(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """The student's loss (a scalar) for its picture and the teacher's, both (N, C, H, W)."""
        ours, theirs = ((picture - self.low) / self.span for picture in (made, wanted))
        taps = self.features(ours)
        with torch.no_grad():
            goals = self.features(theirs)
        loss = SSIM * (1 - structural_similarity(ours, theirs)) + VARIATION * total_variation(made)
        for tap, goal in zip(taps, goals, strict=True):
            loss = loss + GRAM * F.mse_loss(gram(tap), gram(goal)) + FEATURE * F.l1_loss(tap, goal)
        return loss + CHANNEL * self._channels()

    def _paint(self, given: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.teacher(given)
        self.shown = given, made.detach()
        return made

    def _channels(self) -> torch.Tensor:
        """Mean square difference of the channels' means, after the connectors."""
        pairs = zip(self.connectors, self.seen["student"].means, self.seen["teacher"].means, strict=True)
        return torch.stack([F.mse_loss(connector(a), b.detach()) for connector, a, b in pairs]).mean()


class _Taps:
    """Channel means of some layers' results, of the latest forward pass: each (N, C, 1, 1)."""

    def __init__(self, module: nn.Module):
        layers = [part for part in module.modules() if isinstance(part, CONVOLUTIONS)][:-1]
        chosen = [layers[(2 * index + 1) * len(layers) // (2 * TAPS)] for index in range(TAPS)]
        self.widths = [layer.out_channels for layer in chosen]
        self.means: list[torch.Tensor] = [torch.empty(0)] * TAPS
        for index, layer in enumerate(chosen):
            layer.register_forward_hook(self._keep(index))

    def _keep(self, index: int) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def hook(layer: nn.Module, given: object, made: torch.Tensor) -> None:
            self.means[index] = made.mean((2, 3), keepdim=True)

        return hook


def structural_similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """SSIM of two batches (N, C, H, W) in [0, 1], mean over all windows inside: a scalar with gradients."""
    channels = a.shape[1]
    place = torch.arange(_WINDOW, device=a.device, dtype=a.dtype) - _WINDOW // 2
    line = torch.exp(-(place**2) / (2 * _SIGMA**2))
    line = line / line.sum()
    window = torch.outer(line, line).expand(channels, 1, -1, -1)

    def blur(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(values, window, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def gram(features: torch.Tensor) -> torch.Tensor:
    """Products of channels, (N, C, H, W) -> (N, C, C), over C H W (Johnson et al. 2016)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


def total_variation(picture: torch.Tensor) -> torch.Tensor:
    """Sum of absolute differences of neighbours of a batch (N, C, H, W), over N: a scalar."""
    down, right = picture.diff(dim=2).abs().sum(), picture.diff(dim=3).abs().sum()
    return (down + right) / len(picture)
