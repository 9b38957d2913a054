"""Picture files as they come (8 and 16 bits, grey, alpha, palettes, rotated, CMYK), and PNGs written by rows.

libvips reads and writes them: it knows 16-bit colour, which Pillow does not, and it writes a picture of any
size in little memory. Pillow reads BMP, which libvips' usual build does not.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import PocketganError
from compressor.files import atomic, write_error

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_KEPT = 3  # input rows around a band that enlarging looks at


@dataclass(frozen=True)
class Picture:
    """A picture as its file holds it, upright.

    Attributes:
        pixels: (H, W, 1 or 3) uint8 or uint16.
        alpha: (H, W) of the same type, or None.
        profile: the ICC colour profile, or None.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def white(self) -> int:
        """255 or 65535."""
        return int(np.iinfo(self.pixels.dtype).max)

    def values(self, channels: int) -> Callable[[np.ndarray], np.ndarray]:
        """How pieces of `pixels` become (h, w, channels) float32 in [0, 1]: grey is repeated, colour
        becomes BT.601 luma where one channel is asked for."""
        white = np.float32(self.white)

        def convert(piece: np.ndarray) -> np.ndarray:
            made = piece.astype(np.float32) / white
            if channels == 1 and made.shape[2] == 3:
                return (made @ LUMA)[..., None]
            return np.repeat(made, channels, axis=2) if made.shape[2] != channels else made

        return convert


def read_picture(path: Path) -> Picture:
    """Read a picture, turned as its orientation tag says.

    Raises:
        PocketganError: it is missing, cut short or no picture.
    """
    import pyvips

    if not path.is_file():
        raise PocketganError(f"there is no file {path}")
    try:
        if path.suffix.lower() == ".bmp":
            return Picture(_bmp(path))
        pyvips.cache_set_max(0)  # a file may change between two reads
        image = pyvips.Image.new_from_file(str(path), fail_on="truncated").autorot()
        profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
        wide = image.format not in ("uchar", "char")
        grey = image.interpretation in ("b-w", "grey16") or image.bands <= 2
        wanted = ("grey16" if grey else "rgb16") if wide else ("b-w" if grey else "srgb")
        if image.format in ("float", "double"):  # black is 0 and white 1
            image = image.linear(65535.0, 0.5).cast("ushort").copy(interpretation=wanted)
        if image.interpretation != wanted:
            if image.interpretation == "cmyk":
                profile = None  # it describes inks
            image = image.colourspace(wanted)
        array = image.cast("ushort" if wide else "uchar").numpy().reshape(image.height, image.width, -1)
    except (pyvips.Error, OSError, ValueError, SyntaxError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise PocketganError(f"{path} cannot be read as a picture", got=said[-1].strip()) from error
    colours = 1 if grey else 3
    alpha = array[..., colours] if array.shape[2] > colours else None
    return Picture(array[..., :colours], alpha, bytes(profile) if profile else None)


def _bmp(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as file:
        grey = file.mode in ("1", "L")
        return np.atleast_3d(np.asarray(file.convert("L" if grey else "RGB")))


def enlarged_rows(plane: np.ndarray, scale: int, top: int, bottom: int) -> np.ndarray:
    """Rows `top` to `bottom` of a plane (H, W) enlarged by `scale` (bicubic), clipped to its type."""
    from PIL import Image

    if scale == 1:
        return plane[top:bottom]
    height, width = plane.shape
    first, last = max(0, top // scale - _KEPT), min(height, -(-bottom // scale) + _KEPT)
    image = Image.fromarray(np.ascontiguousarray(plane[first:last], np.float32))
    box = (0, top / scale - first, width, bottom / scale - first)
    made = np.asarray(image.resize((width * scale, bottom - top), Image.Resampling.BICUBIC, box))
    return levels(made, plane.dtype)


def levels(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers of steps, rounded and clipped to an integer type."""
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)


@contextlib.contextmanager
def png_by_rows(
    path: Path, size: tuple[int, int], bands: int, dtype: np.dtype, profile: bytes | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a PNG from top to bottom; the file appears, whole, when the block ends without error.

    Args:
        path: the file.
        size: (height, width).
        bands: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha.
        dtype: uint8 or uint16.
        profile: ICC profile to put in.

    Yields:
        A function that takes the next rows (h, width, bands).

    Raises:
        PocketganError: the disk is full or the folder cannot be written.
    """
    import pyvips

    deep = dtype == np.uint16
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as raw:
            yield lambda rows: _append(raw, rows.astype(dtype, copy=False))
            raw.flush()
            colour = ("rgb16" if deep else "srgb") if bands > 2 else ("grey16" if deep else "b-w")
            image = pyvips.Image.rawload(
                raw.name, size[1], size[0], bands, format="ushort" if deep else "uchar", interpretation=colour
            )
            if profile is not None:
                image = image.copy()
                image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
            with atomic(path) as file:
                try:
                    image.pngsave(file.name, compression=6, keep="icc")
                except pyvips.Error as error:
                    raise PocketganError(f"cannot write {path}", got=str(error).strip()) from error
    except OSError as error:
        raise write_error(path, error) from error


def _append(raw: Any, rows: np.ndarray) -> None:
    raw.write(np.ascontiguousarray(rows).data)
