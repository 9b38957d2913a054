"""Distances between two sets of pictures, from features of each: Fréchet's and the kernel distance.

They are FID and KID when the features are those of `compressor.metrics.inception` and of nothing else.
"""

from __future__ import annotations

import numpy as np

from compressor.errors import PocketganError

_BLOCK = 2048  # rows of a kernel matrix at once


def frechet_distance(one: np.ndarray, two: np.ndarray) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two feature sets (N, D); Heusel et al., 2017.

    With X the centred features over the root of N - 1, C = X^T X, and the last trace is the sum of the
    singular values of X1 X2^T: no root of a matrix is taken that a short set would make singular.

    Raises:
        PocketganError: a set has under two pictures, or the sets differ in D.
    """
    _comparable(one, two)
    roots, means = [], []
    for features in (one, two):
        values = features.astype(np.float64)
        means.append(values.mean(0))
        centred = (values - means[-1]) / np.sqrt(len(values) - 1)
        roots.append(_triangle(centred) if len(centred) > centred.shape[1] else centred)
    overlap = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(float(np.square(root).sum()) for root in roots)
    return float(np.square(means[0] - means[1]).sum() + spread - 2 * overlap)


def kernel_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Unbiased squared MMD of two feature sets (N, D), k(x, y) = (x.y / D + 1)^3; Binkowski et al., 2018.

    Over all pairs of pictures, where the paper takes the mean over random subsets of both: the same in
    expectation, and nothing is drawn. It may fall below 0 for sets of the same kind.

    Raises:
        PocketganError: a set has under two pictures, or the sets differ in D.
    """
    _comparable(one, two)
    within = 0.0
    for features in (one, two):
        values, count = features.astype(np.float64), len(features)
        diagonal = ((np.square(values).sum(1) / values.shape[1] + 1) ** 3).sum()
        within += (_kernel_sum(values, values) - diagonal) / (count * (count - 1))
    between = _kernel_sum(one.astype(np.float64), two.astype(np.float64)) / (len(one) * len(two))
    return float(within - 2 * between)


def _triangle(values: np.ndarray) -> np.ndarray:
    """R of values (N, D) = Q R: as good as they are wherever only values^T values counts."""
    root: np.ndarray = np.linalg.qr(values)[1]
    return root


def _kernel_sum(one: np.ndarray, two: np.ndarray) -> float:
    width = one.shape[1]
    starts = range(0, len(one), _BLOCK)
    return float(sum(((one[start : start + _BLOCK] @ two.T / width + 1) ** 3).sum() for start in starts))


def _comparable(one: np.ndarray, two: np.ndarray) -> None:
    if min(len(one), len(two)) < 2 or one.shape[1:] != two.shape[1:]:
        raise PocketganError(
            "these sets cannot be compared",
            got=f"features {one.shape} and {two.shape}",
            allowed="two pictures or more in each, features of one length",
        )
