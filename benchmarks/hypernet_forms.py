"""The forms of the hypernetwork at equal steps: two real generators pruned to half their MACs with each.

    python -m benchmarks.hypernet_forms --data ../shared/data --output-dir runs/forms \\
        --record benchmarks/results/hypernet_forms.json

For every generator, form and seed: search, then training of the small network, then PSNR of its pictures to
the original's on pictures held out. Cells that are finished are read back from the output folder. Beside
them, how far the forms agree before a search: the weights they make, the picture, and the weights after
one step of plain gradient descent, on the latent entries alone and on everything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click

from compressor.files import read_json, write_json

if TYPE_CHECKING:
    import torch

    from compressor.coronet.supernet import Supernet
    from compressor.generators import Generator

FORMS = {  # by name: the form, and the search's learning rate over the default
    "gated": ("gated", 1.0),
    "collapsed": ("collapsed", 1.0),
    "dhp": ("dhp", 1.0),
    "dhp, rate x 8": ("dhp", 8.0),  # `prune` divides its rate by 8: Adam moves all 8 factors of a sum at once
}
HELD_OUT = 7  # pictures
RATE = 1e-3  # of the one step of gradient descent


@dataclass(frozen=True)
class Case:
    """One generator, its pictures, those held out (None: some of them), and the side of training crops."""

    checkpoint: str
    factory: str | None
    images: str
    held_out: str | None
    crop: int


CASES = {
    "imdn": Case("IMDN_x4.pth", "benchmarks.networks.imdn:imdn_x4", "sr/train_T91", "sr/Set14_x4", 32),
    "gan_compression": Case("gan_compression_horse2zebra.pth", None, "horse2zebra/testA_real", None, 128),
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of real generators.")
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--record", type=click.Path(path_type=Path), help="Write the figures here too.")
@click.option("--budget", default="macs=50%", show_default=True)
@click.option("--steps", default=150, show_default=True, help="Of search; as many of training after it.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These generators alone.")
@click.option("--threads", default=1, show_default=True)
def main(
    data: Path, output: Path, record: Path | None, budget: str, steps: int, seeds: tuple[int, ...],
    only: tuple[str, ...], threads: int,
) -> None:  # fmt: skip
    """Prune with every form and compare."""
    import torch

    from benchmarks.side_by_side import circumstances

    torch.set_num_threads(threads)
    document: dict[str, Any] = circumstances(
        "benchmarks.hypernet_forms", seeds[0], threads, torch.device("cpu")
    )
    document |= {"seeds": list(seeds), "budget": budget, "steps": steps, "generators": {}}
    for name in only or CASES:
        cells = []
        for seed in seeds:
            for form in FORMS:  # in turns, so that a run stopped early still compares
                cells.append(_cell(name, form, seed, data, budget, steps, output))
                print(f"{name}, {form}, seed {seed}: {cells[-1]['psnr_mean']:.2f} dB", file=sys.stderr)
        agree = agreement(_load(CASES[name], data), budget, seeds[0])
        document["generators"][name] = {"cells": cells, "agreement": agree}
        write_json(output / "hypernet_forms.json", document)
    if record:
        write_json(record, document)
    click.echo(report(document))


def _load(case: Case, data: Path) -> Generator:
    from compressor.generators import load

    return load(data / "weights" / case.checkpoint, factory=case.factory)


def _cell(
    name: str, way: str, seed: int, data: Path, budget: str, steps: int, output: Path
) -> dict[str, Any]:
    """The figures of one form on one generator with one seed."""
    from compressor.budget import Budget
    from compressor.coronet.prune import prune
    from compressor.evaluate import evaluate
    from compressor.options import DistilOptions, PruneOptions
    from compressor.training.distil import distil

    form, factor = FORMS[way]
    folder = output / name / f"{way.replace(', ', '_').replace(' / ', '_')}-{seed}"
    if (folder / "cell.json").exists():
        found: dict[str, Any] = read_json(folder / "cell.json")
        return found
    case = CASES[name]
    original = _load(case, data)
    train, held = _pictures(case, data)
    search = PruneOptions(steps=steps, crop=case.crop, hypernet=form, device="cpu")
    search = replace(search, learning_rate=factor * search.learning_rate)
    tune = DistilOptions(steps=steps, crop=case.crop, device="cpu")
    began = time.monotonic()
    pruned = prune(original, train, Budget.parse(budget), folder / "prune", search, seed=seed, resume=True)
    searched = time.monotonic()
    tuned = distil(pruned.generator, original, train, folder / "distill", tune, seed=seed, resume=True)
    finished = time.monotonic()
    stages = {"searched": pruned.generator, "tuned": tuned.generator}
    judged = {
        stage: evaluate(generator, held, folder / stage, teacher=original, pictures=0, resume=True).document
        for stage, generator in stages.items()
    }
    cell = {
        "form": way,
        "seed": seed,
        "share": pruned.document["share"],
        "psnr_mean": judged["tuned"]["psnr_mean"],
        "ssim_mean": judged["tuned"]["ssim_mean"],
        "psnr_mean_after_search": judged["searched"]["psnr_mean"],
        "psnr": [row["psnr"] for row in judged["tuned"]["images"]],
        "widths": {layer["name"]: layer["out"] for layer in pruned.document["layers"]},
        "seconds_of_search": searched - began,
        "seconds_of_training": finished - searched,
    }
    write_json(folder / "cell.json", cell)
    return cell


def _pictures(case: Case, data: Path) -> tuple[list[Path], list[Path]]:
    """Those to train on and those held out."""
    from compressor.data.images import list_images, split_held_out

    pictures = list_images(data / case.images)
    if case.held_out is None:
        train, held = split_held_out(pictures)
    else:
        train, held = pictures, [p for p in list_images(data / case.held_out) if p.stem.endswith("_LR")]
    return train, held[:HELD_OUT]


def agreement(original: Generator, budget: str, seed: int) -> dict[str, dict[str, float]]:
    """How far each form is from the original, and after one step from the gated form.

    Returns:
        For each form the largest absolute difference: "weights" and "picture" to the original's at the
        start; "latent_step" and "whole_step" of the weights to the gated form's after one step of gradient
        descent; "moved" of its own weights by the whole step, to compare with.
    """
    import torch

    from compressor.budget import Budget
    from compressor.coronet.supernet import Supernet
    from compressor.options import PruneOptions

    height, width = original.spec.image.size
    side = 64 // original.spec.image.multiple * original.spec.image.multiple
    shape = (1, original.spec.image.channels[0], min(side, height), min(side, width))
    draw = torch.Generator().manual_seed(seed)
    low, high = original.spec.image.input_range
    picture = low + (high - low) * torch.rand(shape, generator=draw)
    with torch.no_grad():
        wanted = original.module(picture)
    goal = wanted + 0.1 * torch.randn(wanted.shape, generator=draw)  # something to learn

    def stepped(form: str, chosen: Callable[[Supernet], list[torch.nn.Parameter]]) -> tuple[Any, Any, float]:
        net = Supernet(
            original, Budget.parse(budget), PruneOptions(hypernet=form), seed=seed, device=torch.device("cpu")
        )
        net.start_plain(seed)
        before = {name: weight.detach() for name, weight in net.weights().items()}
        output = net.ready()(picture)
        (output - goal).square().mean().backward()
        with torch.no_grad():
            for parameter in chosen(net):
                if parameter.grad is not None:
                    parameter.sub_(RATE * parameter.grad)
            return before, net.weights(), float((output - wanted).abs().max())

    state, found = original.module.state_dict(), {}
    reference: dict[str, Any] = {}
    for form in dict.fromkeys(form for form, _ in FORMS.values()):
        before, latent, picture_error = stepped(form, lambda net: [net.hyper.latent])
        _, whole, _ = stepped(form, lambda net: [*net.hyper.parts.parameters(), net.hyper.latent])
        if not reference:
            reference = {"latent": latent, "whole": whole}
        found[form] = {
            "weights": _apart(before, state),
            "picture": picture_error,
            "latent_step": _apart(latent, reference["latent"]),
            "whole_step": _apart(whole, reference["whole"]),
            "moved": _apart(whole, before),
        }
    return found


def _apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return max(float((weight - theirs[name]).abs().max()) for name, weight in ours.items())


def report(document: dict[str, Any]) -> str:
    """The figures as tables."""
    from benchmarks.side_by_side import table

    lines = []
    for name, found in document["generators"].items():
        by_form = {way: [c for c in found["cells"] if c["form"] == way] for way in FORMS}
        for way, cells in by_form.items():
            values = [cell["psnr_mean"] for cell in cells]
            beside = [ours - c["psnr_mean"] for ours, c in zip(values, by_form["gated"], strict=True)]
            agree = found["agreement"][FORMS[way][0]]
            lines.append(
                {
                    "generator": name,
                    "form": way,
                    "PSNR to the original, dB": f"{fmean(values):.2f} {_range(values, '.2f')}",
                    "over gated, same seed": f"{fmean(beside):+.2f} {_range(beside, '+.2f')}",
                    "MACs kept": f"{100 * fmean(cell['share'] for cell in cells):.2f} %",
                    "weights at the start": f"{agree['weights']:.1e}",
                    "picture": f"{agree['picture']:.1e}",
                    "a step of latents": f"{agree['latent_step']:.1e}",
                    "a whole step": f"{agree['whole_step']:.1e} of {agree['moved']:.1e}",
                    "search": f"{fmean(cell['seconds_of_search'] for cell in cells):.0f} s",
                }
            )
    seeds = ", ".join(map(str, document["seeds"]))
    return f"{table(lines)}\n\n{document['steps']} steps of search and as many of training; seeds {seeds}."


def _range(values: list[float], form: str) -> str:
    return f"({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
