"""Pix2Pix: how near outputs are to the true pictures."""

from __future__ import annotations

import functools
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tables.kept import Kept
from benchmarks.tables.model import Column, Row, Table, Value, billions, decimals, millions
from benchmarks.tables.records import adversarial
from compressor.data.images import read_image
from compressor.metrics.fidelity import psnr, ssim

if TYPE_CHECKING:
    from compressor.generators import Generator

_SETS = ("facades", "maps")
_WEIGHTS = ("pix2pix_facades.pth", "pix2pix_facades", "facades")  # file, name in `pocketgan data`, its set
_LI = "GAN Compression, CVPR 2020"
_PUBLISHED = (
    ("Pix2Pix", "edges2shoes", {"fid": 24.12}, _LI),
    ("GAN Compression", "edges2shoes", {"fid": 26.6, "literature": 4.81e9, "parameters": 0.7e6}, _LI),
    ("OMGD, U-Net ngf 16", "-", {"literature": 1.219e9, "parameters": 3.404e6}, "OMGD, ICCV 2021"),
)


def build(data: Path, record: Path, kept: Kept) -> Table:
    """The table, measuring what was not measured before."""
    rows: list[Row] = []
    notes = ["PSNR in dB, SSIM and mean absolute difference (0 to 1) to real_B over all channels"]
    for name in _SETS:
        folder = data / "pix2pix" / name
        wanted = sorted(folder.glob("*_real_B.png"))
        if not wanted:
            notes.append(f"pix2pix/{name} with real_A, real_B and fake_B is not in {data}")
            continue
        notes.append(f"{name}: {len(wanted)} pictures; fake_B are outputs of the official U-Net-256")
        for kind, told in (
            ("real_A", "its input, untranslated"),
            ("fake_B", "official U-Net-256, its outputs"),
        ):
            if all(_other(path, kind).exists() for path in wanted):
                other = functools.partial(_other, kind=kind)
                found = kept.of_pictures(
                    f"{name}, {kind}", wanted, functools.partial(_judge, kind), (), other
                )
                rows.append(Row(told, "measured", {"set": name, **_means(found)}))
    rows.append(_run_here(data, kept))
    rows += adversarial(record, "pix2pix")
    rows += [
        Row(name, "published", {"set": task, **figures}, told) for name, task, figures, told in _PUBLISHED
    ]
    columns = (
        Column("set", "set", str),
        Column("psnr", "PSNR", decimals(2)),
        Column("ssim", "SSIM", decimals(4)),
        Column("l1", "L1", decimals(4)),
        Column("macs", "GMACs", billions),
        Column("literature", "literature GMACs", billions),
        Column("parameters", "M params", millions),
        Column("fid", "FID", decimals(2)),
    )
    return Table("Pix2Pix", columns, tuple(rows), "psnr", tuple(notes))


def _run_here(data: Path, kept: Kept) -> Row:
    file, fetched, name = _WEIGHTS
    path, wanted = data / "weights" / file, sorted((data / "pix2pix" / name).glob("*_real_B.png"))
    if not path.exists() or not wanted:
        lacks = f"weights/{file}" if not path.exists() else f"pix2pix/{name}"
        fetch = f": pocketgan data fetch {fetched}" if not path.exists() else ""
        return Row(
            "official U-Net-256, run here", "missing", {"set": name}, f"{lacks} is not in {data}{fetch}"
        )
    loaded = functools.cache(lambda: _load(path))

    def measure(real: Path) -> list[float]:
        from compressor.evaluate import prepare, run

        generator = loaded()
        made = run(generator, prepare(read_image(_other(real, "real_A")), generator.spec.image))
        return _figures(made, read_image(real))

    def cost(_: Path) -> list[float]:
        from compressor.cost import count

        found = count(loaded().module, (1, 3, 256, 256))
        return [found.macs, found.literature_macs, found.parameters]

    other = functools.partial(_other, kind="real_A")
    figures = _means(kept.of_pictures(f"{name}, run", wanted, measure, [path], other))
    ((figures["macs"], figures["literature"], figures["parameters"]),) = kept.of_pictures(
        f"{name}, cost", [path], cost
    )
    return Row("official U-Net-256, run here", "measured", {"set": name, **figures})


def _load(path: Path) -> Generator:
    from compressor.generators import load

    return load(path)


def _judge(kind: str, real: Path) -> list[float]:
    return _figures(read_image(_other(real, kind)), read_image(real))


def _figures(made: np.ndarray, wanted: np.ndarray) -> list[float]:
    return [psnr(made, wanted), ssim(made, wanted), float(np.abs(made - wanted).mean())]


def _means(found: list[list[float]]) -> dict[str, Value]:
    return dict(
        zip(("psnr", "ssim", "l1"), (fmean(column) for column in zip(*found, strict=True)), strict=True)
    )


def _other(real: Path, kind: str) -> Path:
    return real.with_name(real.name.replace("_real_B", f"_{kind}"))
