"""ONNX files in OpenVINO beside onnxruntime: whether they load, how near they are, how fast, in one session.

    pip install openvino
    python -m benchmarks.in_openvino --data ../shared/data --output-dir runs/exports

OpenVINO is what an x86 user would compare with; it is no dependency of ours. The files, ours and the plain
path's, are those that `benchmarks.exports` made in the same folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import numpy as np

from benchmarks.exports import CASES, network, pictures_of
from benchmarks.statistics import FEWEST
from compressor.errors import PocketganError
from compressor.files import read_json, write_json
from exporters.parity import compare

Run = Callable[[np.ndarray], np.ndarray]
_WARM_UP = 3
_RECORD = "openvino.json"


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These networks.")
@click.option("--rounds", default=20, show_default=True, help="Timed runs of each file.")
@click.option("--threads", default=1, show_default=True, help="Of each runtime.")
def main(data: Path, output: Path, only: tuple[str, ...], rounds: int, threads: int) -> None:
    """Run the ONNX files of each network in both runtimes, in turns, and print the table."""
    from exporters.job import Job

    found = {}
    for name in only or CASES:
        folder = output / name.replace(" ", "-")
        files = [path for made in ("ours", "plain") for path in sorted((folder / made).glob("*.onnx"))]
        if files and not (folder / _RECORD).exists():
            case = CASES[name]
            _, held_out = pictures_of(case, data)
            job = Job(network(case, data, folder), case.size, held_out[:1], held_out[:4], 40.0)
            told = beside(files, job.references, job.output_range, rounds=rounds, threads=threads)
            write_json(folder / _RECORD, told)
        if (folder / _RECORD).exists():
            found[name] = read_json(folder / _RECORD)
    print(table(found))


def open_openvino(path: Path, threads: int) -> Run:
    """An ONNX file on OpenVINO's CPU device.

    Floats are computed in FP32: by default processors that have bfloat16 round to it, which costs an FP32
    file of a small CycleGAN generator 80 dB.

    Args:
        path: the file.
        threads: that it may use.

    Returns:
        (1, C, H, W) float32 -> (1, C', H', W') float32.

    Raises:
        PocketganError: OpenVINO is not installed, or refuses the file.
    """
    try:
        import openvino
    except ImportError as error:
        raise PocketganError("OpenVINO is not installed", fix="pip install openvino") from error
    try:
        compiled = openvino.Core().compile_model(
            str(path),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
    except Exception as error:  # OpenVINO's own kinds
        raise PocketganError(
            f"OpenVINO cannot open {path}", got=(str(error).strip() or type(error).__name__).splitlines()[0]
        ) from error
    request = compiled.create_infer_request()
    return lambda picture: np.array(next(iter(request.infer([picture]).values())))


def _open_onnxruntime(path: Path, threads: int) -> Run:
    from devices.runtimes import open_session

    return open_session(path, threads).run


def beside(
    files: Sequence[Path],
    pictures: Sequence[tuple[str, np.ndarray, np.ndarray]],
    output_range: tuple[float, float],
    *,
    rounds: int,
    threads: int,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Every file in both runtimes, in turns.

    Args:
        files: ONNX files of float32 input and output, of one fixed size.
        pictures: (name, input, PyTorch's output).
        output_range: values of black and white at the output.
        rounds: timed runs of each.
        threads: of each runtime.
        seconds: after which the rounds end, once each had five.

    Returns:
        {file: {runtime: {"psnr": dB of each picture to PyTorch, "ms": of each round}, or {"error"}}}.

    Raises:
        PocketganError: OpenVINO is not installed.
    """
    runs: dict[tuple[str, str], Run] = {}
    found: dict[str, Any] = {}
    openers = {"onnxruntime": _open_onnxruntime, "openvino": open_openvino}
    for path in files:
        name = f"{path.parent.name}/{path.name}"
        found[name] = {}
        for runtime, opened in openers.items():
            try:
                run = opened(path, threads)
                psnr = [compare(n, run(x), y, output_range).psnr for n, x, y in pictures]
            except PocketganError as error:
                if "not installed" in error.what:
                    raise
                found[name][runtime] = {"error": str(error)}
                continue
            runs[name, runtime] = run
            found[name][runtime] = {"psnr": [min(float(each), 200.0) for each in psnr], "ms": []}
    entry = pictures[0][1]
    until = time.monotonic() + seconds
    for turn in range(_WARM_UP + rounds):
        if turn >= _WARM_UP + FEWEST and time.monotonic() > until:
            break
        for (name, runtime), run in runs.items():
            began = time.perf_counter()
            run(entry)
            if turn >= _WARM_UP:
                found[name][runtime]["ms"].append((time.perf_counter() - began) * 1e3)
    return found


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Median ms and mean PSNR of each file in both runtimes, by network."""
    lines = ["| network | file | ONNX Runtime: ms, dB | OpenVINO: ms, dB |", "|---" * 4 + "|"]
    for case, files in rows.items():
        for name, each in files.items():
            lines.append(f"| {case} | {name} | {_said(each['onnxruntime'])} | {_said(each['openvino'])} |")
    return "\n".join(lines)


def _said(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return "does not run"
    time_taken = f"{median(found['ms']):.1f}, " if found["ms"] else ""
    return f"{time_taken}{fmean(found['psnr']):.1f}"


if __name__ == "__main__":
    main()
