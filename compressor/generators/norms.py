"""The normalisation layers of the generators users bring."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from compressor.errors import PocketganError

NORMS = ("instance", "batch", "none")
STATISTICS = ("image", "running")
BATCH_NOTE = (
    "batch norm uses each image's own statistics, as upstream's test code does at batch 1; the checkpoint's "
    "running averages are taken with statistics running"
)


def normalisation(norm: str, channels: int, statistics: str = "image") -> list[nn.Module]:
    """The norm layer as a list of zero or one modules.

    "instance" has no parameters, as in CycleGAN. "batch" has the affine of a BatchNorm; CycleGAN's and
    Pix2Pix's own test code leaves such generators in training mode, with one image a batch, so with
    `statistics` "image" each image is normalised by its own mean and biased variance, which is what
    batch statistics are at batch 1 (and the layer is then an instance norm with that affine, the same
    in train and eval mode). "running" uses the averages the checkpoint holds, as eval mode would.

    Raises:
        PocketganError: a name is not known.
    """
    match norm, statistics:
        case "instance", ("image" | "running"):
            return [nn.InstanceNorm2d(channels)]
        case "batch", "image":
            return [nn.InstanceNorm2d(channels, affine=True)]
        case "batch", "running":
            return [nn.BatchNorm2d(channels)]
        case "none", ("image" | "running"):
            return []
    if norm not in NORMS:
        raise PocketganError("no such normalisation", got=norm, allowed=", ".join(NORMS))
    raise PocketganError("no such kind of statistics", got=statistics, allowed=", ".join(STATISTICS))


def infer_norm(shapes: Mapping[str, tuple[int, ...]], norm_key: str, conv_key: str) -> tuple[str, bool]:
    """(norm, whether convolutions have a bias) from the keys of one norm layer and the convolution before it.

    Norm parameters mean "batch" (an affine instance norm is the same thing with `statistics` "image").
    Without them, upstream gives a bias to convolutions under instance norm only.
    """
    bias = f"{conv_key}.bias" in shapes
    if f"{norm_key}.weight" in shapes:
        return "batch", bias
    return ("instance" if bias else "none"), bias
