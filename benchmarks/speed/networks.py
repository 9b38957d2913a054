"""The speed of each real generator's files: in turns within one session, and against the machine's peak."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells import DONE, claim
from benchmarks.exports import CASES, Case, network, pictures_of, row
from benchmarks.latency import bench
from compressor.errors import PocketganError
from compressor.files import read_json, write_json
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.generators import Generator

NETWORKS: Mapping[str, str | None] = {  # by name in `benchmarks.exports`; the run of `real_generators`
    "GAN Compression": "gan_compression",
    "fast-style": "fast_style",
    "SRVGG": "realesr_anime",
    "IMDN": "imdn",
    "VDSR": None,
}
LONG = "VDSR"  # takes seconds each time: only where it is asked for
BUDGET, _STEPS = "macs=50%", (40, 60)  # of what is pruned here: to choose its channels, and to train them
_CALIBRATION = 16  # pictures
_SIDE, _PRODUCTS = 2048, 7  # of the matrices of the peak, and how often they are multiplied


@dataclass(frozen=True)
class Pace:
    """How long is measured.

    Attributes:
        rounds: timed inferences of each file.
        seconds: after which the rounds of a comparison end, once every file had five.
        threads: of every runtime and of the matrix product.
    """

    rounds: int
    seconds: float
    threads: int


def measure(
    name: str, data: Path, exports: Path, runs: Path | None, output: Path, pace: Pace
) -> dict[str, Any]:
    """All figures of one network; what an earlier call measured is read.

    Args:
        name: of `NETWORKS`.
        data: the real generators and pictures.
        exports: where `benchmarks.exports` has made its files, or makes them now.
        runs: of `benchmarks.real_generators`, for the pruned generators; None: they are pruned here, with
            few steps, since only their speed is looked at.
        output: for what is measured.
        pace: how long.

    Returns:
        size and macs; compressed: what its files are; series: "GROUP/FILE" -> runtime, precision and ms of
        each round; openvino: the same by runtime; peak: GFLOP/s of each matrix product; layers: name, macs
        and nanoseconds in ONNX Runtime.
    """
    plain = name.replace(" ", "-")
    kept = output / f"{plain}.json"
    if kept.exists():
        found: dict[str, Any] = read_json(kept)
        return found
    case, made = CASES[name], exports / plain
    if claim(made):
        write_json(made / DONE, {"network": name, **row(case, data, _CALIBRATION, made)})
    if not (made / DONE).exists():
        raise PocketganError(f"another process makes the files of {name}", fix="wait until it is done")
    generator = network(case, data, made)
    compressed = _of_a_run(runs, name, made / "ours") or _pruned(case, generator, data, made)
    folders = [made / "ours", made / "plain", compressed]
    threads, peak = pace.threads, products(pace.threads)
    session = bench(
        folders,
        output=output / plain,
        threads=[threads],
        rounds=pace.rounds,
        max_seconds=pace.seconds,
        resume=True,
    )
    peak += products(threads)
    told = {
        **_work(generator, case.size),
        "compressed": _told(compressed, made),
        "series": {
            f"{series.group}/{series.file}": {
                "runtime": series.runtime,
                "precision": series.precision,
                "ms": [round(value, 4) for value in series.samples_ms],
            }
            for series in session.series
        },
        "openvino": _openvino(case, data, made, pace, generator),
        "layers": _layers(generator, case.size, output / "layers.json", threads),
        "peak": peak + products(threads),
    }
    write_json(kept, told)
    return told


def products(threads: int) -> list[float]:
    """GFLOP/s of a few products of large float32 matrices: what this machine can reach."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    left, right = (torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    rates = []
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        torch.mm(left, right)
        rates.append(round(2 * _SIDE**3 / (time.perf_counter() - began) / 1e9, 2))
    torch.set_num_threads(before)
    return rates


def _of_a_run(runs: Path | None, name: str, ours: Path) -> Path | None:
    """The compressed files of a run of `benchmarks.real_generators`, where they take pictures as ours do."""
    from exporters.result import FILE, read_export

    folder = runs / str(NETWORKS[name]) / "export" / "compressed" if runs else None
    if folder is None or not (folder / FILE).exists():
        return None
    return folder if read_export(folder).input["shape"] == read_export(ours).input["shape"] else None


def _pruned(case: Case, generator: Generator, data: Path, made: Path) -> Path:
    """FP32 and INT8 files of the generator at half of its MACs, trained for a few steps."""
    from compressor.budget import Budget
    from compressor.coronet.prune import prune
    from compressor.errors import GateError
    from compressor.options import DistilOptions, PruneOptions
    from compressor.training.distil import distil
    from exporters.export import export
    from exporters.pictures import spread

    images, held_out = pictures_of(case, data)
    choosing, training = (
        kind(steps=steps, crop=case.crop, batch=1, device="cpu")
        for kind, steps in zip((PruneOptions, DistilOptions), _STEPS, strict=True)
    )
    small = prune(generator, images, Budget.parse(BUDGET), made / "prune", choosing, seed=0, resume=True)
    trained = distil(small.generator, generator, images, made / "distill", training, seed=0, resume=True)
    calibrate, compared = spread(images, _CALIBRATION), spread(held_out, 4)
    folder = made / "compressed"
    with contextlib.suppress(
        GateError
    ):  # so short a training may leave too little; files are there to be timed
        export(
            trained.generator,
            calibrate,
            folder,
            size=case.size,
            precisions=("fp32", "int8"),
            calibration=_CALIBRATION,
            images_held_out=compared,
            resume=True,
        )
    return folder


def _told(folder: Path, made: Path) -> dict[str, Any]:
    """Where compressed files come from, and how many layers of each INT8 file stayed in float."""
    from exporters.result import read_export

    kept = {f.file: len(f.float_layers) for f in read_export(folder).files if "int8" in f.file}
    here = (
        f"pruned to {BUDGET} in {_STEPS[0]} steps, trained for {_STEPS[1]}: to be timed, not to be looked at"
    )
    return {"made": here if made in folder.parents else "a run of it", "float_layers": kept}


def _work(generator: Generator, size: tuple[int, int]) -> dict[str, Any]:
    from compressor.cost import count

    shape = (1, generator.spec.image.channels[0], *size)
    return {"size": list(size), "macs": count(generator.module, shape).macs}


def _openvino(case: Case, data: Path, made: Path, pace: Pace, generator: Generator) -> dict[str, Any] | None:
    """The ONNX files, ours and the plain path's, in OpenVINO and ONNX Runtime; None: it is not installed."""
    from benchmarks.in_openvino import beside
    from exporters.job import Job

    _, held_out = pictures_of(case, data)
    job = Job(generator, case.size, held_out[:1], held_out[:1], 40.0)
    files = [path for group in ("ours", "plain") for path in sorted((made / group).glob("*.onnx"))]
    files = [path for path in files if "fp16" not in path.name]
    try:
        return beside(
            files,
            job.references,
            job.output_range,
            rounds=pace.rounds,
            threads=pace.threads,
            seconds=pace.seconds,
        )
    except PocketganError as error:
        if "not installed" not in error.what:
            raise
        return None


def _layers(generator: Any, size: tuple[int, int], table: Path, threads: int) -> list[dict[str, Any]]:
    """Each convolution exported and timed alone, as it stands in the network, in FP32 in ONNX Runtime."""
    from dataclasses import replace

    from benchmarks.latency_meter import input_sizes, layer_shape
    from benchmarks.layer_times import LayerTimes, LocalTimer
    from compressor.cost import count

    spec = replace(generator.spec, image=replace(generator.spec.image, size=size))
    sized = replace(generator, spec=spec)
    macs = {layer.name: layer.macs for layer in count(generator.module, spec.image.input_shape).layers}
    times, found = LayerTimes(LocalTimer("onnxruntime", threads), table), []
    sizes = input_sizes(sized)
    with Progress("layers", len(sizes)) as progress:
        for number, (name, places) in enumerate(sizes.items(), 1):
            part = generator.module.get_submodule(name)
            depthwise = 1 < part.groups == part.in_channels
            shapes = [layer_shape(part, place, "fp32", depthwise=depthwise) for place in places]
            taken = sum(times(shape, part.in_channels, part.out_channels) for shape in shapes)
            said = shapes[0].key(part.in_channels, part.out_channels)
            found.append({"name": name, "layer": said, "macs": macs[name], "nanoseconds": taken})
            progress.update(number)
    return found
