"""How far a student's picture is from its teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat
from compressor.options import LOSSES
from compressor.training.features import Features, feature_weights

_RELATIVE = ("relu1_2", "relu2_2", "relu3_4")  # of VGG19
_STYLE = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # of VGG16, as published
_CONTENT = 1  # the place of relu2_2 among them
_FEATURE = "conv5_4"  # of VGG19, before its ReLU


@dataclass(frozen=True)
class Weights:
    """How much each term counts; pixels are in units of white minus black.

    Attributes:
        pixel: L1 of the pictures.
        relative: L1 of three VGG19 layers (relu1_2, relu2_2, relu3_4), each relative to the teacher's mean
            activation (after Johnson et al. 2016).
        style: mean squared difference of VGG16's Gram matrices at relu1_2, relu2_2, relu3_3, relu4_3, summed.
        content: L1 of VGG16's relu2_2.
        feature: L1 of VGG19's conv5_4.
        total_variation: of the student's picture; the published method does not use it.
    """

    pixel: float = 1.0
    relative: float = 0.0
    style: float = 0.0
    content: float = 0.0
    feature: float = 0.0
    total_variation: float = 0.0


# AGD's weights: style and content with L1 1e-2 on [-1, 1], which is 2e-2 in our units; L1 1e-2 and VGG 1.
_WEIGHTS = {
    "pixel": Weights(),
    "relative": Weights(relative=0.1),
    "style": Weights(pixel=2e-2, style=1e5, content=1.0),
    "feature": Weights(pixel=1e-2, feature=1.0),
}
assert set(_WEIGHTS) == set(LOSSES)


class Distance(nn.Module):
    """A weighted sum of distances between two outputs; by default their L1 in units of white minus black.

    Args:
        image: the generator's format.
        perceptual: VGG weights, in Keras names or torchvision's; "vgg16" or "vgg19" downloads them; or None.
        loss: "pixel"; or, with `perceptual`, "relative", "style" (translation, as AGD has it) or "feature"
            (super resolution, as AGD has it); None: "relative" with weights, else "pixel".
        weights: instead of the named loss's.

    Attributes:
        features: the feature network in use, or None.
        notes: layers that took another's place, one sentence each.

    Raises:
        UsageError: the loss is not known, or needs feature weights.
        PocketganError: the weights cannot be read, or the pictures have no three channels.
    """

    def __init__(
        self,
        image: ImageFormat,
        perceptual: Path | str | None = None,
        loss: str | None = None,
        weights: Weights | None = None,
    ):
        super().__init__()
        self.low, self.span = image.output_range[0], image.output_range[1] - image.output_range[0]
        loss = loss or ("relative" if perceptual else "pixel")
        if loss not in _WEIGHTS:
            raise UsageError("there is no such loss", got=loss, allowed=", ".join(_WEIGHTS))
        self.weights = weights or _WEIGHTS[loss]
        self.features: Features | None = None
        self.notes: tuple[str, ...] = ()
        self.taps = _taps(self.weights)
        if not self.taps:
            return
        if perceptual is None:
            raise UsageError(
                f"the loss {loss!r} compares features, and there are no weights for them",
                fix="--perceptual FILE (VGG16 or VGG19), or --perceptual vgg16 to download torchvision's",
            )
        if image.channels[1] != 3:
            raise PocketganError("the feature loss needs 3 output channels", got=image.channels[1])
        # AGD gives VGG16 pictures in [0, 1] as they are, and VGG19 normalised ones.
        plain = self.weights.style > 0 or self.weights.content > 0
        self.features = Features(feature_weights(perceptual), self.taps, normalise=not plain)
        self.notes = tuple(
            f"{Path(perceptual).name} has no {asked}; {used} takes its place"
            for asked, used in zip(self.taps, self.features.taps, strict=True)
            if asked != used
        )

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Distance of two batches (N, C, H, W) in the output range; a scalar."""
        weights = self.weights
        distance = weights.pixel * F.l1_loss(student, teacher) / self.span
        ours, theirs = (student - self.low) / self.span, (teacher - self.low) / self.span
        if weights.total_variation:
            distance = distance + weights.total_variation * total_variation(ours)
        if self.features is None:
            return distance
        with torch.no_grad():
            wanted = dict(zip(self.taps, self.features(theirs), strict=True))
        made = dict(zip(self.taps, self.features(ours), strict=True))
        if weights.relative:
            pairs = [(made[tap], wanted[tap]) for tap in _RELATIVE]
            relative = [F.l1_loss(a, b) / (b.abs().mean() + 1e-6) for a, b in pairs]
            distance = distance + weights.relative * torch.stack(relative).mean()
        if weights.style:
            style = [F.mse_loss(gram(made[tap]), gram(wanted[tap])) for tap in _STYLE]
            distance = distance + weights.style * torch.stack(style).sum()
        if weights.content:
            tap = _STYLE[_CONTENT]
            distance = distance + weights.content * F.l1_loss(made[tap], wanted[tap])
        if weights.feature:
            distance = distance + weights.feature * F.l1_loss(made[_FEATURE], wanted[_FEATURE])
        return distance


def gram(features: torch.Tensor) -> torch.Tensor:
    """Gram matrices (N, C, C) of features (N, C, H, W), divided by C * H * W."""
    count, channels, height, width = features.shape
    flat = features.reshape(count, channels, height * width).float()
    return flat @ flat.transpose(1, 2) / (channels * height * width)


def total_variation(pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours (N, C, H, W), down plus across; of a ramp, its slope."""
    down = (pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean()
    return down + (pictures[:, :, :, 1:] - pictures[:, :, :, :-1]).abs().mean()


def _taps(weights: Weights) -> list[str]:
    """The layers that some weights need."""
    wanted = list(_RELATIVE) * bool(weights.relative)
    wanted += list(_STYLE) * bool(weights.style) + [_STYLE[_CONTENT]] * bool(weights.content)
    return list(dict.fromkeys(wanted + [_FEATURE] * bool(weights.feature)))
