"""The picture to learn: a photograph redrawn in ink and watercolour, by a classical algorithm.

Four steps, each local and without chance, so that a convolutional network can learn them from pairs:

1. washes: the generalised Kuwahara filter flattens texture and keeps edges: the mean of eight Gaussian
   sectors, each weighted by a negative power of its standard deviation (Papari, Petkov and Campisi 2007);
2. tones: lightness is drawn to a few levels by a soft staircase (Winnemoeller, Olsen and Gooch 2006),
   colours grow stronger and the lightest parts show warm paper;
3. rims: pigment gathers where a wash ends: c - (c - c^2) d, the density d growing with the gradient
   (the pigment model of Bousseau et al. 2006);
4. ink: lines where an extended difference of Gaussians falls under a threshold, with a soft knee
   (Winnemoeller, Kyprianidis and Olsen 2012).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

PAPER = np.array([0.985, 0.965, 0.915], np.float32)
INK = np.array([0.11, 0.10, 0.17], np.float32)
SECTORS = 8
RADIUS = 5.0  # pixels that a wash reaches to each side
SHARPNESS = 8.0  # of the choice among sectors
TONES = 6.0  # levels of lightness
COLOUR = 1.55  # growth of chroma


def paint(photograph: Array) -> Array:
    """A photograph (H, W, 3) in [0, 1] as an ink and watercolour painting, the same shape and range.

    Sizes in the algorithm are in pixels: it is meant for pictures of 250 to 500 pixels a side, 32 at least.
    """
    photograph = np.asarray(photograph, np.float32)
    wash = washes(photograph)
    coloured = rims(tones(wash))
    line = ink(0.5 * luma(photograph) + 0.5 * luma(wash))[..., None]
    return np.clip(coloured * line + INK * (1.0 - line), 0.0, 1.0).astype(np.float32)


def washes(pixels: Array) -> Array:
    """Generalised Kuwahara filter of (H, W, 3): flat regions with sharp borders."""
    values = np.concatenate([pixels, pixels**2], axis=2)
    total = np.zeros_like(pixels)
    weights = np.zeros(pixels.shape[:2], np.float32)
    for kernel in _sectors():
        moments = _filter(values, kernel)
        mean, square = moments[..., :3], moments[..., 3:]
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0).sum(axis=2))
        weight = ((0.02 + deviation) ** -SHARPNESS).astype(np.float32)
        total += weight[..., None] * mean
        weights += weight
    return np.asarray(total / weights[..., None], np.float32)


def tones(pixels: Array) -> Array:
    """Fewer levels of lightness, stronger colour, paper in the lights; (H, W, 3) in [0, 1]."""
    from skimage.color import lab2rgb, rgb2lab

    lab = rgb2lab(np.clip(pixels, 0.0, 1.0)).astype(np.float32)
    step = 100.0 / TONES
    riser = step * (np.floor(lab[..., 0] / step) + 0.5)  # the middle of the nearest rise between two levels
    stairs = riser + 0.5 * step * np.tanh(2.2 * (lab[..., 0] - riser) / (0.5 * step)) / np.tanh(2.2)
    lab[..., 0] = 24.0 + 74.0 * (np.clip(stairs, 0.0, 100.0) / 100.0) ** 0.8
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    grown = 75.0 * np.tanh(COLOUR * chroma / 75.0)
    lab[..., 1:] *= (grown / np.maximum(chroma, 1e-3))[..., None]
    colour = lab2rgb(lab).astype(np.float32)
    return np.clip(colour, 0.0, 1.0) * PAPER


def rims(pixels: Array) -> Array:
    """Pigment gathered where a wash ends: c - (c - c^2) d, the density d growing with the gradient."""
    from scipy.ndimage import gaussian_filter, sobel

    grey = gaussian_filter(luma(pixels), 0.8)
    slope = np.hypot(sobel(grey, 0), sobel(grey, 1)) / 4.0
    density = np.minimum(2.2 * slope, 0.5)[..., None]
    return pixels - (pixels - pixels**2) * density


def ink(grey: Array) -> Array:
    """Ink lines of a grey picture (H, W): 1 is bare paper, 0 is full ink."""
    from scipy.ndimage import gaussian_filter

    sigma, ratio, sharpen = 0.85, 1.6, 20.0
    near, far = gaussian_filter(grey, sigma), gaussian_filter(grey, sigma * ratio)
    response = 0.24 + 0.76 * near + sharpen * (near - far)
    threshold, steep = 0.31, 7.0
    line = np.where(response >= threshold, 1.0, 1.0 + np.tanh(steep * (response - threshold)))
    return line.astype(np.float32)


def luma(pixels: Array) -> Array:
    """BT.601 luma of (H, W, 3)."""
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


def _sectors() -> list[Array]:
    """Eight Gaussian sectors of a disc, smoothed, each summing to one."""
    from scipy.ndimage import gaussian_filter

    reach = int(np.ceil(RADIUS)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    kernels = []
    for index in range(SECTORS):
        turn = (angle - 2.0 * np.pi * index / SECTORS + np.pi) % (2.0 * np.pi) - np.pi
        inside = (np.abs(turn) <= np.pi / SECTORS) & (distance <= RADIUS) | (distance == 0)
        kernel = gaussian_filter(inside.astype(np.float32), 0.8) * np.exp(
            -0.5 * (distance / (0.5 * RADIUS)) ** 2
        )
        kernels.append(kernel / kernel.sum())
    return kernels


def _filter(values: Array, kernel: Array) -> Array:
    """Correlate every channel of (H, W, C) with one kernel; edges are mirrored."""
    from scipy.signal import fftconvolve

    reach = kernel.shape[0] // 2
    padded = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    return fftconvolve(padded, kernel[::-1, ::-1, None], mode="valid", axes=(0, 1)).astype(np.float32)
