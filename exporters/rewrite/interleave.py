"""Channels that are neighbouring pixels, put in their places without a transpose.

Channels last, the pixels of a row that lie side by side in the channels lie side by side in memory too, so a
reshape puts them in their places; rows are sliced off and concatenated. XNNPACK runs all of that.
"""

from __future__ import annotations

import torch

MOST_ROWS = 4
"""XNNPACK leaves longer concatenations to LiteRT."""


def interleave(x: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Spread channels out over pixels.

    Args:
        x: (N, rows * columns * K, H, W), its channels ordered by row, column and K.
        rows, columns: pixels that each pixel becomes, downwards and across.

    Returns:
        (N, K, H * rows, W * columns). With its channels ordered by K, row and column instead, and equal
        factors, this would be pixel shuffle.
    """
    count, channels, height, width = x.shape
    last = x.permute(0, 2, 3, 1)
    part, rest = channels // rows, channels // (rows * columns)
    if rows > 1:
        sliced = [last.narrow(3, row * part, part).reshape(count, height, -1) for row in range(rows)]
        last = torch.cat(sliced, 2)
    return last.reshape(count, height * rows, width * columns, rest).permute(0, 3, 1, 2)
