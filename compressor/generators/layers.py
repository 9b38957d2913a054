"""What several families share: normalisation, size-keeping convolutions, children named by position."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

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


def norm_slot(norm: str, channels: int, statistics: str) -> list[nn.Module | None]:
    """The norm layer, or an empty slot where upstream has an Identity."""
    return [*normalisation(norm, channels, statistics)] or [None]


def padded_conv(inputs: int, outputs: int, kernel: int, padding: str, bias: bool) -> list[nn.Module]:
    """A size-keeping convolution; the two paddings that are modules take a slot of their own."""
    margin = kernel // 2
    match padding:
        case "reflect":
            return [nn.ReflectionPad2d(margin), nn.Conv2d(inputs, outputs, kernel, bias=bias)]
        case "replicate":
            return [nn.ReplicationPad2d(margin), nn.Conv2d(inputs, outputs, kernel, bias=bias)]
        case "zero":
            return [nn.Conv2d(inputs, outputs, kernel, padding=margin, bias=bias)]
    raise PocketganError("no such padding", got=padding, allowed="reflect, replicate, zero")


def numbered(layers: Iterable[nn.Module | None]) -> nn.Sequential:
    """A Sequential whose children are named by position; None leaves its number out."""
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers) if layer is not None))
