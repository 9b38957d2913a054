"""Full-reference fidelity: PSNR and SSIM between pictures as (H, W, C) arrays in [0, 1]."""

from __future__ import annotations

import numpy as np

from compressor.errors import PocketganError


def psnr(picture: np.ndarray, reference: np.ndarray, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(peak^2 / MSE); infinite for equal pictures.

    Raises:
        PocketganError: the shapes differ.
    """
    _same_shape(picture, reference)
    error = float(np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(peak**2 / error)


def ssim(picture: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity in [-1, 1], mean over channels.

    The published form (Wang et al., 2004): Gaussian window of sigma 1.5, K1 0.01, K2 0.03,
    population covariance. Pictures under 11 pixels a side are refused.
    """
    from skimage.metrics import structural_similarity

    _same_shape(picture, reference)
    if min(picture.shape[:2]) < 11:
        raise PocketganError("SSIM needs pictures of 11x11 pixels or more", got=picture.shape[:2])
    return float(
        structural_similarity(
            picture.astype(np.float64),
            reference.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=2,
        )
    )


def _same_shape(picture: np.ndarray, reference: np.ndarray) -> None:
    if picture.shape != reference.shape:
        raise PocketganError("the pictures differ in shape", got=picture.shape, allowed=reference.shape)
