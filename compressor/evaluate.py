"""How close a generator's pictures are to a reference's: the original's own, or given files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch

from compressor.agd.teachers import FolderTeacher, Teacher
from compressor.data.images import fit, list_images, read_image, to_pixels, to_tensor, write_image
from compressor.errors import PocketganError, UsageError
from compressor.files import claim_folder, read_json, write_json
from compressor.generators import Generator
from compressor.generators.spec import ImageFormat
from compressor.metrics.fidelity import psnr, ssim
from compressor.progress import Progress

_LARGEST = 512  # longest side of an upscaler's input; larger pictures are cut to their middle
_ERROR_GAIN = 4.0  # error maps show the absolute difference times this


@dataclass(frozen=True)
class EvalResult:
    """Fidelity of each picture and over all; `document` is eval.json.

    Attributes:
        folder: where eval.json and, for a few pictures, images/ are.
    """

    folder: Path
    document: dict[str, Any]


def evaluate(
    generator: Generator,
    images: Sequence[Path],
    output: Path,
    *,
    teacher: Generator | Teacher | None = None,
    reference: Path | None = None,
    pictures: int = 6,
    resume: bool = False,
) -> EvalResult:
    """Run a generator on pictures and measure PSNR and SSIM against a reference.

    Args:
        generator: what to judge.
        images: inputs; best ones it was not trained on.
        output: folder for eval.json and images/NAME.{input,original,compressed,error}.png.
        teacher: whose outputs are the reference: a generator, or what only answers with pictures; or
        reference: a folder of wanted outputs with the inputs' file names (any picture ending).
        pictures: how many to keep as files.
        resume: return what an earlier call wrote.

    Raises:
        UsageError: neither or both references are given.
        PocketganError: a picture cannot be read, or has no partner in `reference`.
    """
    if (teacher is None) == (reference is None):
        raise UsageError(
            "eval needs one reference",
            got="none" if teacher is None else "two",
            allowed="--teacher CHECKPOINT (compare with its outputs) or --reference DIR (wanted outputs)",
        )
    if resume and (output / "eval.json").exists():
        return EvalResult(output, read_json(output / "eval.json"))
    claim_folder(output, resume=True)
    partners = {path.stem: path for path in list_images(reference)} if reference else {}
    # an upscaler's pictures keep their size, which a file of one size would refuse
    fixed = getattr(teacher, "fixed", None) if generator.spec.image.scale > 1 else None
    rows: list[dict[str, Any]] = []
    with Progress("eval", len(images)) as progress:
        for number, path in enumerate(images):
            whole = read_image(path, generator.spec.image.channels[0])
            pixels = prepare(whole, generator.spec.image)
            if fixed is not None:
                pixels = _cut_or_fit(whole, fixed)
            made = run(generator, pixels)
            if isinstance(teacher, Generator):
                wanted = run(teacher, pixels)
            elif teacher is not None:
                wanted = _taught(teacher, path, whole, pixels)
            else:
                wanted = _partner(partners, path, generator.spec.image, made.shape)
            rows.append({"name": path.stem, "psnr": psnr(made, wanted), "ssim": ssim(made, wanted)})
            if number < pictures:
                _keep(output / "images" / path.stem, pixels, wanted, made)
            progress.update(number + 1)
    ratios = [row["psnr"] for row in rows]
    document = {
        "reference": str(reference) if reference else "original generator's outputs",
        "images": [{**row, "psnr": _finite(row["psnr"])} for row in rows],
        "psnr_median": _finite(median(ratios)),
        "psnr_mean": _finite(fmean(ratios)),
        "ssim_mean": fmean(row["ssim"] for row in rows),
        "worst": rows[int(np.argmin(ratios))]["name"],
    }
    write_json(output / "eval.json", document)
    return EvalResult(output, document)


def prepare(pixels: np.ndarray, image: ImageFormat) -> np.ndarray:
    """Bring a picture (H, W, C) to a size the generator takes.

    Translation: the usual size, scaled and cut. Super resolution: its own pixels, cut to at most
    512 a side and to the multiple the network needs.
    """
    if image.scale == 1:
        return fit(pixels, image.size)
    height, width = (min(side, _LARGEST) // image.multiple * image.multiple for side in pixels.shape[:2])
    if min(height, width) < image.multiple:
        raise PocketganError(
            "a picture is too small for the generator",
            got=pixels.shape[:2],
            allowed=f"{image.multiple} pixels a side or more",
        )
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def run(generator: Generator, pixels: np.ndarray) -> np.ndarray:
    """One picture (H, W, C) in [0, 1] through a generator, clipped to [0, 1].

    Raises:
        PocketganError: the network refuses the picture's size.
    """
    image = generator.spec.image
    try:
        with torch.inference_mode():
            output = generator.module(to_tensor(pixels, image.input_range))
    except (RuntimeError, ValueError) as error:
        raise PocketganError(
            f"the generator does not take a picture of {pixels.shape[0]}x{pixels.shape[1]}",
            got=str(error).splitlines()[0],
            fix="give another --size",
        ) from error
    return to_pixels(output, image.output_range)


def _taught(teacher: Teacher, path: Path, whole: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """What a teacher makes of a picture (H, W, C) in [0, 1], of which `pixels` is the part looked at."""
    image = teacher.image
    if not isinstance(teacher, FolderTeacher):
        return to_pixels(teacher(to_tensor(pixels, image.input_range)), image.output_range)
    size = pixels.shape[:2] if image.scale == 1 else whole.shape[:2]
    made = to_pixels(torch.from_numpy(teacher.output_of(path, (size[0], size[1]))), image.output_range)
    top, left = ((have - want) // 2 * image.scale for have, want in zip(size, pixels.shape[:2], strict=True))
    height, width = (side * image.scale for side in pixels.shape[:2])
    return made[top : top + height, left : left + width]


def _cut_or_fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of a picture for a teacher of one size, scaled where it is too small."""
    if pixels.shape[0] < size[0] or pixels.shape[1] < size[1]:
        return fit(pixels, size)
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]


def _partner(partners: dict[str, Path], path: Path, image: ImageFormat, shape: tuple[int, ...]) -> np.ndarray:
    if path.stem not in partners:
        raise PocketganError(f"the reference folder has no picture named {path.stem}", got=str(path))
    wanted = read_image(partners[path.stem], shape[2])
    if image.scale == 1:
        return fit(wanted, (shape[0], shape[1]))
    if wanted.shape != shape:
        raise PocketganError(
            f"{partners[path.stem]} is not {image.scale} times as large as its input",
            got=wanted.shape[:2],
            allowed=shape[:2],
        )
    return wanted


def _keep(stem: Path, pixels: np.ndarray, wanted: np.ndarray, made: np.ndarray) -> None:
    error = np.abs(made - wanted) * _ERROR_GAIN
    for kind, picture in (("input", pixels), ("original", wanted), ("compressed", made), ("error", error)):
        write_image(stem.with_name(f"{stem.name}.{kind}.png"), picture)


def _finite(value: float) -> float | None:
    return None if value == float("inf") else float(value)
