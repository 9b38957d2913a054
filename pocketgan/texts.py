"""How figures look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Columns side by side, each as wide as its widest cell."""
    every = [head, *rows] if head else list(rows)
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in every]
    return "\n".join(line.rstrip() for line in lines)


def amount(number: int, metric: str = "macs") -> str:
    """A cost in the unit people use: 2.51 G, 356.9 k, 1.43 MB."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.4g} {unit}{'B' if metric == 'bytes' else ''}"
    return f"{number} {'B' if metric == 'bytes' else ''}".strip()


def decibels(value: float | None) -> str:
    """A PSNR; None, as JSON has it, is infinite: the pictures are equal."""
    return "equal" if value is None else f"{value:.2f} dB"
