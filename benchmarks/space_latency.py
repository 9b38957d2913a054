"""How well a table of a search space's operators predicts what its networks take.

    python -m benchmarks.space_latency --data ../shared/data --output space_latency.json

Every operator of a space is timed alone, and random networks between the space's cheapest and dearest are
exported and measured whole: the sum of a network's operators over its own time, and the error of each
prediction by the line through all the other networks. Nothing is compared with another run: both figures of a
ratio were measured within one run, on one machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.files import write_json

if TYPE_CHECKING:
    from compressor.agd.space import SearchSpace

MODULE = "benchmarks.space_latency"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of pictures, for INT8.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The figures as JSON.")
@click.option("--space", "spaces", multiple=True, default=("st_small", "sr_tail"), show_default=True)
@click.option("--runtime", type=click.Choice(["onnxruntime", "litert"]), default="onnxruntime")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "int8"), show_default=True)
@click.option("--networks", default=8, show_default=True, help="Random networks of each space.")
@click.option("--most", type=int, help="Operators timed of each space; all that matter if not given.")
@click.option("--size", default=64, show_default=True, help="Side of the input.")
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--table", type=click.Path(path_type=Path), help="File of timings to use and add to.")
def main(
    data: Path, output: Path, spaces: tuple[str, ...], runtime: str, precisions: tuple[str, ...],
    networks: int, most: int | None, size: int, threads: int, seed: int, table: Path | None,
) -> None:  # fmt: skip
    """Measure spaces in every precision."""
    import torch

    from benchmarks.latency_meter import LocalMeter
    from benchmarks.side_by_side import circumstances
    from compressor.agd.latency import latency_table
    from compressor.agd.timed import say, take_times

    document: dict[str, Any] = circumstances(MODULE, seed, threads, torch.device("cpu"))
    document |= {"size": size, "runtime": runtime, "rows": []}
    pictures = sorted(path for path in data.rglob("*") if path.suffix in (".png", ".jpg"))[:4]
    with tempfile.TemporaryDirectory() as folder:
        for name in spaces:
            for precision in precisions:
                space = _sized(name, size)
                file = table or Path(folder) / "times.json"
                meter = LocalMeter(runtime, precision, threads, pictures, table=file)
                if most is not None:
                    meter.most = most
                low, high = latency_table(space, meter.operators, most=meter.most).range()
                times = take_times(space, meter, [low, high], {}, seed, networks=networks)
                row = {
                    "space": name,
                    "precision": precision,
                    "operators": meter.times.measured,
                    **times.told(),
                }
                document["rows"].append(row)
                write_json(output, document)
                click.echo(f"{name} {precision}: {say(times.errors())}")
                for probe in times.probes:
                    click.echo(
                        f"  {probe.measured / 1e6:.3f} ms ({probe.low / 1e6:.3f} to {probe.high / 1e6:.3f}), "
                        f"operators {probe.sum / 1e6:.3f} ms: {probe.sum / probe.measured:.2f}"
                    )


def _sized(name: str, side: int) -> SearchSpace:
    """A shipped space for pictures of another size."""
    from dataclasses import replace

    from compressor.agd.fitting import fitted
    from compressor.agd.space import load_space

    space = load_space(name)
    return fitted(space, replace(space.image, size=(side, side)))


if __name__ == "__main__":
    main()
