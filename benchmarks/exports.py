"""Every kind of network as six files, beside the files of the plain path, on real pictures.

    python -m benchmarks.exports --data ../shared/data --output-dir runs/exports

For each network: PSNR of every file to PyTorch on held-out pictures (the worst and the mean), what stayed
float in INT8, XNNPACK's partitions, TRANSPOSEs, seconds; and the same PSNR of what `benchmarks.plain_path`
makes with the same calibration pictures. Networks without weights in the data are trained for a few steps
first, so that their numbers are those of a network that paints. With `--rounds` the files are timed too, all
of a network's in turns. A stopped run goes on where it was; networks are shared out among calls that run
beside each other.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.cells import DONE, claim, write_record
from benchmarks.exports_table import quality, speeds
from compressor.files import read_json, write_json

if TYPE_CHECKING:
    from compressor.generators import Generator

HORSES, ZEBRAS, T91 = (
    "horse2zebra/testA_real",
    "horse2zebra/fake_horse2zebra_pretrained",
    "sr/train_T91",
)
SETS14 = "sr/Set14_x4"
_COMPARED = 4  # held-out pictures
GRID = (("onnx", "fp32"), ("onnx", "int8"), ("tflite", "fp32"), ("tflite", "int8"))


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        weights: a file of the data's weights, or None: fresh, and taught for `steps`.
        family, arguments: of a fresh network.
        upscales: by 4, learnt from IMDN; else horses to zebras, learnt from a folder.
        size: of its input.
        min_psnr: dB that INT8 is asked for on every held-out picture; None: what is aimed at by itself.
    """

    weights: str | None = None
    factory: str | None = None
    family: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    upscales: bool = False
    size: tuple[int, int] = (256, 256)
    steps: int = 150
    crop: int = 128
    min_psnr: float | None = None


SMALL: dict[str, Any] = {"upscales": True, "size": (64, 64), "crop": 24, "min_psnr": 48.0}
IMDN = "benchmarks.networks.imdn:imdn_x4"
CASES = {
    "ResNet-9": Case(family="resnet", arguments={"width": 64, "blocks": 9}, min_psnr=45.0),
    "ResNet-6": Case(family="resnet", arguments={"width": 64, "blocks": 6}, min_psnr=45.0),
    "U-Net-256 batch": Case(family="unet", arguments={"width": 64}, steps=40, crop=256),
    "U-Net-256 instance": Case(
        family="unet", arguments={"width": 64, "norm": "instance"}, steps=40, crop=256
    ),
    "GAN Compression": Case("gan_compression_horse2zebra.pth"),
    "fast-style": Case("fast_style_la_muse.safetensors", "benchmarks.networks.fast_style:fast_style"),
    "RRDBNet": Case(family="rrdbnet", steps=60, **SMALL),
    "SRResNet": Case(family="srresnet", **SMALL),
    "SRVGG": Case("realesr-animevideov3.pth", **SMALL),
    "IMDN": Case("IMDN_x4.pth", IMDN, **SMALL),
    "VDSR": Case("vdsr_x4.safetensors", "benchmarks.networks.vdsr:vdsr", upscales=True, min_psnr=48.0),
    "AGD st": Case(family="agd", arguments={"space": "st_small"}),
    "AGD sr": Case(family="agd", arguments={"space": "sr_tail"}, **SMALL),
}


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These networks.")
@click.option("--calibration", default=100, show_default=True, help="At most, for INT8.")
@click.option("--rounds", default=0, show_default=True, help="Of timing; 0: none.")
@click.option("--record", type=click.Path(path_type=Path), help="File for all rows as JSON.")
def main(
    data: Path, output: Path, only: tuple[str, ...], calibration: int, rounds: int, record: Path | None
) -> None:
    """Fill in the rows that are missing, and print the table of all that are there."""
    import torch

    from benchmarks.samples import read_bench

    cases = {name: CASES[name] for name in only or CASES}
    for name, case in cases.items():
        folder = folder_of(output, name)
        if claim(folder):
            write_json(folder / DONE, {"network": name, **row(case, data, calibration, folder)})
        if rounds and not (folder / "bench").exists():
            from benchmarks.latency import bench

            bench([folder / "ours", folder / "plain"], output=folder / "bench", rounds=rounds)
    rows = [read_json(path) for path in sorted(output.rglob(DONE))]
    if record is not None:
        write_record(record, rows, cases, torch.get_num_threads())
    print(quality(rows))
    timed = {row["network"]: folder_of(output, row["network"]) / "bench" for row in rows}
    timed = {name: folder for name, folder in timed.items() if folder.exists()}
    if timed:
        print("", speeds({name: read_bench(folder) for name, folder in timed.items()}), sep="\n")


def folder_of(output: Path, name: str) -> Path:
    """Where a network's files lie."""
    return output / name.replace(" ", "-")


def pictures_of(case: Case, data: Path) -> tuple[list[Path], list[Path]]:
    """Pictures to calibrate on, and held-out ones: Set14 is there to be tested on alone."""
    from compressor.data.images import list_images, split_held_out

    if case.upscales:
        held_out = [path for path in list_images(data / SETS14) if not path.stem.endswith("_HR")]
        return list_images(data / T91), held_out
    return split_held_out(list_images(data / HORSES))


def row(case: Case, data: Path, calibration: int, folder: Path) -> dict[str, Any]:
    """One network's files, ours and the plain path's; the figures."""
    from benchmarks import plain_path
    from compressor.errors import GateError
    from exporters.export import export, read_export
    from exporters.job import Job
    from exporters.pictures import spread

    generator = network(case, data, folder)
    calibrate, held_out = map(spread, pictures_of(case, data), (calibration, _COMPARED))
    try:
        made = export(
            generator,
            calibrate,
            folder / "ours",
            size=case.size,
            calibration=len(calibrate),
            images_held_out=held_out,
            min_psnr=case.min_psnr,
            resume=True,
        )
    except GateError:
        made = read_export(folder / "ours")
    job = Job(generator, case.size, calibrate, held_out, 40.0)
    inputs = [job.tensor(path) for path in job.calibrate]
    failed = plain_path.write(generator.module, inputs, folder / "plain")
    plain = {}
    for kind, precision in GRID:
        path = folder / "plain" / f"generator-{precision}.{kind}"
        plain[path.name] = {"error": failed[path.name]} if path.name in failed else {}
        if path.exists() and path.name not in failed:
            plain[path.name] = judged(job, path)
    return {
        "parameters": sum(p.numel() for p in generator.module.parameters()),
        "size": list(case.size),
        "min_psnr": case.min_psnr,
        "ours": {
            file.file: {
                "kind": file.kind,
                "error": file.error,
                "bytes": file.bytes,
                "seconds": file.seconds,
                "float_layers": len(file.float_layers),
                "passed": file.passed,
                **({} if file.parity is None else _psnr([image.psnr for image in file.parity.images])),
                **({} if file.delegation is None else vars(file.delegation)),
                **transposes(folder / "ours" / file.file),
            }
            for file in made.files
        },
        "plain": plain,
    }


def network(case: Case, data: Path, folder: Path) -> Generator:
    """The network with its weights; without any it is taught first, once."""
    import torch

    from compressor.adversarial.fresh import fresh
    from compressor.agd.teachers import open_teacher
    from compressor.data.images import list_images, split_held_out
    from compressor.generators import load
    from compressor.options import DistilOptions
    from compressor.training.distil import distil

    if case.weights is not None:
        return load(data / "weights" / case.weights, factory=case.factory)
    training, _ = split_held_out(list_images(data / (T91 if case.upscales else HORSES)))
    if case.upscales:
        weights = data / "weights" / "IMDN_x4.pth"
        teacher = open_teacher(weights, factory=IMDN, stated={"size": case.size})
    else:
        teacher = open_teacher(data / HORSES, outputs=data / ZEBRAS, images=training)
    arguments = case.arguments if case.family != "agd" else _chosen(case)
    student = fresh(case.family, arguments, size=case.size)
    torch.manual_seed(0)  # PyTorch's start: from N(0, 0.02) deep upscalers without norms do not learn
    student = replace(student, module=student.spec.build())
    options = DistilOptions(
        steps=case.steps,
        batch=1,
        crop=case.crop,
        learning_rate=2e-4,
        cached=True,
        truth=1.0 if case.upscales else 0.0,
        samples=0,
    )
    return distil(student, teacher, training, folder / "taught", options, resume=True).generator


def _chosen(case: Case) -> Mapping[str, Any]:
    """A network of a search space in the middle of its costs, drawn with a fixed seed."""
    import numpy as np

    from compressor.agd.space import Choice, load_space
    from compressor.agd.supernet import spec_of

    space = load_space(case.arguments["space"])
    return spec_of(space, Choice.random(space, np.random.default_rng(1))).arguments


def judged(job: Any, path: Path) -> dict[str, Any]:
    """PSNR of a plain file to PyTorch, on the pictures that ours are compared on."""
    from exporters.parity import check
    from exporters.runtime import open_onnx, open_tflite

    opened: Callable[[bytes], Any] = open_onnx if path.suffix == ".onnx" else open_tflite
    try:
        parity = check(opened(path.read_bytes()), job.references, job.output_range, 0.0)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    return {**_psnr([image.psnr for image in parity.images]), **transposes(path)}


def transposes(path: Path) -> dict[str, int]:
    """How many TRANSPOSEs a TFLite file has."""
    from exporters import tflite

    if path.suffix != ".tflite" or not path.exists():
        return {}
    tree = tflite.read(path.read_bytes())
    operators = (op for graph in tree.subgraphs for op in graph.operators)
    return {"transposes": sum(tflite.operation(tree, op) == "TRANSPOSE" for op in operators)}


def _psnr(values: list[float]) -> dict[str, float]:
    capped = [min(value, 200.0) for value in values]  # equal pictures: infinite
    return {"psnr_min": min(capped), "psnr_mean": statistics.fmean(capped)}


if __name__ == "__main__":
    main()
