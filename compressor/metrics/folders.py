"""Folders of pictures judged as they are: against real ones as a set, or against references one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from compressor.data.images import list_images, read_image
from compressor.errors import PocketganError, UsageError
from compressor.metrics.fidelity import psnr, ssim
from compressor.metrics.upscaling import reported
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.metrics.lpips import Lpips

ENOUGH = 2048  # pictures in a set below which the covariance of FID's 2048 features is singular


def compare_sets(pictures: Path, real: Sequence[Path], weights: Path) -> dict[str, Any]:
    """FID and KID of a folder to the pictures of all `real` folders together, with the protocol.

    With other weights than the published ones the same distances are named after their formulas.

    Raises:
        PocketganError: a folder is empty, a picture cannot be read, or the file holds another network.
    """
    from compressor.metrics.inception import RESIZING, Inception, features_of
    from compressor.metrics.sets import frechet_distance, kernel_distance

    paths, folders = list_images(pictures), [(folder, list_images(folder)) for folder in real]
    network = Inception(weights)
    made = features_of(paths, network, "features, made")
    wanted = features_of([path for _, found in folders for path in found], network, "features, real")
    names = ("fid", "kid") if network.published else ("frechet_distance", "kernel_distance")
    return {
        names[0]: frechet_distance(made, wanted),
        names[1]: kernel_distance(made, wanted),
        "pictures": len(made),
        "real": [{"folder": str(folder), "pictures": len(found)} for folder, found in folders],
        "resizing": RESIZING,
        "kernel": "(x.y / 2048 + 1)^3, unbiased, over all pairs",
        "weights": {"file": str(weights), "sha256": network.sha256, "published": network.published},
    }


def compare_pairs(
    pictures: Path, reference: Path, *, border: int | None = None, lpips: Lpips | None = None
) -> dict[str, Any]:
    """PSNR, SSIM, L1 and, where its weights are given, LPIPS of each picture to its namesake; and the means.

    Args:
        border: pixels to cut off on all sides for PSNR and SSIM on luma, as super resolution reports them;
            None leaves these out.

    Raises:
        PocketganError: a picture has no namesake, cannot be read, or is of another size than it.
    """
    paths, partners = list_images(pictures), {path.stem: path for path in list_images(reference)}
    if lost := [path.stem for path in paths if path.stem not in partners]:
        raise PocketganError(
            f"{reference} lacks {len(lost)} of {len(paths)} pictures",
            got=", ".join(lost[:3]),
            allowed="a picture of the same name for each, with any ending",
        )
    if border is not None and border < 0:
        raise UsageError("a border cannot be negative", got=border)
    rows: list[dict[str, Any]] = []
    with Progress("pairs", len(paths)) as progress:
        for number, path in enumerate(paths, 1):
            made, wanted = read_image(path), read_image(partners[path.stem])
            row: dict[str, Any] = {"name": path.stem, "psnr": psnr(made, wanted), "ssim": ssim(made, wanted)}
            row["l1"] = float(abs(made - wanted).mean())
            if border is not None:
                row["psnr_y"], row["ssim_y"] = reported(made, wanted, border)
            if lpips is not None:
                row["lpips"] = lpips(made, wanted)
            rows.append(row)
            progress.update(number)
    means = {name: _finite(fmean(row[name] for row in rows)) for name in rows[0] if name != "name"}
    images = [{name: _finite(value) for name, value in row.items()} for row in rows]
    return {
        "pictures": len(rows),
        "reference": str(reference),
        "border": border,
        "mean": means,
        "images": images,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: the PSNR of equal pictures becomes None."""
    return None if isinstance(value, float) and math.isinf(value) else value
