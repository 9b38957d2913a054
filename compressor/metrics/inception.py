"""The Inception network of FID (the one of 2015, not torchvision's), on weights that the user has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.data.images import read_image
from compressor.errors import PocketganError
from compressor.files import atomic, cache_folder, sha256
from compressor.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED = "6726825d"  # how the SHA-256 of pt_inception-2015-12-05-6726825d.pth begins
RESIZING = "bilinear to 299x299 without antialiasing, as pytorch-fid"
_SIDE, _FEATURES, _CLASSES = 299, 2048, 1008
_EPSILON = 1e-3  # of batch norm
_CHUNK = 64  # pictures whose features are kept together, so that a stopped run goes on

# What each block does: paths whose outputs are joined; a pair is two layers on one input.
_POOLED = ("average", "branch_pool")
_DOUBLE = ("branch3x3dbl_1", "branch3x3dbl_2")
_WIDE: Sequence[Any] = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    (*_DOUBLE, "branch3x3dbl_3"),
    _POOLED,
)
_SEVEN: Sequence[Any] = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    tuple(f"branch7x7dbl_{number}" for number in range(1, 6)),
    _POOLED,
)
_LAST: Sequence[Any] = (
    ("branch1x1",),
    ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
    (*_DOUBLE, ("branch3x3dbl_3a", "branch3x3dbl_3b")),
)
_BLOCKS: dict[str, Sequence[Any]] = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _WIDE),
    "Mixed_6a": (("branch3x3",), (*_DOUBLE, "branch3x3dbl_3"), ("halve",)),
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _SEVEN),
    "Mixed_7a": (
        ("branch3x3_1", "branch3x3_2"),
        tuple(f"branch7x7x3_{number}" for number in range(1, 5)),
        ("halve",),
    ),
    "Mixed_7b": (*_LAST, _POOLED),
    "Mixed_7c": (*_LAST, ("greatest", "branch_pool")),  # TensorFlow's graph of 2015 has it so
}
_HALVING = {"Mixed_6a.branch3x3", "Mixed_6a.branch3x3dbl_3", "Mixed_7a.branch3x3_2", "Mixed_7a.branch7x7x3_4"}
_STEM = (
    "Conv2d_1a_3x3",
    "Conv2d_2a_3x3",
    "Conv2d_2b_3x3",
    "halve",
    "Conv2d_3b_1x1",
    "Conv2d_4a_3x3",
    "halve",
)
_UNPADDED = {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3", *_HALVING}


class Inception:
    """Features (N, 2048) of pictures, the mean of the last block over its area.

    Attributes:
        sha256: of the file of weights.
        published: whether it is the file that FID's tools publish; distances on other weights are no FID.

    Raises:
        PocketganError: the file does not hold this network.
    """

    def __init__(self, path: Path):
        from compressor.generators.states import read_state

        self.path = path
        self.state = {name: value.float() for name, value in read_state(path).items()}
        classes = self.state.get("fc.weight")
        if classes is None or tuple(classes.shape) != (_CLASSES, _FEATURES):
            raise PocketganError(
                f"{path} is not the Inception network that FID is defined on",
                got="no layer fc" if classes is None else f"fc of {tuple(classes.shape)}",
                allowed=f"fc of ({_CLASSES}, {_FEATURES}), as in pt_inception-2015-12-05-6726825d.pth",
                fix="pocketgan data fetch inception",
            )
        self.sha256 = sha256(path)
        self.published = self.sha256.startswith(PUBLISHED)

    def __call__(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2048)."""
        import torch
        import torch.nn.functional as F

        with torch.inference_mode():
            x = F.interpolate(pictures, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
            x = self._path("", _STEM, 2 * x - 1)
            for block, paths in _BLOCKS.items():
                x = torch.cat([self._path(f"{block}.", path, x) for path in paths], 1)
            return x.mean((2, 3))

    def _path(self, block: str, steps: Sequence[Any], x: Tensor) -> Tensor:
        import torch
        import torch.nn.functional as F

        for step in steps:
            if isinstance(step, tuple):
                x = torch.cat([self._layer(block + name, x) for name in step], 1)
            elif step == "average":
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif step == "greatest":
                x = F.max_pool2d(x, 3, 1, 1)
            elif step == "halve":
                x = F.max_pool2d(x, 3, 2)
            else:
                x = self._layer(block + step, x)
        return x

    def _layer(self, name: str, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        try:
            weight, norm = self.state[f"{name}.conv.weight"], f"{name}.bn."
            around = (0, 0) if name in _UNPADDED else (weight.shape[2] // 2, weight.shape[3] // 2)
            x = F.conv2d(
                x, weight, stride=2 if name in _HALVING or name == "Conv2d_1a_3x3" else 1, padding=around
            )
            mean, variance = self.state[norm + "running_mean"], self.state[norm + "running_var"]
            scale, shift = self.state[norm + "weight"], self.state[norm + "bias"]
            return F.relu(F.batch_norm(x, mean, variance, scale, shift, False, 0.0, _EPSILON))
        except (KeyError, RuntimeError) as error:
            raise PocketganError(
                f"{self.path} lacks a layer of FID's Inception network, or has another shape of it",
                got=f"{name}: {error}",
                fix="pocketgan data fetch inception",
            ) from error


def features_of(pictures: Sequence[Path], network: Inception, title: str = "features") -> np.ndarray:
    """(N, 2048) float32 features of picture files, each seen in its own size.

    What was computed is kept in the user's cache by the content of weights and pictures, 64 at a time.
    """
    import torch

    found = []
    with Progress(title, len(pictures)) as progress:
        for start in range(0, len(pictures), _CHUNK):
            chunk = pictures[start : start + _CHUNK]
            kept = _cache_of(chunk, network)
            if kept.exists():
                found.append(np.load(kept, allow_pickle=False))
            else:
                rows = []
                for number, path in enumerate(chunk, start + 1):
                    values = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]
                    rows.append(network(values).numpy())
                    progress.update(number)
                found.append(np.concatenate(rows))
                with atomic(kept) as file:
                    np.save(file, found[-1], allow_pickle=False)
            progress.update(start + len(chunk))
    return np.concatenate(found)


def _cache_of(pictures: Sequence[Path], network: Inception) -> Path:
    digest = hashlib.sha256(f"{network.sha256} {RESIZING}".encode())
    for path in pictures:
        digest.update(sha256(path).encode())
    return cache_folder() / "inception" / f"{digest.hexdigest()}.npy"
