r"""The whole job on four real generators, as a user would run it, and one table of what came out.

    python -m benchmarks.real_generators --data ../shared/data --output-dir runs/real \
        --record benchmarks/results/real_generators.json

Each generator is pruned to half of its MACs, distilled, exported to six files, checked and timed
by `pocketgan run` in a process of its own. The table's figures are read from the run folders.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click

from compressor.files import read_json, write_json


@dataclass(frozen=True)
class Case:
    """One generator with the pictures and settings it is compressed with."""

    checkpoint: str
    images: str
    factory: str | None
    settings: tuple[str, ...]


CASES = {
    "gan_compression": Case(
        "gan_compression_horse2zebra.pth",
        "horse2zebra/testA_real",
        None,
        ("prune.steps=200", "distill.steps=600"),
    ),
    "fast_style": Case(
        "fast_style_la_muse.safetensors",
        "horse2zebra/testA_real",
        "benchmarks.networks.fast_style:fast_style",
        ("prune.steps=150", "prune.crop=128", "distill.steps=600", "distill.crop=128"),
    ),
    "realesr_anime": Case(
        "realesr-animevideov3.pth",
        "sr/train_T91",
        None,
        ("prune.steps=300", "prune.crop=48", "distill.steps=1000", "distill.crop=48"),
    ),
    "imdn": Case(
        "IMDN_x4.pth",
        "sr/train_T91",
        "benchmarks.networks.imdn:imdn_x4",
        ("prune.steps=300", "prune.crop=48", "distill.steps=1000", "distill.crop=48"),
    ),
}


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--budget", default="macs=50%", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="Run these; may be given often.")
@click.option("--record", type=click.Path(path_type=Path), help="File for the table as JSON.")
def main(
    data: Path, output: Path, budget: str, seed: int, only: tuple[str, ...], record: Path | None
) -> None:
    """Compress the real generators and print the table; a run that was stopped goes on."""
    rows: list[dict[str, Any]] = []
    for name in only or CASES:
        run = output / name
        _run(CASES[name], data.absolute(), run, budget, seed)
        rows.append({"generator": name, **figures(run)})
    if record is not None:
        made = read_json(output / rows[-1]["generator"] / "environment.json")
        head = {
            "command": " ".join(["python", "-m", "benchmarks.real_generators", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "seed": seed,
            "budget": budget,
            **{name: made[name] for name in ("packages", "python", "machine")},
        }
        write_json(record, {**head, "rows": rows})
    print(table(rows))


def _run(case: Case, data: Path, run: Path, budget: str, seed: int) -> None:
    recipe = run.with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    factory = f"  factory: {case.factory}\n" if case.factory else ""
    recipe.write_text(
        f"generator:\n  checkpoint: {data / 'weights' / case.checkpoint}\n{factory}"
        f"data:\n  images: {data / case.images}\nbudget: {budget}\nseed: {seed}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pocketgan", "run", str(recipe), "--output-dir", str(run)]
    for setting in case.settings:
        command += ["--set", setting]
    if (run / "recipe.yaml").exists():
        command.append("--resume")
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")


def figures(run: Path) -> dict[str, Any]:
    """What a run reached, read from its folder."""
    from benchmarks.statistics import summarise

    pruned, judged = read_json(run / "prune" / "prune.json"), read_json(run / "eval" / "eval.json")
    files = {f["file"]: f for f in read_json(run / "export" / "compressed" / "export.json")["files"]}
    latency = {
        (s["group"], s["runtime"], s["precision"], s["threads"]): summarise(s["samples_ms"]).median
        for s in read_json(run / "bench" / "bench.json")["series"]
    }
    row: dict[str, Any] = {
        "share": pruned["share"],
        "psnr_to_original": judged["psnr_mean"],
        "parity_psnr": {name: file["parity"]["psnr_min"] for name, file in files.items()},
        "bytes": {name: file["bytes"] for name, file in files.items()},
        "passed": all(file["parity"]["passed"] for file in files.values()),
        "speedup": {},
    }
    for (group, runtime, precision, threads), time in latency.items():
        if group == "compressed":
            whole = latency[("original", runtime, "fp32", threads)]
            row["speedup"][f"{runtime} {precision} {threads}t"] = whole / time
    return row


COLUMNS = (
    "generator", "MACs kept", "PSNR to original", "worst FP32/FP16 parity", "INT8 ONNX / TFLite parity",
    "FP32 speed-up ONNX / TFLite", "INT8 speed-up ONNX / TFLite",
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown; speed-ups are over the original's FP32 file in the same runtime, 1 thread."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        parity, fast = row["parity_psnr"], row["speedup"]
        # None stands for infinite: equal pictures
        exact = min(value or float("inf") for name, value in parity.items() if "int8" not in name)
        cells = [
            row["generator"],
            f"{100 * row['share']:.2f} %",
            f"{row['psnr_to_original']:.2f} dB",
            f"{exact:.1f} dB",
            " / ".join(f"{parity[f'generator-int8.{kind}']:.1f}" for kind in ("onnx", "tflite")) + " dB",
            *(
                " / ".join(
                    f"{fast[f'{runtime} {precision} 1t']:.2f}x" for runtime in ("onnxruntime", "litert")
                )
                for precision in ("fp32", "int8")
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
