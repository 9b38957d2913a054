"""PSNR and SSIM as super resolution reports them: on luma, with the edge cut off."""

from __future__ import annotations

import numpy as np

from compressor.metrics.fidelity import psnr, ssim

_WEIGHTS = (65.481, 128.553, 24.966)  # of R, G, B in [0, 1]: ITU-R BT.601, as MATLAB's rgb2ycbcr


def luma(picture: np.ndarray) -> np.ndarray:
    """Y of BT.601 from 16 to 235, float64 (H, W), of a picture (H, W, 3) in [0, 1].

    The picture is brought to 8 bit first, as a file of it would be; Y itself is not rounded.
    """
    levels = np.rint(np.clip(picture.astype(np.float64), 0, 1) * 255)
    luminance: np.ndarray = 16 + levels @ _WEIGHTS / 255
    return luminance


def psnr_y(picture: np.ndarray, reference: np.ndarray, border: int = 4) -> float:
    """dB between the luma of two pictures (H, W, 3) in [0, 1], `border` pixels cut off all around.

    Published tables cut as many pixels as the scale and take the mean over pictures.

    Raises:
        PocketganError: the shapes differ.
    """
    return plane_psnr(luma(picture), luma(reference), border)


def plane_psnr(plane: np.ndarray, reference: np.ndarray, border: int = 4) -> float:
    """`psnr_y` of two luma planes (H, W) on the scale 0..255."""
    inner = slice(border, -border or None)
    return psnr(plane[inner, inner], reference[inner, inner], peak=255.0)


def reported(picture: np.ndarray, reference: np.ndarray, border: int = 4) -> tuple[float, float]:
    """(PSNR in dB, SSIM) of two pictures (H, W, 3) in [0, 1] as the field's MATLAB tables have them.

    Y is rounded to integers, as rgb2ycbcr gives it for 8-bit pictures; `psnr_y` leaves it as it is.

    Raises:
        PocketganError: the shapes differ, or less than 11 pixels a side are left.
    """
    inner = slice(border, -border or None)
    made, wanted = (np.floor(luma(each) + 0.5)[inner, inner, None] / 255 for each in (picture, reference))
    return psnr(made, wanted), ssim(made, wanted)
