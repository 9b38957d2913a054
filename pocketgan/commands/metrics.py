"""`pocketgan metrics`: pictures that are already made, judged against real ones or references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.errors import UsageError
from pocketgan.options import FILE, FOLDER, Answer, command
from pocketgan.texts import decibels, table


@command("metrics")
@click.argument("pictures", type=FOLDER)
@click.option(
    "--real",
    type=FOLDER,
    multiple=True,
    metavar="DIR",
    help="Real pictures of the target, for FID and KID; give it again to join test and train.",
)
@click.option(
    "--fid-weights",
    type=FILE,
    metavar="FILE",
    help="FID's Inception weights (pocketgan data fetch inception).",
)
@click.option(
    "--reference",
    type=FOLDER,
    metavar="DIR",
    help="Wanted pictures of the same names: PSNR, SSIM, L1, LPIPS.",
)
@click.option(
    "--border",
    type=click.IntRange(0),
    metavar="PIXELS",
    help="Also PSNR and SSIM on luma, this much cut off all around, as super resolution does (x4: 4).",
)
@click.option(
    "--lpips-weights",
    type=FILE,
    metavar="FILE",
    help="LPIPS' linear weights (pocketgan data fetch lpips_vgg).",
)
@click.option(
    "--lpips-backbone",
    type=FILE,
    metavar="FILE",
    help="The VGG16 of torchvision below them (pocketgan data fetch vgg16).",
)
def metrics_command(
    pictures: Path,
    real: tuple[Path, ...],
    fid_weights: Path | None,
    reference: Path | None,
    border: int | None,
    lpips_weights: Path | None,
    lpips_backbone: Path | None,
) -> Answer:
    """Judge the pictures in a folder: as a set against real ones, or one by one against references.

    Papers take FID against the test pictures or against test and train together; what was taken is said
    beside the figure. Features are kept in the cache, so a stopped call goes on.
    """
    if bool(real) != bool(fid_weights) or not (real or reference):
        raise UsageError(
            "say what to compare with",
            allowed="--real DIR with --fid-weights FILE, --reference DIR, or all three",
        )
    if bool(lpips_weights) != bool(lpips_backbone) or (
        not reference and (lpips_weights or border is not None)
    ):
        raise UsageError(
            "LPIPS needs --lpips-weights, --lpips-backbone and --reference; --border needs --reference"
        )
    from compressor.metrics.folders import compare_pairs, compare_sets

    document: dict[str, Any] = {"folder": str(pictures)}
    if real and fid_weights:
        document["sets"] = compare_sets(pictures, real, fid_weights)
    if reference:
        lpips = None
        if lpips_weights and lpips_backbone:
            from compressor.metrics.lpips import Lpips

            lpips = Lpips(lpips_weights, lpips_backbone)
        document["pairs"] = compare_pairs(pictures, reference, border=border, lpips=lpips)
    parts = [_sets(document["sets"])] if "sets" in document else []
    parts += [_pairs(document["pairs"])] if "pairs" in document else []
    return Answer("\n\n".join(parts), document)


def _sets(found: dict[str, Any]) -> str:
    from compressor.metrics.folders import ENOUGH

    reals = " + ".join(f"{each['pictures']} of {each['folder']}" for each in found["real"])
    count = sum(each["pictures"] for each in found["real"])
    if "fid" in found:
        lines = [f"FID {found['fid']:.2f}   KID x 1000 {1000 * found['kid']:.2f}"]
    else:
        lines = [
            f"Fréchet distance {found['frechet_distance']:.4f}",
            f"kernel distance {found['kernel_distance']:.6f}",
            f"NOT FID: {found['weights']['file']} is not the published Inception file; compare with no paper",
        ]
    lines.append(f"{found['pictures']} pictures against {reals}; resized {found['resizing']}")
    if min(found["pictures"], count) < ENOUGH:
        lines.append(
            f"below {ENOUGH} pictures FID is biased upwards: compare only equal numbers; KID is not biased"
        )
    return "\n".join(lines)


def _pairs(found: dict[str, Any]) -> str:
    names = list(found["mean"])
    rows = [(row["name"], *(_shown(name, row[name]) for name in names)) for row in found["images"]]
    rows.append(("mean", *(_shown(name, found["mean"][name]) for name in names)))
    heads = {
        "psnr": "PSNR",
        "ssim": "SSIM",
        "l1": "L1",
        "psnr_y": "PSNR-Y",
        "ssim_y": "SSIM-Y",
        "lpips": "LPIPS",
    }
    said = f"against: {found['reference']}"
    if found["border"] is not None:
        said += f"; Y of BT.601, unrounded, {found['border']} pixels cut off"
    return f"{said}\n\n{table(rows, head=('picture', *(heads[name] for name in names)))}"


def _shown(name: str, value: float | None) -> str:
    return decibels(value) if name.startswith("psnr") else f"{value:.4f}"
