"""What a training left to look at, for the report: widths over time and sample pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Vector:
    """One latent vector: its length, and the entries alive at each of the noted steps."""

    name: str
    whole: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Watched:
    """What one stage's record tells.

    Attributes:
        steps: at which widths were noted; of each of `vectors` there are as many.
        samples: (step, file) of every sample picture that is there.
        panels: what each of them shows, from left to right.
    """

    steps: tuple[int, ...] = ()
    vectors: tuple[Vector, ...] = ()
    samples: tuple[tuple[int, Path], ...] = ()
    panels: tuple[str, ...] = ()


def read_watched(record: Path, document: Mapping[str, Any]) -> Watched:
    """What a prune.json or distill.json holds of it; nothing where an older version wrote it.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    widths, samples = document.get("widths") or {}, document.get("samples") or {}
    steps = tuple(int(step) for step in widths.get("steps", ()))
    vectors = tuple(
        Vector(str(vector["name"]), int(vector["whole"]), tuple(int(here) for here in vector["kept"]))
        for vector in widths.get("vectors", ())
    )
    if any(len(vector.kept) != len(steps) or vector.whole < 1 for vector in vectors):
        raise ValueError("widths that do not fit their steps")
    files = [
        (int(step), record.parent / "samples" / f"step_{int(step):06d}.png")
        for step in samples.get("steps", ())
    ]
    return Watched(
        steps,
        vectors if steps else (),
        tuple((step, file) for step, file in files if file.is_file()),
        tuple(str(panel) for panel in samples.get("panels", ())),
    )
