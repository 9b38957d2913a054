"""The speed of each real generator's files: in turns within one session, and against the machine's peak."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cells import DONE, claim
from benchmarks.exports import CASES, network, pictures_of, row
from benchmarks.latency import bench
from compressor.errors import PocketganError
from compressor.files import read_json, write_json
from compressor.progress import Progress

NETWORKS: Mapping[str, str | None] = {  # by name in `benchmarks.exports`; the run of `real_generators`
    "GAN Compression": "gan_compression",
    "fast-style": "fast_style",
    "SRVGG": "realesr_anime",
    "IMDN": "imdn",
    "VDSR": None,
}
_SIDE, _PRODUCTS = 2048, 7  # of the matrices of the peak, and how often they are multiplied


def measure(
    name: str, data: Path, exports: Path, runs: Path | None, output: Path, rounds: int, threads: int
) -> dict[str, Any]:
    """All figures of one network; what an earlier call measured is read.

    Args:
        name: of `NETWORKS`.
        data: the real generators and pictures.
        exports: where `benchmarks.exports` has made its files, or makes them now.
        runs: of `benchmarks.real_generators`, for the pruned generators; or None.
        output: for what is measured.
        rounds: timed inferences of each file.
        threads: of every runtime and of the matrix product.

    Returns:
        size and macs; series: "GROUP/FILE" -> runtime, precision and ms of each round; openvino: the same by
        runtime; peak: GFLOP/s of each matrix product; layers: name, macs and nanoseconds in ONNX Runtime.
    """
    plain = name.replace(" ", "-")
    kept = output / f"{plain}.json"
    if kept.exists():
        found: dict[str, Any] = read_json(kept)
        return found
    case, made = CASES[name], exports / plain
    if claim(made):
        write_json(made / DONE, {"network": name, **row(case, data, calibration=16, folder=made)})
    if not (made / DONE).exists():
        raise PocketganError(f"another process makes the files of {name}", fix="wait until it is done")
    generator = network(case, data, made)
    folders = [made / "ours", made / "plain"]
    pruned = runs / str(NETWORKS[name]) / "export" / "compressed" if runs and NETWORKS[name] else None
    if pruned is not None and _input(pruned) == _input(folders[0]):
        folders.append(pruned)
    peak = products(threads)
    session = bench(folders, output=output / plain, threads=[threads], rounds=rounds, resume=True)
    peak += products(threads)
    told = {
        **_work(generator, case.size),
        "series": {
            f"{series.group}/{series.file}": {
                "runtime": series.runtime,
                "precision": series.precision,
                "ms": [round(value, 4) for value in series.samples_ms],
            }
            for series in session.series
        },
        "openvino": _openvino(case, data, made, rounds, threads, generator),
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


def _input(folder: Path) -> Any:
    """The picture that an export's files take, or None where there is none."""
    from exporters.result import FILE, read_export

    return read_export(folder).input["shape"] if (folder / FILE).exists() else None


def _work(generator: Any, size: tuple[int, int]) -> dict[str, Any]:
    from compressor.cost import count

    shape = (1, generator.spec.image.channels[0], *size)
    return {"size": list(size), "macs": count(generator.module, shape).macs}


def _openvino(
    case: Any, data: Path, made: Path, rounds: int, threads: int, generator: Any
) -> dict[str, Any] | None:
    """The ONNX files, ours and the plain path's, in OpenVINO and ONNX Runtime; None: it is not installed."""
    from benchmarks.in_openvino import beside
    from exporters.job import Job

    _, held_out = pictures_of(case, data)
    job = Job(generator, case.size, held_out[:1], held_out[:1], 40.0)
    files = [path for group in ("ours", "plain") for path in sorted((made / group).glob("*.onnx"))]
    files = [path for path in files if "fp16" not in path.name]
    try:
        return beside(files, job.references, job.output_range, rounds=rounds, threads=threads)
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
