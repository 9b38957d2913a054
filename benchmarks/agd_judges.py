"""The judges of `benchmarks.agd_quality`: figures on pictures that nothing was trained on."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.agd_cases import HORSES, ZEBRAS, Case, open_teacher, pictures

if TYPE_CHECKING:
    from compressor.generators import Generator

CLASSIFIER = "weights/mobilenet_v1_075_224.safetensors"


def references(case: Case, data: Path) -> list[dict[str, Any]]:
    """Rows that nothing was trained for: the input itself and the teachers, or known upscalers."""
    from benchmarks.judging import SETS, vdsr_psnr
    from compressor.cost import count
    from compressor.generators import load

    _, held_out = pictures(case, data)
    if case.images == HORSES:
        rows = [{"name": "untranslated", **_translated(case, data, held_out, None)}]
        generator = load(data / "weights" / "gan_compression_horse2zebra.pth")
        macs = count(generator.module, generator.spec.image.input_shape).macs
        rows.append({"name": "GAN Compression", "macs": macs, **_translated(case, data, held_out, generator)})
        official = {"name": "official CycleGAN", "macs": 49_550_000_000}
        return [*rows, {**official, "zebra_rate": _rate(data, [data / ZEBRAS / _twin(p) for p in held_out])}]
    imdn = load(data / str(case.teacher), factory=case.factory)
    vdsr = load(data / "weights/vdsr_x4.safetensors", factory="benchmarks.networks.vdsr:vdsr")
    return [
        {
            "name": "IMDN (teacher)",
            "macs": count(imdn.module, (1, 3, 256, 256)).macs,
            **_upscaled(data, imdn),
        },
        {
            "name": "VDSR",
            "macs": count(vdsr.module, (1, 1, 1024, 1024)).macs,
            **{name: vdsr_psnr(vdsr, data / "sr" / f"{name}_x4") for name in SETS},
        },
    ]


def judge(case: Case, data: Path, generator: Generator) -> dict[str, Any]:
    """Figures of a trained network on pictures that it was not trained on."""
    if case.images == HORSES:
        return _translated(case, data, pictures(case, data)[1], generator)
    return _upscaled(data, generator)


def _upscaled(data: Path, generator: Generator) -> dict[str, float]:
    from benchmarks.judging import SETS, upscaling_psnr

    return {name: upscaling_psnr(generator, data / "sr" / f"{name}_x4") for name in SETS}


def _translated(case: Case, data: Path, horses: list[Path], generator: Generator | None) -> dict[str, Any]:
    """PSNR to the teacher's pictures and the share of zebras; of the inputs without a generator."""
    from benchmarks.judging import zebra_rate
    from compressor.data.images import read_image, to_pixels, to_tensor
    from compressor.evaluate import prepare, run
    from compressor.metrics.fidelity import psnr

    teacher = open_teacher(case, data, horses)
    made, found = [], []
    for path in horses:
        pixels = prepare(read_image(path), teacher.image)
        if case.outputs:
            wanted = read_image(data / case.outputs / _twin(path))
        else:
            wanted = to_pixels(
                teacher(to_tensor(pixels, teacher.image.input_range)), teacher.image.output_range
            )
        made.append(pixels if generator is None else run(generator, pixels))
        found.append(psnr(made[-1], wanted))
    figures: dict[str, Any] = {"zebra_rate": zebra_rate(made, data / CLASSIFIER)}
    if all(map(math.isfinite, found)):  # the teacher itself has none
        figures |= {"psnr": statistics.fmean(found), "psnr_of_images": [round(value, 3) for value in found]}
    return figures


def _rate(data: Path, paths: list[Path]) -> float:
    from benchmarks.judging import zebra_rate
    from compressor.data.images import read_image

    return zebra_rate(map(read_image, paths), data / CLASSIFIER)


def _twin(path: Path) -> str:
    return path.name.replace("_real", "_fake")
