"""What searching costs: a training step of ResNet-9 with each form of the hypernetwork, and without any.

    python -m benchmarks.search_cost --data ../shared/data --output benchmarks/results/search_cost.json

A step is the forward pass, L1 loss, backward pass, Adam, and where there is a hypernetwork the making of all
weights and the proximal step. The ways take their steps in turns within one process, so what disturbs the
machine disturbs all alike. Peak memory is that of a fresh process which trains in one way alone.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import write_json

if TYPE_CHECKING:
    import torch

    from benchmarks.side_by_side import Step
    from compressor.generators import Generator

MODULE = "benchmarks.search_cost"
PLAIN = "plain"
FORMS = ("gated", "collapsed", "dhp")
LIMITS = {"parameters": 2.2, "step": 1.3}  # what the collapsed form may cost, over plain training
RATE = 2e-4  # Adam's, as published for Pix2Pix and CycleGAN


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of real pictures.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The figures as JSON.")
@click.option("--steps", default=20, show_default=True, help="Measured steps of each way.")
@click.option("--seed", default=0, show_default=True)
@click.option("--size", default=256, show_default=True, help="Side of the pictures.")
@click.option("--width", default=64, show_default=True, help="Of the generator.")
@click.option("--blocks", default=9, show_default=True, help="Of the generator.")
@click.option("--budget", default="macs=25%", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--device", "device_name", default="cpu", show_default=True)
@click.option("--memory-of", type=click.Choice([PLAIN, *FORMS]), help="Print this way's memory, no more.")
def main(
    data: Path, output: Path, steps: int, seed: int, size: int, width: int, blocks: int, budget: str,
    threads: int, device_name: str, memory_of: str | None,
) -> None:  # fmt: skip
    """Measure time, memory and parameters of every form beside plain training."""
    import torch

    from benchmarks.side_by_side import WARM_UP, circumstances, in_turns, memory, memory_apart, ratio
    from compressor.adversarial.fresh import fresh
    from compressor.training.loop import choose_device

    torch.set_num_threads(threads)
    device = choose_device(device_name)
    generator = fresh("resnet", {"width": width, "blocks": blocks}, seed=seed, size=(size, size))
    pictures = _pictures(generator, data, size, seed, device)

    def way(name: str) -> tuple[Step, int]:
        if name == PLAIN:
            return _plain(generator, pictures, device)
        return _search(generator, name, budget, pictures, WARM_UP + steps, seed, device)

    if memory_of:
        click.echo(json.dumps(memory(lambda: way(memory_of)[0], device)))
        return
    document: dict[str, Any] = circumstances(MODULE, seed, threads, device)
    document |= {"generator": generator.spec.arguments, "size": size, "batch": 1, "budget": budget}
    asked = ["--data", data, "--output", output, "--seed", seed, "--size", size, "--width", width]
    asked += ["--blocks", blocks, "--budget", budget, "--threads", threads, "--device", device_name]
    used = {name: memory_apart(MODULE, [*map(str, asked), "--memory-of", name]) for name in (PLAIN, *FORMS)}
    ways = {name: way(name) for name in (PLAIN, *FORMS)}
    seconds = in_turns({name: step for name, (step, _) in ways.items()}, steps, device)
    whole = ways[PLAIN][1]
    document["rows"] = {
        name: {
            "parameters": count,
            "parameters_ratio": count / whole,
            "memory_mb": used[name],
            "memory_ratio": _grown(used[name]) / _grown(used[PLAIN]),
            "step_ratio": ratio(seconds[name].clock, seconds[PLAIN].clock),
            "processor_ratio": ratio(seconds[name].processor, seconds[PLAIN].processor),
            "seconds": seconds[name].clock,
            "processor_seconds": seconds[name].processor,
        }
        for name, (_, count) in ways.items()
    }
    collapsed = document["rows"]["collapsed"]
    document["limits_of_the_collapsed_form"] = {
        **LIMITS,
        "met": collapsed["parameters_ratio"] <= LIMITS["parameters"]
        and collapsed["step_ratio"]["value"] <= LIMITS["step"],
    }
    write_json(output, document)
    click.echo(report(document))


def report(document: dict[str, Any]) -> str:
    """The figures as a table, and whether the limits are kept."""
    from benchmarks.side_by_side import table, timed_cells

    lines = []
    for name, row in document["rows"].items():
        lines.append(
            {
                **timed_cells(name, row, "plain"),
                "of means": f"{row['processor_ratio']['of_means']:.3f}",
                "parameters trained": f"{row['parameters'] / 1e6:.2f} M ({row['parameters_ratio']:.2f}x)",
                "peak memory": f"{row['memory_mb']['peak']:.0f} MiB ({row['memory_ratio']:.2f}x)",
            }
        )
    limits = document["limits_of_the_collapsed_form"]
    verdict = "kept" if limits["met"] else "NOT kept"
    return (
        f"{table(lines)}\n\nMemory ratios are of what each way adds to one with torch and the generator."
        f"\nLimits of the collapsed form, {LIMITS['parameters']}x parameters and {LIMITS['step']}x a step: "
        f"{verdict}."
    )


def _grown(used: dict[str, float]) -> float:
    return used["peak"] - used["base"]


def _pictures(
    generator: Generator, data: Path, size: int, seed: int, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A few pairs (given, wanted), read beforehand: reading is no part of a step."""
    from compressor.data.pairs import PairedBatches, find_pairs, prepare

    pairs = find_pairs(data / "pix2pix" / "facades")
    draw = prepare(generator.spec.image, crop=size, load=None, batch=1, seed=seed)
    batches = PairedBatches(pairs, generator.spec.image, draw)
    return [(given.to(device), wanted.to(device)) for given, wanted in map(batches, range(4))]


def _plain(
    generator: Generator, pictures: list[tuple[torch.Tensor, torch.Tensor]], device: torch.device
) -> tuple[Step, int]:
    """A step of training without a hypernetwork; and how many numbers it trains."""
    import torch

    from compressor.training.loop import train_mode
    from compressor.training.losses import Distance

    module = train_mode(copy.deepcopy(generator.module).to(device)).requires_grad_(True)
    distance = Distance(generator.spec.image)
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE, betas=(0.5, 0.999), fused=True)

    def step(number: int) -> None:
        given, wanted = pictures[number % len(pictures)]
        loss = distance(module(given), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step, sum(parameter.numel() for parameter in module.parameters())


def _search(
    generator: Generator, form: str, budget: str, pictures: list[tuple[torch.Tensor, torch.Tensor]],
    steps: int, seed: int, device: torch.device,
) -> tuple[Step, int]:  # fmt: skip
    """A step of the search with one form; and how many numbers it trains."""
    import torch

    from compressor.budget import Budget
    from compressor.coronet.supernet import Supernet
    from compressor.options import PruneOptions
    from compressor.training.losses import Distance

    options = PruneOptions(steps=steps, batch=1, hypernet=form)
    net = Supernet(generator, Budget.parse(budget), options, seed=seed, device=device)
    net.start_plain(seed)
    distance = Distance(generator.spec.image)
    trained = [*net.parameters(), net.hyper.latent]
    optimiser = torch.optim.Adam(trained, lr=RATE, betas=(0.5, 0.999), fused=True)

    def step(number: int) -> None:
        given, wanted = pictures[number % len(pictures)]
        loss = distance(net.ready()(given), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        net.shrink(number)

    return step, sum(parameter.numel() for parameter in trained)


if __name__ == "__main__":
    main()
