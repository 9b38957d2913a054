"""CoroNet's adversarial tasks at reduced size: pruned on the way, beside the same training without pruning.

    python -m benchmarks.adversarial pix2pix --data ../shared/data --output-dir runs/facades
    python -m benchmarks.adversarial cyclegan --data ../shared/data --output-dir runs/maps

Generators are trained from nothing on the same pictures in the same order for as many steps: the whole
one, CoroNet's at the budget (from its own start and from the published one), and one whose layers are all
narrowed alike to the same budget.
Pictures held out are then painted by each. PSNR and SSIM are to the real partner, to which many pictures
are true at once, so they say whether one generator is worse than another, not how good a picture is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import read_json, write_json
from compressor.options import AdversarialOptions

if TYPE_CHECKING:
    from compressor.data.pairs import Pair
    from compressor.generators import Generator

HELD_OUT = 10
FORTH = "A_to_B"


@dataclass(frozen=True)
class Case:
    """A task: generators by width, pictures, and the width that meets the budget uniformly."""

    folder: str
    family: str
    arguments: dict[str, Any]
    width: int


CASES = {
    "pix2pix": Case("pix2pix/facades", "unet", {"depth": 6}, 32),
    "cyclegan": Case("pix2pix/maps", "resnet", {"blocks": 4}, 16),
}


@click.command()
@click.argument("task", type=click.Choice(list(CASES)))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of real pictures.")
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--budget", default="macs=25%", show_default=True)
@click.option("--size", default=64, show_default=True, help="Side of the pictures.")
@click.option("--epochs", default=60, show_default=True, help="At the full rate; as many again falling.")
@click.option("--width", type=int, help="Of the whole generator, if not the task's own.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--record", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(
    task: str, data: Path, output: Path, budget: str, size: int, epochs: int, width: int | None,
    seed: int, threads: int, device: str, record: Path | None,
) -> None:  # fmt: skip
    """Train, prune, and compare."""
    import torch

    from devices.host import facts

    torch.set_num_threads(threads)
    case = CASES[task]
    options = AdversarialOptions(
        epochs=epochs,
        epochs_decay=epochs,
        search_epochs=max(1, epochs // 2),
        scratch=True,
        crop=size,
        discriminator_width=32,
        device=device,
    )
    rows = {
        name: {"seed": seed, **row}
        for name, row in compare(case, task, data, output, budget, size, width or case.width, options, seed)
    }
    document = {
        "command": ["python", "-m", "benchmarks.adversarial", *sys.argv[1:]],
        "date": date.today().isoformat(),
        "task": task,
        "budget": budget,
        "size": size,
        "seed": seed,
        "torch": torch.__version__,
        "threads": threads,
        "machine": facts().as_json(),
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "rows": rows,
    }
    write_json(output / "adversarial.json", document)
    if record:
        write_json(record, document)
    shown = ("share", "macs", "psnr_mean", "ssim_mean", "seconds")
    for name, row in rows.items():
        click.echo(f"{name}: " + ", ".join(f"{key} {row[key]:.5g}" for key in shown if key in row))


def compare(
    case: Case,
    task: str,
    data: Path,
    output: Path,
    budget: str,
    size: int,
    width: int,
    options: AdversarialOptions,
    seed: int,
) -> list[tuple[str, dict[str, Any]]]:
    """One row of figures for each of the three generators; finished ones are read back from `output`."""
    from compressor.adversarial.fresh import fresh
    from compressor.data.pairs import find_pairs

    pairs = find_pairs(data / case.folder)
    step = len(pairs) / HELD_OUT
    held = {int((index + 0.5) * step) for index in range(HELD_OUT)}
    train = [pair for index, pair in enumerate(pairs) if index not in held]
    tests = [pairs[index] for index in sorted(held)]

    def network(channels: int, number: int = 0) -> Generator:
        return fresh(
            case.family, {**case.arguments, "width": channels}, seed=seed + number, size=(size, size)
        )

    narrow = uniform_width(network, width, budget)
    jobs: dict[str, Callable[[Path], Any]] = {
        "whole": lambda folder: _plain(task, network, width, train, options, seed, folder),
        "coronet": lambda folder: _pruned(task, network, width, train, budget, options, seed, folder),
        "coronet from the published start": lambda folder: _pruned(
            task, network, width, train, budget, replace(options, start="dhp"), seed, folder
        ),
        f"uniform width {narrow}": lambda folder: _plain(task, network, narrow, train, options, seed, folder),
    }
    rows = []
    for name, job in jobs.items():
        folder = output / name.replace(" ", "_")
        if not (folder / "row.json").exists():
            generator, figures = job(folder / "run")
            row = {**_cost(generator), **figures, **_quality(generator, tests, size)}
            write_json(folder / "row.json", row)
        rows.append((name, read_json(folder / "row.json")))
    return rows


def uniform_width(network: Callable[[int], Generator], width: int, budget: str) -> int:
    """The largest width of a family's networks that meets a budget of the one with `width` channels."""
    from compressor.budget import Budget
    from compressor.cost import count

    wanted = Budget.parse(budget)

    def cost(channels: int) -> int:
        generator = network(channels)
        return getattr(count(generator.module, generator.spec.image.input_shape), wanted.metric)

    target = wanted.target(cost(width))
    return max(channels for channels in range(1, width) if cost(channels) <= target)


def _pruned(
    task: str, network: Any, width: int, train: list[Pair], budget: str, options: AdversarialOptions,
    seed: int, folder: Path,
) -> tuple[Generator, dict[str, Any]]:  # fmt: skip
    from compressor.budget import Budget
    from compressor.coronet.cyclegan import prune_cyclegan
    from compressor.coronet.pix2pix import prune_pix2pix

    began, wanted = time.monotonic(), Budget.parse(budget)
    if task == "pix2pix":
        result = prune_pix2pix(network(width), train, wanted, folder, options, seed=seed, resume=True)
    else:
        a, b = _unpaired(train)
        result = prune_cyclegan(
            network(width), network(width, 1), a, b, wanted, folder, options, seed=seed, resume=True
        ).forth
    document = result.document
    return result.generator, {
        "seconds": time.monotonic() - began,
        "steps": document["steps_in_all"],
        "steps_of_search": document["steps"],
        "share": document["share"],
        "widths": {layer["name"]: layer["out"] for layer in document["layers"]},
        "trajectory": document["trajectory"],
    }


def _plain(
    task: str, network: Any, width: int, train: list[Pair], options: AdversarialOptions, seed: int,
    folder: Path,
) -> tuple[Generator, dict[str, Any]]:  # fmt: skip
    """The same game without any pruning."""
    import torch

    from compressor.adversarial.schedule import linear
    from compressor.coronet.cyclegan import CycleGANGame
    from compressor.coronet.pix2pix import NAME, Pix2PixGame
    from compressor.training.loop import Loop, choose_device, set_learning_rate, train_mode

    device = choose_device(options.device)
    if task == "pix2pix":
        generators = {NAME: network(width)}
        game: Any = Pix2PixGame(generators[NAME], train, options, "AtoB", seed, device)
    else:
        generators = {FORTH: network(width), "B_to_A": network(width, 1)}
        game = CycleGANGame(generators, *_unpaired(train), options, seed, device)
    modules = {name: train_mode(generator.module.to(device)) for name, generator in generators.items()}
    optimiser = torch.optim.Adam(
        [p for module in modules.values() for p in module.parameters()], betas=(options.beta1, 0.999)
    )
    steps = (options.epochs + options.epochs_decay) * game.epoch
    loop = Loop("train", steps, folder / "checkpoint.pt", {}, {})
    began, seconds = time.monotonic(), []
    for step in range(steps):
        rate = linear(step // game.epoch, options.epochs, options.epochs_decay, options.learning_rate)
        set_learning_rate(optimiser, rate)
        started = time.perf_counter()
        figures = game.update(modules, optimiser, step, rate)
        seconds.append(time.perf_counter() - started)
        if step % max(1, steps // 100) == 0:
            loop.trajectory.append({"step": step + 1, **figures})
    for module in modules.values():
        module.cpu().eval()
    return next(iter(generators.values())), {
        "seconds": time.monotonic() - began,
        "steps": steps,
        "median_step_seconds": statistics.median(seconds),
        "trajectory": loop.trajectory,
    }


def _unpaired(train: list[Pair]) -> tuple[list[Path], list[Path]]:
    """A of the first half, B of the second: no picture has its partner in the other set."""
    half = len(train) // 2
    return [pair.a for pair in train[:half]], [pair.b or pair.a for pair in train[half:]]


def _cost(generator: Generator) -> dict[str, Any]:
    from compressor.cost import count

    cost = count(generator.module, generator.spec.image.input_shape)
    return {"macs": cost.macs, "parameters": cost.parameters}


def _quality(generator: Generator, tests: list[Pair], size: int) -> dict[str, Any]:
    """PSNR (dB) and SSIM of every picture held out, to its real partner."""
    import torch

    from compressor.data.images import fit, read_image, to_pixels, to_tensor
    from compressor.metrics.fidelity import psnr, ssim

    image = generator.spec.image
    figures: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for pair in tests:
        assert pair.b is not None
        given, wanted = (fit(read_image(path), (size, size)) for path in (pair.a, pair.b))
        with torch.no_grad():
            painted = to_pixels(generator.module(to_tensor(given, image.input_range)), image.output_range)
        figures["psnr"].append(float(psnr(painted, wanted)))
        figures["ssim"].append(float(ssim(painted, wanted)))
    return {f"{name}_mean": statistics.mean(values) for name, values in figures.items()} | figures


if __name__ == "__main__":
    main()
