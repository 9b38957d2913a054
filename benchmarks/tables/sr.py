"""Super resolution x4: PSNR and SSIM on Y, 4 pixels cut off, means over the pictures of each set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.report.pareto import LARGE, PUBLISHED
from benchmarks.tables.kept import Kept
from benchmarks.tables.model import Column, Row, Table, Value, absent, billions, decimals, millions
from benchmarks.tables.records import searched
from compressor.data.bicubic import imresize
from compressor.data.images import read_image
from compressor.metrics.fidelity import ssim
from compressor.metrics.upscaling import plane_psnr, reported

if TYPE_CHECKING:
    from compressor.generators import Generator

SETS = ("Set5", "Set14", "BSD100", "Urban100")
_BORDER = 4
_CASES = {"sr-11G": "at 11 GMACs", "sr-110.9G": "at 110.9 GMACs"}
_TABLES = {5: "SRCNN", 6: "A+", 7: "SelfExSR"}  # columns of the reference tables of Huang et al.


@dataclass(frozen=True)
class Network:
    """An upscaler whose weights may be at hand.

    Attributes:
        fetched: its name in `pocketgan data list`; None if that does not have it.
        elsewhere: who has it then.
        luma: it refines a bicubically enlarged Y plane.
    """

    name: str
    weights: str
    factory: str | None = None
    fetched: str | None = None
    luma: bool = False
    elsewhere: str = ""

    def load(self, data: Path) -> Generator:
        from compressor.generators import load

        return load(data / "weights" / self.weights, factory=self.factory)


NETWORKS = (
    Network(
        "VDSR", "vdsr_x4.safetensors", "benchmarks.networks.vdsr:vdsr", luma=True,
        elsewhere="model_epoch_50.pth of github.com/twtygqyy/pytorch-vdsr, its state_dict as safetensors",
    ),
    Network("IMDN", "IMDN_x4.pth", "benchmarks.networks.imdn:imdn_x4", fetched="imdn"),
    Network("realesr-animevideov3 (GAN-trained)", "realesr-animevideov3.pth", fetched="realesr_animevideo"),
    Network("ESRGAN (PSNR-trained)", "esrgan_psnr_x4.pth", fetched="esrgan_psnr"),
)  # fmt: skip


def build(data: Path, record: Path, kept: Kept, sets: tuple[str, ...] = SETS) -> Table:
    """The table, measuring what was not measured before.

    Args:
        sets: those to measure.
    """
    present = [name for name in sets if any((data / "sr" / f"{name}_x4").glob("*_HR.png"))]
    rows = (
        [Row("bicubic (MATLAB's)", "measured", _measured(data, present, kept, "bicubic", _bicubic))]
        if present
        else []
    )
    rows += [_network(network, data, present, kept) for network in NETWORKS]
    rows += searched(record, _CASES, {name: _psnr(name) for name in SETS})
    rows += _reference_tables(data)
    rows += [
        Row(
            row.name,
            "published",
            {"macs": row.macs, **dict(zip(map(_psnr, SETS), row.psnr, strict=True))},
            "AGD, ICML 2020",
        )
        for row in PUBLISHED
    ]
    columns = [Column("macs", "GMACs", billions), Column("parameters", "M params", millions)]
    for name in SETS:
        columns += [Column(_psnr(name), name, decimals(2)), Column(_ssim(name), "SSIM", decimals(4))]
    notes = [
        f"PSNR in dB and SSIM on Y of BT.601, {_BORDER} pixels cut off; MACs at 3x{LARGE[0]}x{LARGE[1]} in",
        "Y is rounded to integers for bicubic, as in MATLAB's tables, and for no network: 0.02 dB at 32 dB",
    ]
    notes += [absent(f"sr/{name}_x4", data, name.lower()) for name in sets if name not in present]
    return Table("Super resolution x4", tuple(columns), tuple(rows), _psnr("Set5"), tuple(notes))


def _psnr(name: str) -> str:
    return f"{name} PSNR"


def _ssim(name: str) -> str:
    return f"{name} SSIM"


def _network(network: Network, data: Path, sets: list[str], kept: Kept) -> Row:
    path = data / "weights" / network.weights
    if not path.exists():
        told = absent(f"weights/{network.weights}", data, network.fetched, network.elsewhere)
        return Row(network.name, "missing", told=told)
    loaded = functools.cache(lambda: network.load(data))

    def measure(large: Path) -> list[float]:
        small, wanted = _pair(large)
        if network.luma:
            from benchmarks.judging import vdsr_planes

            made, plane = vdsr_planes(loaded(), small, wanted)
            inner = slice(_BORDER, -_BORDER)
            return [
                plane_psnr(made, plane),
                ssim(made[inner, inner, None] / 255, plane[inner, inner, None] / 255),
            ]
        from compressor.evaluate import run

        return list(reported(run(loaded(), small), wanted, _BORDER))

    def cost(_: Path) -> list[float]:
        from compressor.cost import count

        side = 4 if network.luma else 1
        shape = (1, loaded().spec.image.channels[0], LARGE[0] * side, LARGE[1] * side)
        found = count(loaded().module, shape)
        return [found.macs, found.parameters]

    figures = _measured(data, sets, kept, network.name, measure, path)
    ((figures["macs"], figures["parameters"]),) = kept.of_pictures(f"{network.name}, cost", [path], cost)
    return Row(network.name, "measured", figures)


def _measured(
    data: Path,
    sets: list[str],
    kept: Kept,
    name: str,
    measure: Callable[[Path], list[float]],
    *weights: Path,
) -> dict[str, Value]:
    figures: dict[str, Value] = {}
    for each in sets:
        pictures = sorted((data / "sr" / f"{each}_x4").glob("*_HR.png"))
        found = kept.of_pictures(f"{name}, {each}", pictures, measure, weights, _small)
        figures[_psnr(each)], figures[_ssim(each)] = (fmean(column) for column in zip(*found, strict=True))
    return figures


def _small(large: Path) -> Path:
    return large.with_name(large.name.replace("_HR", "_LR"))


def _pair(large: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_image(_small(large)), read_image(large)


def _bicubic(large: Path) -> list[float]:
    small, wanted = _pair(large)
    return list(
        reported(imresize(np.rint(small * 255).astype(np.uint8), 4) / 255, wanted, _BORDER, rounded=True)
    )


def _reference_tables(data: Path) -> list[Row]:
    """Means over the per-image tables of Huang et al. (CVPR 2015), where they are at hand."""
    found: dict[int, dict[str, Value]] = {column: {} for column in _TABLES}
    for name in SETS:
        path = data / "sr" / "reference_tables" / f"result_{name}_SRF_4.mat"
        if not path.exists():
            continue
        import scipy.io

        tables = scipy.io.loadmat(path)
        for column, figures in found.items():
            psnr, likeness = tables["PSNR_table"][:, column], tables["SSIM_table"][:, column]
            if (psnr > 0).all():  # 0: was not run
                figures |= {_psnr(name): float(psnr.mean()), _ssim(name): float(likeness.mean())}
    told = "SelfExSR, CVPR 2015: its per-image tables"
    return [Row(_TABLES[column], "published", figures, told) for column, figures in found.items() if figures]
