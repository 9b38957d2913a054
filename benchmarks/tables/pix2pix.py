"""Pix2Pix: how near outputs are to the true pictures, and what compressing while training costs."""

from __future__ import annotations

import functools
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tables.kept import Kept
from benchmarks.tables.model import Column, Row, Table, Value, absent, billions, decimals, millions
from benchmarks.tables.records import adversarial, training_cost
from compressor.data.images import fit, read_image
from compressor.metrics.fidelity import psnr, ssim

if TYPE_CHECKING:
    from compressor.generators import Generator

_SETS = ("facades", "maps")
_SIDE = 256  # of the published generators' pictures
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
        wanted = _wanted(data, name)
        if not wanted:
            notes.append(absent(f"pix2pix/{name}", data, name))
            continue
        fake = " with the official U-Net-256's outputs, fake_B" if _has_outputs(wanted) else ""
        notes.append(f"{name}: {len(wanted)} pictures{fake}")
        found = kept.of_pictures(f"{name}, real_A", wanted, _untranslated, (), _input)
        rows.append(Row("its input, untranslated", "measured", {"set": name, **_means(found)}))
        if fake:
            found = kept.of_pictures(f"{name}, fake_B", wanted, _official, (), _output)
            rows.append(Row("official U-Net-256, its outputs", "measured", {"set": name, **_means(found)}))
    rows.append(_run_here(data, kept))
    rows += adversarial(record, "pix2pix")
    rows += training_cost(record, "unet")
    notes.append(
        "training: total time of as many steps over plain training's, on one machine in turns; OMGD's scheme "
        "(benchmarks/omgd.py) is there to be timed, and its pictures were not judged"
    )
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
        Column("training", "training", lambda value: f"{value:.2f}x"),
        Column("fid", "FID", decimals(2)),
    )
    return Table("Pix2Pix", columns, tuple(rows), "psnr", tuple(notes), ("set",))


def _run_here(data: Path, kept: Kept) -> Row:
    file, fetched, name = _WEIGHTS
    path, wanted = data / "weights" / file, _wanted(data, name)
    if not path.exists() or not wanted:
        lacks, fetch = (f"weights/{file}", fetched) if not path.exists() else (f"pix2pix/{name}", name)
        return Row("official U-Net-256, run here", "missing", {"set": name}, absent(lacks, data, fetch))
    loaded = functools.cache(lambda: _load(path))

    def measure(real: Path) -> list[float]:
        from compressor.evaluate import prepare, run

        generator = loaded()
        given, wanted = _pair(real)
        return _figures(run(generator, prepare(given, generator.spec.image)), wanted)

    def cost(_: Path) -> list[float]:
        from compressor.cost import count

        found = count(loaded().module, (1, 3, 256, 256))
        return [found.macs, found.literature_macs, found.parameters]

    figures = _means(kept.of_pictures(f"{name}, run", wanted, measure, [path], _input))
    ((figures["macs"], figures["literature"], figures["parameters"]),) = kept.of_pictures(
        f"{name}, cost", [path], cost
    )
    return Row("official U-Net-256, run here", "measured", {"set": name, **figures})


def _load(path: Path) -> Generator:
    from compressor.generators import load

    return load(path)


def _wanted(data: Path, name: str) -> list[Path]:
    """True pictures NAME_real_B beside NAME_real_A, or a fetched archive's pairs, each in one picture."""
    folder = data / "pix2pix" / name
    archived = folder / ("test" if (folder / "test").is_dir() else "val")
    return sorted(folder.glob("*_real_B.png")) or sorted(archived.glob("*.jpg"))


def _has_outputs(wanted: list[Path]) -> bool:
    return all(path.stem.endswith("_real_B") and _output(path).exists() for path in wanted)


def _pair(real: Path) -> tuple[np.ndarray, np.ndarray]:
    """(given, wanted): of one picture its right half and its left, as the published generators have them."""
    if real.stem.endswith("_real_B"):
        return read_image(_input(real)), read_image(real)
    both = read_image(real)
    middle = both.shape[1] // 2
    return fit(both[:, middle:], (_SIDE, _SIDE)), fit(both[:, :middle], (_SIDE, _SIDE))


def _untranslated(real: Path) -> list[float]:
    return _figures(*_pair(real))


def _official(real: Path) -> list[float]:
    return _figures(read_image(_output(real)), read_image(real))


def _figures(made: np.ndarray, wanted: np.ndarray) -> list[float]:
    return [psnr(made, wanted), ssim(made, wanted), float(np.abs(made - wanted).mean())]


def _means(found: list[list[float]]) -> dict[str, Value]:
    return dict(
        zip(("psnr", "ssim", "l1"), (fmean(column) for column in zip(*found, strict=True)), strict=True)
    )


def _input(real: Path) -> Path:
    return real.with_name(real.name.replace("_real_B", "_real_A"))


def _output(real: Path) -> Path:
    return real.with_name(real.name.replace("_real_B", "_fake_B"))
