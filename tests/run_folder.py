"""Writes run folders in the formats that the stages hand over, for tests of the report.

Pictures are scikit-image's photographs; every number comes from a seeded generator.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.images import fit, write_image
from compressor.files import write_json
from compressor.metrics.fidelity import psnr, ssim
from exporters.result import Delegation, ExportedFile, ExportResult, ImageParity, Parity

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
LATENCY = {  # median ms with one thread
    ("original", "onnxruntime", "fp32"): 88.0,
    ("original", "litert", "fp32"): 97.0,
    ("compressed", "onnxruntime", "fp32"): 36.5,
    ("compressed", "onnxruntime", "fp16"): 37.0,
    ("compressed", "onnxruntime", "int8"): 22.4,
    ("compressed", "litert", "fp32"): 38.9,
    ("compressed", "litert", "fp16"): 38.5,
    ("compressed", "litert", "int8"): 14.1,
}
SIZES = {"fp32": 1.0, "fp16": 0.51, "int8": 0.28}
PSNR = {"fp32": 118.0, "fp16": 78.0, "int8": 41.0}


def write_run(
    run: Path,
    *,
    layers: int = 24,
    size: int = 256,
    scale: int = 1,
    seed: int = 0,
    name: str = "painting_resnet.pth",
    layer_name: str = "model.{}",
    picture_name: str = "{}",
    threads: tuple[int, ...] = (1, 2),
    stages: tuple[str, ...] = ("prune", "distill", "eval", "export", "bench"),
) -> Path:
    """A finished run of a generator with `layers` convolutions; `stages` says which of it exist."""
    chance = np.random.default_rng(seed)
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(
        f"generator:\n  checkpoint: {name}\nbudget: macs=50%\nseed: {seed}\nprune:\n  steps: 400\n"
    )
    machine = {"cpu": "Example CPU @ 2.60GHz", "architecture": "x86_64", "cores": 2, "logical_cores": 2}
    machine |= {"usable_cores": 2, "governor": None, "memory_mb": 24105, "virtual": True}
    machine |= {"system": "Debian GNU/Linux 12 (bookworm)", "kernel": "Linux 6.1.0", "python": "3.11.7"}
    packages = {"torch": "2.13.0", "numpy": "2.4.6", "onnxruntime": "1.31.1", "ai-edge-litert": "2.3.0"}
    command = ["/usr/local/bin/pocketgan", "run", "recipe.yaml", "--output-dir", str(run.name)]
    write_json(
        run / "environment.json",
        {"pocketgan": "0.1.0", "python": "3.11.7", "packages": packages, "machine": machine}
        | {"command": command, "seed": seed},
    )
    times = dict(
        zip(("prune", "distill", "eval", "export", "bench"), (61.2, 48.9, 6.1, 74.0, 41.3), strict=True)
    )
    write_json(run / "stages.json", {s: {"state": "done", "seconds": times[s]} for s in stages})
    write_json(run / "original" / "architecture.json", {"family": "resnet"})
    write_json(run / "original" / "provenance.json", {"source": f"weights/{name}"})
    if "prune" in stages:
        write_prune(run, chance, layers, layer_name)
    if "distill" in stages:
        points = [
            {"step": s, "loss": 0.081 * math.exp(-s / 260) + 0.011 + 0.003 * chance.random()}
            for s in range(0, 801, 4)
        ]
        write_json(run / "distill" / "distill.json", {"steps": 800, "seed": seed, "trajectory": points})
    if "eval" in stages:
        write_eval(run, chance, size, scale, picture_name)
    if "export" in stages:
        write_exports(run, chance, name, size)
    if "bench" in stages:
        write_bench(run, chance, machine, threads)
    return run


def write_prune(run: Path, chance: np.random.Generator, layers: int, layer_name: str) -> None:
    rows: list[dict[str, Any]] = []
    for index in range(layers):
        edge = min(index, layers - 1 - index)
        before = 3 if index == layers - 1 else (64, 128, 256)[min(edge, 2)]
        after = before if edge == 0 and index else max(8, int(before * chance.uniform(0.35, 0.95)))
        macs = before * 9 * 150_000
        name = layer_name.format(index)
        rows.append({"name": name, "kind": "Conv2d", "out_before": before, "out": after})
        rows[-1] |= {"macs_before": macs, "macs": int(macs * (after / before) ** 2)}
    before, after = (sum(row[key] for row in rows) for key in ("macs_before", "macs"))
    target = after + before // 500
    trajectory = [
        {
            "step": s,
            "share": 1 - (1 - after / before) * min(1, s / 300) ** 0.7,
            "loss": 0.02 + 0.2 * chance.random() / (1 + s / 50),
        }
        for s in range(0, 401, 2)
    ]
    noted = list(range(8, 401, 8))
    document = {
        "budget": {"asked": f"macs={target / before:.0%}", "metric": "macs", "target": target},
        "original": {
            "macs": before,
            "literature_macs": before + 10**9,
            "parameters": 2_855_000,
            "bytes": 11_420_000,
        },
        "reached": {
            "macs": after,
            "literature_macs": after + 5 * 10**8,
            "parameters": 1_204_000,
            "bytes": 4_816_000,
        },
        "share": after / before,
        "hypernet": "gated",
        "steps": 400,
        "seed": 0,
        "layers": rows,
        **write_samples(run / "prune"),
        "widths": {
            "steps": noted,
            "vectors": [
                {
                    "name": row["name"],
                    "whole": row["out_before"],
                    "kept": [row["out_before"] - (row["out_before"] - row["out"]) * s // 400 for s in noted],
                    "latent": [1.0] * len(noted),
                }
                for row in rows[::3]
            ],
        },
        "kept_whole": [{"name": layer_name.format(layers - 1), "reason": "its channels are the picture's"}],
        "trajectory": trajectory,
    }
    write_json(run / "prune" / "prune.json", document)


def write_samples(stage: Path) -> dict[str, Any]:
    """Sample pictures over time: the original's grey beside a brighter and brighter one."""
    steps = (1, *range(50, 401, 50))
    for step in steps:
        grey = np.full((64, 128, 3), 0.5, np.float32)
        grey[:, 64:] = step / 400
        write_image(stage / "samples" / f"step_{step:06d}.png", grey)
    return {"samples": {"panels": ["original", "student"], "steps": list(steps)}}


def write_eval(run: Path, chance: np.random.Generator, size: int, scale: int, picture_name: str) -> None:
    import skimage.data

    rows = []
    for photograph in PHOTOGRAPHS:
        name = picture_name.format(photograph)
        picture = fit(np.float32(getattr(skimage.data, photograph)()[..., :3]) / 255, (size, size))
        big = np.kron(picture, np.ones((scale, scale, 1), np.float32))
        painted = np.clip(np.round((big[..., [2, 0, 1]] ** 0.8) * 6) / 6, 0, 1)
        made = np.clip(painted + chance.normal(0, 0.02, painted.shape).astype(np.float32), 0, 1)
        error = np.clip(np.abs(made - painted) * 4, 0, 1)
        for kind, pixels in (
            ("input", picture),
            ("original", painted),
            ("compressed", made),
            ("error", error),
        ):
            write_image(run / "eval" / "images" / f"{name}.{kind}.png", pixels)
        rows.append({"name": name, "psnr": float(psnr(made, painted)), "ssim": ssim(made, painted)})
    rows += [
        {
            "name": f"photo_{i:03d}",
            "psnr": float(chance.normal(33, 2)),
            "ssim": float(chance.uniform(0.9, 0.97)),
        }
        for i in range(20)
    ]
    ratios = [row["psnr"] for row in rows]
    document = {
        "reference": "original generator's outputs",
        "images": rows,
        "psnr_median": float(np.median(ratios)),
    }
    document |= {
        "psnr_mean": float(np.mean(ratios)),
        "ssim_mean": float(np.mean([row["ssim"] for row in rows])),
    }
    document |= {"worst": rows[int(np.argmin(ratios))]["name"]}
    write_json(run / "eval" / "eval.json", document)


def write_exports(run: Path, chance: np.random.Generator, name: str, size: int) -> None:
    for group, precisions, whole in (
        ("compressed", ("fp32", "fp16", "int8"), 4.83e6),
        ("original", ("fp32",), 11.44e6),
    ):
        files = []
        for ending, runtime in ((".onnx", "onnxruntime"), (".tflite", "litert")):
            for precision in precisions:
                images = tuple(
                    ImageParity(
                        photograph,
                        10 ** (-PSNR[precision] / 21),
                        PSNR[precision] + chance.uniform(0, 6),
                        0.99,
                    )
                    for photograph in PHOTOGRAPHS
                )
                files.append(
                    ExportedFile(
                        file=f"generator-{precision}{ending}",
                        runtime=runtime,
                        precision=precision,
                        kind={"fp32": "fp32", "fp16": "fp16-weights", "int8": "int8-static"}[precision],
                        bytes=int(whole * SIZES[precision]),
                        sha256="",
                        seconds=9.5,
                        input_layout="NCHW" if ending == ".onnx" else "NHWC",
                        parity=Parity(images, 30.0 if precision == "int8" else 50.0),
                        dtypes={"float32": 80},
                        delegation=None
                        if ending == ".onnx"
                        else Delegation(
                            104, 98 if precision == "int8" else 104, 3 if precision == "int8" else 1
                        ),
                        float_layers=("model.0", "model.23") if precision == "int8" else (),
                        notes=("first and last convolution kept in float",) if precision == "int8" else (),
                    )
                )
        source = {"shape": [1, 3, size, size], "range": [-1.0, 1.0], "output_range": [-1.0, 1.0], "scale": 1}
        generator = {"name": name, "sha256": "0" * 64, "family": "resnet"}
        ExportResult(run / "export" / group, generator, source, {}, {}, tuple(files)).write()


def write_bench(
    run: Path, chance: np.random.Generator, machine: dict[str, Any], threads: tuple[int, ...]
) -> None:
    common = np.exp(chance.normal(0, 0.01, 30))
    series = []
    for count in threads:
        for (group, runtime, precision), one in LATENCY.items():
            middle = one * (0.56 if count > 1 else 1.0)
            noise = np.exp(chance.normal(0, 0.12 if (runtime, count) == ("litert", 2) else 0.015, 30))
            series.append(
                {
                    "group": group,
                    "file": f"generator-{precision}{'.onnx' if runtime == 'onnxruntime' else '.tflite'}",
                    "runtime": runtime,
                    "precision": precision,
                    "threads": count,
                    "init_ms": middle * 0.9,
                    "first_ms": middle * 1.7,
                    "warmup_ms": [middle * 1.1] * 3,
                    "samples_ms": [float(value) for value in middle * common * noise],
                    "peak_rss_mb": 120 + one,
                    "base_rss_mb": 40.0,
                }
            )
    document = {
        "format": "pocketgan.bench/1",
        "machine": machine,
        "runtimes": {"onnxruntime": "1.31.1", "litert": "2.3.0"},
    }
    document |= {"order": "interleaved", "rounds": 30, "warmup": 3, "series": series}
    write_json(run / "bench" / "bench.json", document)
