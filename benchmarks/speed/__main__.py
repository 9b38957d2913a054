"""One page of speeds, each measured side by side in one session.

    python -m benchmarks.speed --data ../shared/data --output-dir runs/speed \\
        --record benchmarks/results/speed.json

The real generators' files, those of the tools' defaults, and ours whole and at half of the MACs, in ONNX
Runtime, LiteRT and OpenVINO; their distance to the machine's peak, whole and layer by layer; steps of the
searches beside plain training; the command line's start and reports of many records. The page is written
beside the record. A stopped call goes on; what is measured is not measured again. Rounds of large networks
end early, by the clock. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.speed import house, page
from benchmarks.speed.networks import LONG, NETWORKS, Pace, measure
from compressor.files import atomic, read_json, write_json

_TRAINING = {"search_cost": ("--size", "128"), "agd_search_cost": ()}  # with further options


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--output-dir", "output", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, type=click.Choice(list(NETWORKS)), help="These networks.")
@click.option("--rounds", default=30, show_default=True, help="Timed runs of each file, and of the help.")
@click.option("--seconds", default=60.0, show_default=True, help="Of a network's rounds, in each comparison.")
@click.option("--threads", default=1, show_default=True)
@click.option("--steps", default=8, show_default=True, help="Of each way of training; 0: none.")
@click.option("--records", default=100_000, show_default=True, help="That a report is built of.")
@click.option("--exports", type=click.Path(path_type=Path), help="Files that benchmarks.exports has made.")
@click.option(
    "--runs",
    type=click.Path(exists=True, path_type=Path),
    help="Of benchmarks.real_generators; else pruned here.",
)
@click.option(
    "--record", type=click.Path(path_type=Path), help="File for all figures; the page gets its name."
)
def main(
    data: Path, output: Path, only: tuple[str, ...], rounds: int, seconds: float, threads: int, steps: int,
    records: int, exports: Path | None, runs: Path | None, record: Path | None,
) -> None:  # fmt: skip
    """Measure what is missing, and write the record and the page."""
    import torch

    from benchmarks.side_by_side import circumstances

    data, record = data.absolute(), record or output / "speed.json"
    told = _kept(  # of the call that began to measure
        output / "circumstances.json",
        lambda: circumstances("benchmarks.speed", 0, threads, torch.device("cpu")),
    )
    told["startup"] = _kept(output / "startup.json", lambda: house.startup(rounds))
    told["networks"] = {
        name: measure(name, data, exports or output / "exports", runs, output, Pace(rounds, seconds, threads))
        for name in only or [name for name in NETWORKS if name != LONG]
    }
    told["training"] = {name: _training(name, data, output, steps, threads) for name in _TRAINING if steps}
    told["reports"] = _kept(output / "reports.json", lambda: house.reports(records, output / "records"))
    write_json(record, told)
    with atomic(record.with_suffix(".md"), "w") as file:
        file.write(page.page(told))
    click.echo(record.with_suffix(".md"))


def _kept(path: Path, make: Any) -> Any:
    """What lies in a file, or is made now and put there."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)


def _training(name: str, data: Path, output: Path, steps: int, threads: int) -> Any:
    """The record of another benchmark, run now where there is none."""
    path = output / f"{name}.json"
    if not path.exists():
        line = ["--data", str(data), "--output", str(path), "--steps", str(steps), "--threads", str(threads)]
        command = [sys.executable, "-m", f"benchmarks.{name}", *line, *_TRAINING[name]]
        subprocess.run(command, check=True)
    return read_json(path)


if __name__ == "__main__":
    main()
