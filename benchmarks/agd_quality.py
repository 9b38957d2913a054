"""AGD's searched networks beside uniform narrow ones of the same MACs, trained alike from fresh weights.

    python -m benchmarks.agd_quality --data ../shared/data --output-dir runs/agd

Translation: horse2zebra at 1.0 GMACs, learnt from a folder of the official generator's outputs, and from GAN
Compression's generator; 28 horses to train on, 7 held out. Super resolution x4: IMDN as teacher, T91 to train
on, at 11 and 110.9 GMACs for 256x256 inputs. The uniform network is CycleGAN's ResNet, or an EDSR-like
upscaler, all of its layers narrowed by one factor until the MACs are the same; "uniform+input" is that
ResNet with its input added to its output, as the space `st_small` has it.
The searched architecture is trained twice: from fresh weights, as the others, and going on from those of its
trial. A searched and a random architecture differ in nothing but the search.
A stopped run goes on where it was; cells are shared out among calls that run beside each other.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.agd_cases import CASES, METHODS, MIXTURE, Case, choose, methods_of, open_teacher, pictures
from benchmarks.agd_judges import judge, references
from benchmarks.cells import DONE, claim, write_record
from benchmarks.report.pareto import PUBLISHED
from compressor.files import read_json, write_json

if TYPE_CHECKING:
    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These cases.")
@click.option("--method", "methods", multiple=True, type=click.Choice((*METHODS, MIXTURE)), default=METHODS)
@click.option("--scale", default=1.0, show_default=True, help="Of all numbers of steps.")
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of torch.")
@click.option("--record", type=click.Path(path_type=Path), help="File for all cells as JSON.")
def main(
    data: Path,
    output: Path,
    seeds: int,
    only: tuple[str, ...],
    methods: tuple[str, ...],
    scale: float,
    device: str,
    threads: int,
    record: Path | None,
) -> None:
    """Fill in the cells that are missing, and print the table of all that are there."""
    import torch

    torch.set_num_threads(threads)
    cases = {name: _scaled(CASES[name], scale) for name in only or CASES}
    for seed, (name, case), method in itertools.product(range(seeds), cases.items(), methods):
        folder = output / name / f"{method}-{seed}"
        if method in methods_of(name) and claim(folder):
            row = cell(case, data, method, seed, device, folder)
            write_json(folder / DONE, {"case": name, "method": method, "seed": seed, **row})
    for name, case in cases.items():
        if claim(output / name / "references"):
            write_json(output / name / "references" / DONE, {"case": name, "rows": references(case, data)})
    rows = [read_json(path) for path in sorted(output.rglob(DONE))]
    if record is not None:
        filled = {row["case"]: _scaled(CASES[row["case"]], scale) for row in rows}
        write_record(record, rows, filled, threads)
    print(table(rows))


def _scaled(case: Case, scale: float) -> Case:
    numbers = {
        name: max(2, round(getattr(case, name) * scale))
        for name in ("pretrain", "search", "trial_steps", "steps")
    }
    return replace(case, **numbers)


def cell(case: Case, data: Path, method: str, seed: int, device: str, folder: Path) -> dict[str, Any]:
    """Choose a network, train and judge it; the figures. What was searched is trained twice."""
    import torch

    training, _ = pictures(case, data)
    teacher = open_teacher(case, data, training)
    begun = time.monotonic()
    chosen = choose(case, teacher, training, method, seed, device, folder)
    torch.manual_seed(seed)
    fresh = replace(chosen, module=chosen.spec.build())
    found = time.monotonic()
    row = trained(fresh, case, teacher, data, seed, device, folder / "distill")
    row["seconds"] = {"choice": found - begun, "training": time.monotonic() - found}
    if method in ("search", MIXTURE):
        row["inherited"] = trained(chosen, case, teacher, data, seed, device, folder / "inherited")
    return row


def trained(
    network: Generator, case: Case, teacher: Teacher, data: Path, seed: int, device: str, folder: Path
) -> dict[str, Any]:
    """A network's figures after its training."""
    from compressor.cost import count
    from compressor.options import DistilOptions
    from compressor.training.distil import distil

    options = DistilOptions(
        steps=case.steps,
        batch=case.batch,
        crop=case.crop,
        learning_rate=1e-3,
        cached=True,
        truth=1.0 if teacher.image.scale > 1 else 0.0,
        samples=0,
        device=device,
    )
    training, _ = pictures(case, data)
    done = distil(network, teacher, training, folder, options, seed=seed, resume=True).generator
    return {
        "macs": count(done.module, done.spec.image.input_shape).macs,
        "parameters": sum(p.numel() for p in done.module.parameters()),
        **judge(case, data, done),
        "loss": read_json(folder / "distill.json")["trajectory"][-1]["loss"],
        "network": done.spec.arguments.get("operators"),
        "widths": done.spec.arguments.get("widths"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over seeds (lowest to highest; alone where there is one seed), as Markdown."""
    lines = []
    for name in CASES:
        mine = [row for row in rows if row["case"] == name]
        given = [row for group in mine if "rows" in group for row in group["rows"]]
        measured = ["psnr", "zebra_rate"] if name.startswith("st") else ["Set5", "Set14", "BSD100"]
        if not mine:
            continue
        if not name.startswith("st"):
            given = [
                {"name": f"{row.name} (published; literature count)", "macs": row.macs}
                | dict(zip(measured, row.psnr, strict=False))
                for row in PUBLISHED
            ] + given
        lines += [f"\n{name}\n", "| network | true GMACs | " + " | ".join(measured) + " |"]
        lines.append("|---" * (2 + len(measured)) + "|")
        for row in given:
            values = [f"{row[key]:.2f}" if key in row else "" for key in measured]
            lines.append(f"| {row['name']} | {row.get('macs', 0) / 1e9:.2f} | " + " | ".join(values) + " |")
        for method in (*METHODS, MIXTURE, "inherited"):
            same = [row for row in mine if row.get("method") == method]
            if method == "inherited":
                same = [row["inherited"] for row in mine if row.get("method") == "search"]
            if same:
                macs = statistics.median(row["macs"] for row in same) / 1e9
                values = [_spread([row[key] for row in same]) for key in measured]
                lines.append(f"| {method} | {macs:.3f} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}{spread}"


if __name__ == "__main__":
    main()
