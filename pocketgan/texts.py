"""How figures look on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Columns side by side, each as wide as its widest cell."""
    every = [head, *rows] if head else list(rows)
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every]
    return "\n".join(line.rstrip() for line in lines)


def amount(number: int, metric: str = "macs") -> str:
    """A cost in the unit people use: 2.51 G, 357 k, 1.43 MB."""
    from benchmarks.report import words

    if metric == "latency":
        return f"{number / 1e6:.3g} ms"
    return words.size(number) if metric in ("bytes", "memory") else words.scaled(number)


def decibels(value: float | None) -> str:
    """A PSNR; None, as JSON has it, is infinite: the pictures are equal."""
    from benchmarks.report import words

    return words.decibel(math.inf if value is None else value)
