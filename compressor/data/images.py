"""Pictures: found in folders, read from files, turned into tensors and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import PocketganError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_images(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path; hidden files are passed over.

    Raises:
        PocketganError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise PocketganError(f"there is no folder {folder}", fix="give a folder of pictures: --images DIR")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise PocketganError(f"{folder} holds no pictures", allowed="files ending in " + " ".join(SUFFIXES))
    return found


def split_held_out(paths: Sequence[Path], share: float = 0.2) -> tuple[list[Path], list[Path]]:
    """Divide sorted pictures into (training, held out), spread evenly and always the same way.

    Args:
        paths: the pictures; one alone serves as both.
        share: the part held out, in (0, 1); at least one picture either way.
    """
    if len(paths) == 1:
        return list(paths), list(paths)
    count = min(len(paths) - 1, max(1, round(len(paths) * share)))
    held = {round((index + 0.5) * len(paths) / count - 0.5) for index in range(count)}
    return [p for i, p in enumerate(paths) if i not in held], [paths[i] for i in sorted(held)]


def read_image(path: Path, channels: int = 3) -> np.ndarray:
    """One picture as float32 (H, W, channels) in [0, 1].

    Grey is repeated over the channels, alpha is dropped, 16-bit files keep their precision, and
    the camera's orientation tag is obeyed. With `channels` = 1, colour becomes BT.601 luma.

    Raises:
        PocketganError: the file is missing, truncated or not a picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                pixels = np.asarray(image, np.float32)[..., None] / 65535.0
            elif image.mode == "F":
                pixels = np.asarray(image, np.float32)[..., None]
            else:
                mode = "L" if channels == 1 else "RGB"
                pixels = np.asarray(image.convert(mode), np.float32) / 255.0
    except FileNotFoundError as error:
        raise PocketganError(f"there is no file {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PocketganError(f"{path} cannot be read as a picture", got=error) from error
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = np.clip(pixels, 0.0, 1.0)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] != channels else pixels


def need_readable(paths: Sequence[Path], channels: int = 3) -> None:
    """Read every picture once, so that a broken one is known before long work begins.

    Raises:
        PocketganError: some cannot be read; all of them are named.
    """
    broken = []
    for path in dict.fromkeys(paths):
        try:
            read_image(path, channels)
        except PocketganError as error:
            broken.append(f"{path}: {error.got or error.what}")
    if broken:
        raise PocketganError(
            f"{len(broken)} of {len(set(paths))} pictures cannot be read",
            got="\n    ".join(broken),
            fix="mend or remove them, then the same command again; nothing was begun",
        )


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 1 or 3) values in [0, 1] as an 8-bit file of the kind its ending names."""
    from PIL import Image

    from compressor.files import atomic

    levels = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    with atomic(path) as file:
        Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels).save(
            file, format={"JPG": "JPEG", "TIF": "TIFF"}.get(path.suffix[1:].upper(), path.suffix[1:].upper())
        )


def fit(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a picture so that it covers `size` (H, W), then cut out its middle.

    A picture that already covers `size` exactly is returned as it is.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    factor = max(size[0] / height, size[1] / width)
    grown = (max(size[0], round(height * factor)), max(size[1], round(width * factor)))
    planes = [
        np.asarray(Image.fromarray(plane).resize(grown[::-1], Image.Resampling.BICUBIC))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    top, left = (grown[0] - size[0]) // 2, (grown[1] - size[1]) // 2
    cut = np.stack(planes, axis=2)[top : top + size[0], left : left + size[1]]
    return np.clip(cut, 0.0, 1.0)


def to_tensor(pixels: np.ndarray, value_range: tuple[float, float]) -> torch.Tensor:
    """(H, W, C) in [0, 1] -> float32 tensor (1, C, H, W) in `value_range`."""
    import torch

    low, high = value_range
    values = np.ascontiguousarray(np.moveaxis(pixels, 2, 0)[None], np.float32)
    return torch.from_numpy(values * np.float32(high - low) + np.float32(low))


def to_pixels(values: torch.Tensor | np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """One output (1, C, H, W) in `value_range` -> (H, W, C) clipped to [0, 1]."""
    array = values if isinstance(values, np.ndarray) else values.detach().cpu().float().numpy()
    low, high = value_range
    return np.clip((np.moveaxis(array[0], 0, 2).astype(np.float32) - low) / (high - low), 0.0, 1.0)
