"""pareto.json, for the report: networks of several budgets, beside their teacher and published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.files import read_json

LARGE = (256, 256)  # input of upscalers that published costs refer to


@dataclass(frozen=True)
class Row:
    """A published upscaler: MACs at 3x256x256 input, PSNR-Y in dB on Set5, Set14, BSD100 and Urban100."""

    name: str
    macs: float
    psnr: tuple[float, float, float, float]


# Fu et al., AutoGAN-Distiller (ICML 2020, arXiv 2006.08198), x4; "FLOPs" there are multiply-accumulates.
PUBLISHED = (
    Row("ESRGAN", 1176.61e9, (32.73, 28.99, 27.85, 27.03)),
    Row("VDSR", 699.36e9, (31.35, 28.01, 27.29, 25.18)),
    Row("AGD", 110.9e9, (31.79, 28.36, 27.41, 25.55)),
)


@dataclass(frozen=True)
class Found:
    """One network: where it lies, what was asked, MACs and parameters, and its distance to the teacher."""

    folder: str
    asked: str
    share: float
    within: bool
    macs: int
    parameters: int
    loss: float


@dataclass(frozen=True)
class Pareto:
    """Networks by falling cost.

    Attributes:
        teacher: its MACs, where they are known.
        published: rows that can stand beside them.
        factor: what MACs are multiplied by to refer to the published rows' input; 1 without these.
    """

    found: tuple[Found, ...]
    teacher: int | None
    published: tuple[Row, ...]
    factor: float


def read_pareto(path: Path) -> Pareto:
    """Read pareto.json, and of its members' search.json what they share.

    Raises:
        PocketganError, KeyError, TypeError, ValueError: it is missing or damaged.
    """
    members: list[dict[str, Any]] = read_json(path)["members"]
    found = [
        Found(
            folder=str(member["folder"]),
            asked=str(member["budget"]["asked"]),
            share=float(member["share"]),
            within=bool(member["within"]),
            macs=int(member["reached"]["macs"]),
            parameters=int(member["reached"]["parameters"]),
            loss=float(member["validation_loss"]),
        )
        for member in members
    ]
    if not found or not all(math.isfinite(each.loss) and each.macs > 0 for each in found):
        raise ValueError("networks without cost or loss")
    told: dict[str, Any] = read_json(path.parent / found[0].folder / "search.json")
    cost = told.get("teacher_cost") or {}
    upscales = told.get("scale") == 4
    height, width = (int(side) for side in told["size"])
    return Pareto(
        found=tuple(sorted(found, key=lambda each: -each.macs)),
        teacher=int(cost["macs"]) if cost.get("macs") else None,
        published=PUBLISHED if upscales else (),
        factor=LARGE[0] * LARGE[1] / (height * width) if upscales else 1.0,
    )
