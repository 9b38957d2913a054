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


def reported(
    picture: np.ndarray, reference: np.ndarray, border: int = 4, *, rounded: bool = False
) -> tuple[float, float]:
    """(PSNR in dB, SSIM) on Y of two pictures (H, W, 3) in [0, 1] as the field's tables have them.

    Args:
        rounded: Y to integers, as MATLAB's rgb2ycbcr gives it for 8-bit pictures and older tables have it;
            networks are judged without, which is worth 0.02 dB at 32 dB.

    Raises:
        PocketganError: the shapes differ, or less than 11 pixels a side are left.
    """
    inner = slice(border, -border or None)
    planes = [luma(each)[inner, inner, None] for each in (picture, reference)]
    made, wanted = (np.floor(plane + 0.5) if rounded else plane for plane in planes)
    return psnr(made, wanted, peak=255.0), ssim(made / 255, wanted / 255)
