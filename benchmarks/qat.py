"""What quantisation-aware training keeps: INT8 with learned ranges beside INT8 after training, on real files.

    python -m benchmarks.qat --data ../shared/data --output-dir runs/qat --record benchmarks/results/qat.json

From one and the same student, two more trainings of equal steps, batches, loss and learning rate: one in
float, whose INT8 files are then made as `pocketgan export` makes them (ranges measured, layers returned to
float until 40 dB; and once with every layer it may take in INT8), and one with INT8's rounding (`--qat`).
PSNR is to the original's pictures in float, on pictures that nothing was trained on or calibrated with;
each row says which share of the multiply-adds that INT8 may take runs on integers. The files are compared
with the fake-quantised network too; how near they can come is shown by that network in float64, since where
a value lies between two levels, errors in the last bit decide. A stopped run goes on where it was.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import read_json, write_json

if TYPE_CHECKING:
    import numpy as np

    from compressor.generators import Generator
    from exporters.runtime import Run


@dataclass(frozen=True)
class Case:
    """One generator, its pictures, and how its student is made and trained.

    Attributes:
        images, held_out: folder to train on, and one of others; without one, the last ten of `images`.
        budget: of the student, or None where it is the original itself.
        search, before: steps of pruning, and of training after it.
        steps: of the two trainings compared.
        crop, batch: of the training pictures.
        learning_rate: of the two trainings compared; before them it is 5e-4.
        size: of the pictures judged, the input's height and width.
    """

    checkpoint: str
    images: str
    held_out: str | None
    budget: str | None
    search: int
    before: int
    steps: int
    crop: int
    batch: int
    learning_rate: float
    size: tuple[int, int]


HORSES, T91, SET14 = "horse2zebra/testA_real", "sr/train_T91", "sr/Set14_x4"
CASES = {
    "gan_compression at 25 %": Case(
        "gan_compression_horse2zebra.pth", HORSES, None, "macs=25%", 60, 140, 150, 128, 1, 2e-4, (256, 256)
    ),
    "realesr_anime": Case(
        "realesr-animevideov3.pth", T91, SET14, None, 0, 0, 100, 32, 2, 1e-4, (64, 64)
    ),
}  # fmt: skip
HELD_OUT = 10
RATE = 5e-4
GOAL = 40.0


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These generators.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True, help="Of torch.")
@click.option("--record", type=click.Path(path_type=Path), help="File for all figures as JSON.")
def main(
    data: Path, output: Path, only: tuple[str, ...], seed: int, threads: int, record: Path | None
) -> None:
    """Train, export and judge what is not there yet, and print the table."""
    import torch

    from devices.host import facts
    from exporters.versions import versions

    torch.set_num_threads(threads)
    rows = []
    for name in only or CASES:
        folder = output / name.split()[0]
        if not (folder / "case.json").exists():
            write_json(folder / "case.json", judge(CASES[name], data, folder, seed))
        rows.append({"generator": name, **read_json(folder / "case.json")})
    if record is not None:
        head = {"versions": versions(), "threads": threads, "machine": facts().as_json(), "seed": seed}
        write_json(record, {**head, "cases": {n: asdict(CASES[n]) for n in only or CASES}, "rows": rows})
    print(table(rows))


def judge(case: Case, data: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Make a case's students and files, and measure them."""
    import torch

    from compressor.data.images import list_images
    from compressor.generators import load
    from compressor.options import DistilOptions
    from compressor.training.distil import distil

    teacher = load(data / "weights" / case.checkpoint)
    pictures = list_images(data / case.images)
    if case.held_out:
        unseen = [path for path in list_images(data / case.held_out) if "_LR" in path.stem]
    else:
        pictures, unseen = pictures[:-HELD_OUT], pictures[-HELD_OUT:]

    def trained(student: Generator, name: str, steps: int, rate: float, qat: bool = False) -> Generator:
        options = DistilOptions(
            steps=steps,
            batch=case.batch,
            crop=case.crop,
            learning_rate=rate,
            qat=qat,
            device="cpu",
            samples=0,
        )
        return distil(student, teacher, pictures, folder / name, options, seed=seed, resume=True).generator

    start = teacher
    if case.budget is not None:
        start = trained(_pruned(teacher, pictures, case, folder, seed), "start", case.before, RATE)
    plain = teacher if start is teacher else trained(start, "float", case.steps, case.learning_rate)
    aware = trained(start, "qat", case.steps, case.learning_rate, qat=True)

    from exporters.job import Job

    job = Job(teacher, case.size, pictures[:1], unseen, GOAL)
    entries = list(job.inputs(unseen))
    wanted = [_pixels(teacher, teacher.module(torch.from_numpy(x)).detach().numpy()) for x in entries]
    found: dict[str, Any] = {}

    def row(name: str, run: Run, exact: list[np.ndarray] | None = None, **facts: Any) -> list[np.ndarray]:
        from compressor.metrics.fidelity import psnr

        made = [_pixels(teacher, run(x)) for x in entries]
        each = [min(psnr(a, b), 100.0) for a, b in zip(made, wanted, strict=True)]
        found[name] = {"psnr": statistics.mean(each), "psnr_of_images": each, **facts}
        if exact is not None:
            near = [min(psnr(a, b), 100.0) for a, b in zip(made, exact, strict=True)]
            found[name]["psnr_to_fake_quantised"] = near
        return made

    macs = _macs(start, case.size)
    row("float", _torch(plain.module))
    for goal, name in ((GOAL, "INT8 after training"), (0.0, "INT8 after training, no layer returned")):
        _files(plain, case, pictures, unseen, folder / f"ptq-{goal:.0f}", goal, name, row, macs)
    row("QAT, its weights in float", _torch(aware.module))
    rounded = _rounded(aware)
    exact = row("QAT, fake-quantised", _torch(rounded), arithmetic=1.0)
    row("QAT, fake-quantised, in float64", _torch(rounded.double()), exact, arithmetic=1.0)
    _files(aware, case, pictures, unseen, folder / "qat-files", GOAL, "QAT, INT8", row, macs, exact)
    return {"rows": found}


def _pruned(teacher: Generator, pictures: list[Path], case: Case, folder: Path, seed: int) -> Generator:
    from compressor.budget import Budget
    from compressor.coronet.prune import prune
    from compressor.options import PruneOptions

    options = PruneOptions(
        steps=case.search, batch=case.batch, crop=case.crop, learning_rate=RATE, device="cpu", samples=0
    )
    budget = Budget.parse(case.budget or "")
    return prune(teacher, pictures, budget, folder / "prune", options, seed=seed, resume=True).generator


def _files(
    generator: Generator, case: Case, pictures: list[Path], unseen: list[Path], folder: Path, goal: float,
    name: str, row: Any, macs: dict[str, int], exact: list[np.ndarray] | None = None,
) -> None:  # fmt: skip
    """Export INT8 files, and judge both; those of QAT beside the fake-quantised pictures `exact` too."""
    from compressor.errors import GateError
    from exporters.export import export, read_export
    from exporters.runtime import open_onnx, open_tflite

    try:
        result = export(
            generator, pictures, folder, precisions=("int8",), size=case.size, images_held_out=unseen,
            resume=True, int8_goal=goal,
        )  # fmt: skip
    except GateError:  # too far for the gate, and yet a figure
        result = read_export(folder)
    for file in result.files:
        run = (open_onnx if file.runtime == "onnxruntime" else open_tflite)((folder / file.file).read_bytes())
        share = sum(n for layer, n in macs.items() if layer not in file.float_layers) / sum(macs.values())
        kind = "ONNX" if file.runtime == "onnxruntime" else "TFLite"
        row(f"{name}, {kind}", run, exact, arithmetic=share, notes=list(file.notes))


def _macs(generator: Generator, size: tuple[int, int]) -> dict[str, int]:
    """Multiply-adds of the layers that INT8 may take, which transposed, first and last are not."""
    import torch

    from compressor.quantisation.captured import capture
    from compressor.quantisation.layers import layers

    channels = generator.spec.image.channels[0]
    chosen, _ = layers(capture(generator.module, torch.zeros(1, channels, *size)))
    return {layer.name: layer.macs for layer in chosen}


def _rounded(generator: Generator) -> Any:
    import copy

    import torch

    from compressor.quantisation.fake import FakeQuantised
    from compressor.quantisation.start import find_sites

    assert generator.ranges is not None
    places, _ = find_sites(generator.module, torch.zeros(generator.spec.image.input_shape))
    return FakeQuantised.of(copy.deepcopy(generator.module), places, generator.ranges)


def _torch(module: Any) -> Run:
    import torch

    def run(picture: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            kind = next(module.parameters()).dtype
            made: np.ndarray = module(torch.from_numpy(picture).to(kind)).float().numpy()
        return made

    return run


def _pixels(generator: Generator, values: np.ndarray) -> np.ndarray:
    from compressor.data.images import to_pixels

    return to_pixels(values, generator.spec.image.output_range)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean PSNR over the unseen pictures, as Markdown."""
    lines = [
        "| generator | network | PSNR to the original | MACs in INT8 | lowest PSNR to fake quantisation |",
        "|---" * 5 + "|",
    ]
    for case in rows:
        for name, row in case["rows"].items():
            share = "-" if "arithmetic" not in row else f"{100 * row['arithmetic']:.0f} %"
            near = row.get("psnr_to_fake_quantised")
            psnr = "equal" if row["psnr"] >= 100 else f"{row['psnr']:.2f}"
            lines.append(
                f"| {case['generator']} | {name} | {psnr} | {share} | {f'{min(near):.1f}' if near else '-'} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
