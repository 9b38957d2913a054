"""What compressing while training costs: CoroNet beside OMGD's scheme and plain training, on Pix2Pix.

    python -m benchmarks.omgd_cost --data ../shared/data --output benchmarks/results/omgd_cost.json

Three ways train the same generator from nothing on the same pictures in the same order: plainly; by
CoroNet, which searches, lands on its budget and goes on with the small network; and by online distillation
after OMGD (`benchmarks.omgd`, which says where it is cheaper than published), whose student is the same
architecture narrowed to the same budget. They take their steps in turns within one process. CoroNet's
search takes a quarter of all steps, as by default (50 of 200 epochs).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import write_json
from compressor.options import AdversarialOptions

if TYPE_CHECKING:
    import torch

    from benchmarks.side_by_side import Step
    from compressor.coronet.pix2pix import Pix2PixGame
    from compressor.generators import Generator

MODULE = "benchmarks.omgd_cost"
WAYS = ("plain", "coronet", "omgd")
VGG = "weights/vgg19_blocks1to3.safetensors"
PUBLISHED = 200 * 400  # steps of Pix2Pix on Facades: 200 epochs of 400 pictures


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of real pictures.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The figures as JSON.")
@click.option("--family", type=click.Choice(["unet", "resnet"]), default="unet", show_default=True)
@click.option("--width", default=32, show_default=True, help="Of the whole generator.")
@click.option("--size", default=128, show_default=True, help="Side of the pictures, a power of 2.")
@click.option("--budget", default="macs=25%", show_default=True)
@click.option("--hypernet", default="gated", show_default=True)
@click.option("--steps", default=80, show_default=True, help="Measured steps of each way.")
@click.option("--search", default=0.25, show_default=True, help="CoroNet's share of steps that search.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--device", "device_name", default="cpu", show_default=True)
@click.option("--memory-of", type=click.Choice(WAYS), help="Print this way's memory, no more.")
def main(
    data: Path, output: Path, family: str, width: int, size: int, budget: str, hypernet: str, steps: int,
    search: float, seed: int, threads: int, device_name: str, memory_of: str | None,
) -> None:  # fmt: skip
    """Measure time and memory of the three ways."""
    import torch

    from benchmarks.adversarial import uniform_width
    from benchmarks.side_by_side import WARM_UP, circumstances, in_turns, memory, memory_apart
    from compressor.adversarial.fresh import fresh
    from compressor.cost import count
    from compressor.training.loop import choose_device

    torch.set_num_threads(threads)
    device = choose_device(device_name)
    options = AdversarialOptions(scratch=True, crop=size, hypernet=hypernet, device=device_name)
    shape: dict[str, Any] = {"depth": size.bit_length() - 1} if family == "unet" else {}

    def network(channels: int) -> Generator:
        return fresh(family, {**shape, "width": channels}, seed=seed, size=(size, size))

    narrow = uniform_width(network, width, budget)

    def way(name: str, searching: int) -> Any:
        game = _game(network(width), data, options, seed, device)
        if name == "plain":
            return _Plain(game, network(width), options, device)
        if name == "coronet":
            return _CoroNet(game, network(width), budget, options, searching, seed, device)
        from benchmarks.omgd import OnlineDistillation

        pair = network(width), network(narrow)
        return OnlineDistillation(game, *pair, data / VGG, options.learning_rate, device)

    if memory_of:  # CoroNet: three steps of search and two after
        click.echo(json.dumps(memory(lambda: way(memory_of, 3).step, device, steps=5)))
        return
    document: dict[str, Any] = circumstances(MODULE, seed, threads, device)
    asked = ["--data", data, "--output", output, "--family", family, "--width", width, "--size", size]
    asked += ["--budget", budget, "--hypernet", hypernet, "--seed", seed, "--threads", threads]
    asked += ["--device", device_name]
    used = {name: memory_apart(MODULE, [*map(str, asked), "--memory-of", name]) for name in WAYS}
    searching = max(1, round(search * steps))
    ways = {name: way(name, WARM_UP + searching) for name in WAYS}
    taken: dict[str, Step] = {name: way.step for name, way in ways.items()}
    seconds = in_turns(taken, steps, device)
    landed = ways["coronet"].landed - WARM_UP
    macs = {
        "whole": count(network(width).module, (1, 3, size, size)).macs,
        "coronet": count(ways["coronet"].module.cpu(), (1, 3, size, size)).macs,
        "omgd": count(network(narrow).module, (1, 3, size, size)).macs,
    }
    document |= {
        "family": family, "width": width, "size": size, "batch": options.batch, "budget": budget,
        "hypernet": hypernet, "steps": steps, "search_share": search, "student_width": narrow, "macs": macs,
        "steps_until_small": landed,
        "omgd": "one teacher; VGG19 blocks 1 to 3; see benchmarks/omgd.py",
        "rows": {
            name: {
                "seconds": seconds[name].clock,
                "processor_seconds": seconds[name].processor,
                "total_seconds": sum(seconds[name].clock),
                "memory_mb": used[name],
            }
            for name in WAYS
        },
        "ratios": {
            f"{over} / {under}": {
                "clock": totals(seconds[over].clock, seconds[under].clock, landed),
                "processor": totals(seconds[over].processor, seconds[under].processor, landed),
            }
            for over, under in (("omgd", "coronet"), ("omgd", "plain"), ("coronet", "plain"))
        },
    }  # fmt: skip
    write_json(output, document)
    click.echo(report(document))


def totals(over: list[float], under: list[float], landed: int) -> dict[str, float]:
    """Ratio of total times with a 95 % interval from 2,000 resamples of rounds within each of both phases."""
    import numpy as np

    chance, resamples = np.random.default_rng(0), 2000
    sums = np.zeros((2, resamples))
    for phase in (slice(0, landed), slice(landed, None)):
        both = np.array([over[phase], under[phase]])
        if both.size:
            drawn = chance.integers(0, both.shape[1], (resamples, both.shape[1]))
            sums += both[:, drawn].sum(2)
    low, high = np.percentile(sums[0] / sums[1], [2.5, 97.5])
    return {"value": sum(over) / sum(under), "low": float(low), "high": float(high)}


def report(document: dict[str, Any]) -> str:
    """The figures as a table, and the ratios; times of a step before and after CoroNet's landing."""
    from statistics import median

    from benchmarks.side_by_side import table

    landed, steps = document["steps_until_small"], document["steps"]
    lines = []
    for name, row in document["rows"].items():
        phases = {"step, median": row["seconds"], "its processor time": row["processor_seconds"]}
        shown = {}
        for column, taken in phases.items():
            before, after = taken[:landed], taken[landed:]
            shown[column] = f"{median(before):.3f} s, then {median(after):.3f} s" if after else "search only"
        mean = row["total_seconds"] / steps
        lines.append(
            {
                "way": name,
                **shown,
                f"{steps} steps": f"{row['total_seconds']:.1f} s",
                f"{PUBLISHED:,} at this pace": f"{mean * PUBLISHED / 3600:.1f} h",
                "peak memory": f"{row['memory_mb']['peak']:.0f} MiB",
                "of it its own": f"{row['memory_mb']['peak'] - row['memory_mb']['base']:.0f} MiB",
            }
        )
    ratios = [
        f"{name}, total time by {kind}: {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        for name, kinds in document["ratios"].items()
        for kind, found in kinds.items()
    ]
    macs = {name: f"{value / 1e9:.3f} G" for name, value in document["macs"].items()}
    small = f"CoroNet was small after {landed} of {steps} steps. MACs: {macs}"
    return "\n".join([table(lines), "", *ratios, small])


def _game(
    generator: Generator, data: Path, options: AdversarialOptions, seed: int, device: torch.device
) -> Pix2PixGame:
    from compressor.coronet.pix2pix import Pix2PixGame
    from compressor.data.pairs import find_pairs

    return Pix2PixGame(generator, find_pairs(data / "pix2pix/facades"), options, "AtoB", seed, device)


class _Plain:
    """Pix2Pix as it is."""

    def __init__(
        self, game: Pix2PixGame, generator: Generator, options: AdversarialOptions, device: torch.device
    ):
        import torch

        from compressor.training.loop import train_mode

        self.game, self.rate = game, options.learning_rate
        self.module = train_mode(generator.module.to(device)).requires_grad_(True)
        betas = (options.beta1, 0.999)
        self.optimiser = torch.optim.Adam(self.module.parameters(), self.rate, betas, fused=True)

    def step(self, number: int) -> None:
        from compressor.coronet.pix2pix import NAME

        self.game.update({NAME: self.module}, self.optimiser, number, self.rate)


class _CoroNet:
    """Both phases of `compressor.coronet.phases.play`, a step at a time."""

    def __init__(
        self,
        game: Pix2PixGame,
        generator: Generator,
        budget: str,
        options: AdversarialOptions,
        steps: int,
        seed: int,
        device: torch.device,
    ):
        import torch

        from compressor.budget import Budget
        from compressor.coronet.supernet import Supernet
        from compressor.options import PruneOptions

        self.game, self.options, self.steps, self.device = game, options, steps, device
        search = PruneOptions(steps=steps, batch=options.batch, hypernet=options.hypernet)
        self.net = Supernet(generator, Budget.parse(budget), search, seed=seed, device=device)
        self.net.start_plain(seed)
        trained = [*self.net.parameters(), self.net.hyper.latent]
        self.optimiser = torch.optim.Adam(trained, options.learning_rate, (options.beta1, 0.999), fused=True)
        self.small: _Plain | None = None

    @property
    def landed(self) -> int:
        """Steps until the network was small."""
        return self.net.landed_at

    @property
    def module(self) -> torch.nn.Module:
        assert self.small is not None
        return self.small.module

    def step(self, number: int) -> None:
        from compressor.coronet.pix2pix import NAME

        if self.small is not None:
            return self.small.step(number)
        net, options = self.net, self.options
        self.game.update({NAME: net.ready()}, self.optimiser, number, options.learning_rate)
        cost = net.shrink(number) * net.whole
        looked = (number + 1) % options.check_every == 0
        if number + 1 == self.steps or (looked and cost <= net.target + options.stop_within * net.whole):
            net.land(number + 1)
            self.small = _Plain(self.game, net.materialise(), options, self.device)
            net.release()
            del self.optimiser


if __name__ == "__main__":
    main()
