"""What an AGD search costs: a step with sampled operators, and one with all of them mixed, as published.

    python -m benchmarks.agd_search_cost --data ../shared/data --output agd_search_cost.json

A step is an architecture step and a step of the weights. The ways take their steps in turns within one
process, so what disturbs the machine disturbs all alike. "both ends" is the published step as a whole: all
operators, and the widest and the narrowest network beside the drawn one; ours takes the two ends in turns.
Quality is not compared here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import write_json

if TYPE_CHECKING:
    import torch

    from benchmarks.side_by_side import Step

MODULE = "benchmarks.agd_search_cost"
OURS = "sampled"
WAYS: dict[str, dict[str, Any]] = {
    OURS: {},
    "mixture": {"operators": "mixture"},
    "mixture, both ends": {"published": True},
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of real pictures.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The figures as JSON.")
@click.option("--space", default="st", show_default=True)
@click.option("--budget", default="macs=8G", show_default=True)
@click.option("--steps", default=10, show_default=True, help="Measured steps of each way.")
@click.option("--crop", default=64, show_default=True)
@click.option("--batch", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--device", "device_name", default="cpu", show_default=True)
def main(
    data: Path, output: Path, space: str, budget: str, steps: int, crop: int, batch: int, seed: int,
    threads: int, device_name: str,
) -> None:  # fmt: skip
    """Measure the time of a step of every way, in turns."""
    import torch

    from benchmarks.side_by_side import circumstances, in_turns, ratio
    from compressor.training.loop import choose_device

    torch.set_num_threads(threads)
    device = choose_device(device_name)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["POCKETGAN_CACHE"] = cache
        told = (data, space, budget, crop, batch, seed, device)
        ways = {name: way(settings, *told) for name, settings in WAYS.items()}
        seconds = in_turns(ways, steps, device)
    document: dict[str, Any] = circumstances(MODULE, seed, threads, device)
    document |= {"space": space, "budget": budget, "crop": crop, "batch": batch}
    document["rows"] = {
        name: {
            "step_ratio": ratio(seconds[name].clock, seconds[OURS].clock),
            "processor_ratio": ratio(seconds[name].processor, seconds[OURS].processor),
            "seconds": seconds[name].clock,
            "processor_seconds": seconds[name].processor,
        }
        for name in WAYS
    }
    write_json(output, document)
    click.echo(report(document))


def way(
    settings: dict[str, Any],
    data: Path,
    space: str,
    budget: str,
    crop: int,
    batch: int,
    seed: int,
    device: torch.device,
) -> Step:
    """A search's steps after pretraining; the teacher is a fresh, narrow network of the space."""
    from compressor.agd.limits import limits_of
    from compressor.agd.options import SearchOptions
    from compressor.agd.space import Choice, load_space
    from compressor.agd.supernet import Supernet, derive
    from compressor.agd.teachers import NetworkTeacher
    from compressor.agd.training import Search
    from compressor.budget import Budget
    from compressor.data.images import list_images

    searched = load_space(space)
    teacher = NetworkTeacher(derive(Supernet(searched, seed), Choice.narrowest(searched)))
    options = SearchOptions(pretrain=0, steps=10_000, crop=crop, batch=batch, check_every=10_000, **settings)
    limits = limits_of(searched, [Budget.parse(budget)])
    folder = "horse2zebra/testA_real" if searched.image.scale == 1 else "sr/train_T91"
    pictures = list_images(data / folder)[:8]
    return Search(searched, teacher, pictures, limits, options.effective, seed, device).step


def report(document: dict[str, Any]) -> str:
    """The figures as a table."""
    from benchmarks.side_by_side import table, timed_cells

    return table([timed_cells(name, row, OURS) for name, row in document["rows"].items()])


if __name__ == "__main__":
    main()
