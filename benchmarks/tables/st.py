"""Translation, horses to zebras: the share that a classifier takes for zebras, and what networks cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tables.kept import Kept
from benchmarks.tables.model import Column, Row, Table, Value, absent, billions, decimals, millions
from benchmarks.tables.records import pruned, searched
from compressor.data.images import read_image
from compressor.metrics.fidelity import psnr

if TYPE_CHECKING:
    from compressor.generators import Generator

CLASSIFIER = "weights/mobilenet_v1_075_224.safetensors"
_FOLDER, _REAL, _FETCHED = "horse2zebra", "testA_real", "cyclegan/horse2zebra/testA"
_OFFICIAL = "fake_horse2zebra_pretrained"
_OUTPUTS = {
    _OFFICIAL: "official CycleGAN",
    "fake_h2zfinetune": "another ResNet-9, h2zfinetune",
    "fake_h2z_base": "another ResNet-9, h2z_base",
}
_NETWORKS = {  # weights, what `pocketgan data` calls them, and who has them otherwise
    "GAN Compression": (
        "gan_compression_horse2zebra.pth", None, "the compressed generator of mit-han-lab/gan-compression"
    ),
    "CycleGAN, run here": ("cyclegan_horse2zebra.pth", "cyclegan_horse2zebra", ""),
}  # fmt: skip
_GOOGLE = "Keras' MobileNet 0.75 224 for ImageNet, laid out as benchmarks/networks/mobilenet.py reads it"
_CASES = {"st-folder": "to the official outputs", "st-gan-compression": "to GAN Compression"}
_AGD, _LI = "AGD's repository (VITA-Group/AGD)", "GAN Compression, CVPR 2020"
# Literature MACs count a transposed convolution on its output. FID protocols differ from paper to paper.
_PUBLISHED = (
    ("CycleGAN", "h2z", {"literature": 56.8e9, "parameters": 11.4e6, "fid": 65.75}, _LI),
    ("GAN Compression", "h2z", {"literature": 2.67e9, "parameters": 0.342e6, "fid": 65.33}, _LI),
    ("OMGD, ngf 16", "h2z", {"literature": 1.408e9, "parameters": 0.137e6, "fid": 51.92}, "OMGD, ICCV 2021"),
    ("CEC", "h2z", {"literature": 13.4e9, "fid": 96.0}, "Shu et al., ICCV 2019"),
    ("DMAD", "h2z", {"literature": 3.97e9, "fid": 62.41}, "DMAD's paper"),
    ("CAT", "h2z", {"literature": 2.55e9, "fid": 60.2}, "CAT's paper"),
    ("CRD, 40x", "h2z", {"fid": 46.61}, "CRD's paper"),
    ("DCD, 40x", "h2z", {"fid": 48.24}, "DCD's paper"),
    ("CycleGAN", "any", {"literature": 54.17e9, "bytes": 43.51e6}, _AGD),
    ("CEC", "h2z", {"literature": 13.45e9, "bytes": 10.16e6}, _AGD),
    ("CEC", "z2h", {"literature": 13.06e9, "bytes": 10.0e6}, _AGD),
    ("CEC", "s2w", {"literature": 12.98e9, "bytes": 7.98e6}, _AGD),
    ("AGD", "h2z", {"literature": 6.39e9, "bytes": 4.48e6}, _AGD),
    ("AGD", "z2h", {"literature": 4.84e9, "bytes": 3.2e6}, _AGD),
    ("AGD", "s2w", {"literature": 4.34e9, "bytes": 2.72e6}, _AGD),
    ("CoroNetGAN", "z2h", {"fid": 32.3}, "ICCV Workshops 2023; far from all others': another protocol"),
    ("CoroNetGAN", "s2w", {"fid": 72.3}, "ICCV Workshops 2023"),
)  # fmt: skip


def build(data: Path, record: Path, kept: Kept) -> Table:
    """The table, measuring what was not measured before."""
    horses = sorted((data / _FOLDER / _REAL).glob("*.png")) or sorted((data / _FETCHED).glob("*.jpg"))
    lacking = [] if horses else [absent(_FETCHED, data, "horse2zebra")]
    lacking += [] if (data / CLASSIFIER).exists() else [absent(CLASSIFIER, data, None, _GOOGLE)]
    notes = [f"nothing is measured: {each}" for each in lacking]
    rows, notes = ([], notes) if lacking else _measured(data, horses, kept)
    rows += [
        Row(name, "missing", {"task": "h2z"}, absent(f"weights/{weights}", data, fetched, elsewhere))
        for name, (weights, fetched, elsewhere) in _NETWORKS.items()
        if not (data / "weights" / weights).exists()
    ]
    columns = {"zebra_rate": "zebra_rate", "psnr": "psnr"}
    rows += searched(record, _CASES, columns)
    rows += pruned(record, "gan_compression", {"psnr": "psnr", "share": "share"})
    rows += [
        Row(name, "published", {"task": task, **figures}, told) for name, task, figures, told in _PUBLISHED
    ]
    notes += [
        "zebras: share of outputs whose MobileNet top-1 is a zebra; recorded ones are of 7 held-out horses",
        "PSNR in dB: measured, to the official outputs; recorded, to the teacher's or the original's own",
        "true MACs at 3x256x256 are in GMACs; the literature counts a transposed convolution on its output",
        "FID is not measured here, since it takes Inception's weights and real zebras: pocketgan data fetch "
        "inception horse2zebra, then pocketgan metrics PICTURES --real DIR --fid-weights FILE",
    ]
    shown = (
        Column("task", "task", str),
        Column("macs", "GMACs", billions),
        Column("literature", "literature GMACs", billions),
        Column("parameters", "M params", millions),
        Column("bytes", "MB", lambda value: f"{value / 1e6:.2f}"),
        Column("share", "MACs kept", lambda value: f"{100 * value:.2f} %"),
        Column("zebra_rate", "zebras", decimals(2)),
        Column("psnr", "PSNR", decimals(2)),
        Column("fid", "FID", decimals(2)),
    )
    return Table("Translation, horses to zebras", shown, tuple(rows), "zebra_rate", tuple(notes))


def _measured(data: Path, horses: list[Path], kept: Kept) -> tuple[list[Row], list[str]]:
    from benchmarks.judging import zebra_judge

    is_zebra = functools.cache(lambda: zebra_judge(data / CLASSIFIER))
    official, here = data / _FOLDER / _OFFICIAL, horses[0].parent
    targets = all((official / _twin(horse)).exists() for horse in horses)

    def figures(
        name: str, make: Callable[[Path], np.ndarray], beside: Path, *weights: Path
    ) -> dict[str, Value]:
        aimed = targets and beside != official

        def measure(horse: Path) -> list[float]:
            made = make(horse)
            found = [float(is_zebra()(made))]
            return [*found, psnr(made, read_image(official / _twin(horse)))] if aimed else found

        pictures = [data / CLASSIFIER, *weights]
        found = kept.of_pictures(f"zebras, {name}", horses, measure, pictures, lambda h: _beside(beside, h))
        means = [fmean(column) for column in zip(*found, strict=True)]
        return {"task": "h2z", "zebra_rate": means[0], **({"psnr": means[1]} if aimed else {})}

    rows = [Row("untranslated", "measured", figures("untranslated", read_image, here))]
    notes = [f"measured on {len(horses)} horses of CycleGAN's 120 in testA"]
    for folder, name in _OUTPUTS.items():
        outputs = data / _FOLDER / folder
        if not all((outputs / _twin(horse)).exists() for horse in horses):
            notes.append(f"outputs of {name}: {_FOLDER}/{folder} is not in {data}, or lacks some horses")
            continue
        read = functools.partial(_output, outputs)
        rows.append(Row(f"{name}, its outputs", "measured", figures(name, read, outputs)))
    for name, (weights, _, _) in _NETWORKS.items():
        path = data / "weights" / weights
        if not path.exists():
            continue
        painter = _Painter(path)
        found = figures(name, painter.paint, here, path)
        ((found["macs"], found["literature"], found["parameters"]),) = kept.of_pictures(
            f"{name}, cost", [path], painter.cost
        )
        rows.append(Row(name, "measured", found))
    return rows, notes


class _Painter:
    """A generator that is loaded when it is needed."""

    def __init__(self, path: Path):
        self.path = path

    @functools.cached_property
    def generator(self) -> Generator:
        from compressor.generators import load

        return load(self.path)

    def paint(self, horse: Path) -> np.ndarray:
        from compressor.evaluate import prepare, run

        return run(self.generator, prepare(read_image(horse), self.generator.spec.image))

    def cost(self, _: Path) -> list[float]:
        from compressor.cost import count

        found = count(self.generator.module, (1, 3, 256, 256))
        return [found.macs, found.literature_macs, found.parameters]


def _twin(horse: Path) -> str:
    return horse.name.replace("_real", "_fake")


def _beside(folder: Path, horse: Path) -> Path:
    return folder / (horse.name if folder == horse.parent else _twin(horse))


def _output(folder: Path, horse: Path) -> np.ndarray:
    return read_image(folder / _twin(horse))
