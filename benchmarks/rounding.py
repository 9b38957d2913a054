"""What rounding widths to multiples of 8 gains: two landings of one network, timed side by side.

    python -m benchmarks.rounding --output benchmarks/results/rounding.json

One landing takes the widths as they come, the other multiples of 8. Both use the same channel scores, and
the first may spend no more MACs than the second has: what it loses, it loses although it computes no more.
The files of both (ONNX Runtime and LiteRT, FP32 and INT8) take turns in one session; a ratio above 1 means
that the rounded network is faster. Weights are random: they do not change what a convolution takes.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.latency import bench
from benchmarks.samples import BenchResult
from benchmarks.statistics import speed_up, summarise
from compressor.files import write_json

if TYPE_CHECKING:
    from compressor.generators import Generator
    from compressor.graph import ChannelGraph

FORMAT = "pocketgan.rounding/1"
MULTIPLE = 8
_NO_GOAL = 0.0  # dB: every layer that can be quantised is, in both


def networks() -> dict[str, Generator]:
    """Two published architectures: Real-ESRGAN's video upscaler and a CycleGAN ResNet of half width."""
    import torch

    from compressor.generators import Generator
    from compressor.generators.spec import GeneratorSpec, ImageFormat

    torch.manual_seed(0)
    specs = {
        "srvgg": GeneratorSpec(
            "srvgg",
            {"features": 64, "convolutions": 16, "scale": 4},
            ImageFormat((0.0, 1.0), (0.0, 1.0), (64, 64), scale=4),
        ),
        "resnet": GeneratorSpec("resnet", {"width": 32, "blocks": 6}, ImageFormat(size=(128, 128))),
    }
    return {
        name: Generator(spec, spec.build(), Path(name), sha256=f"fresh {name}")
        for name, spec in specs.items()
    }


def landings(generator: Generator, share: float, seed: int) -> tuple[dict[str, Generator], dict[str, Any]]:
    """The network landed on odd widths and on rounded ones, and what both cost.

    Args:
        share: of the MACs.
        seed: of the channel scores.
    """
    from compressor.coronet.landing import cost_model, land
    from compressor.graph import trace

    graph = trace(generator.module, generator.spec.image.input_shape)
    cost = cost_model(graph, generator.module, "macs")
    whole = cost(np.ones(graph.classes, bool))
    scores = np.random.default_rng(seed).random(graph.classes)
    rounded = land(scores, graph, cost, int(share * whole), MULTIPLE)
    odd = land(scores, graph, cost, cost(rounded))
    kept = {"odd": odd, "rounded": rounded}
    facts = {
        name: {"macs": cost(keep), "widths": _widths(graph, keep), "share": cost(keep) / whole}
        for name, keep in kept.items()
    }
    return {name: _pruned(generator, graph, keep) for name, keep in kept.items()}, facts


def _pruned(generator: Generator, graph: ChannelGraph, keep: np.ndarray) -> Generator:
    from compressor.coronet.materialise import shrink_spec, shrink_state

    spec = shrink_spec(generator.spec, graph, keep)
    module = spec.build()
    module.load_state_dict(shrink_state(generator.module.state_dict(), generator.module, graph, keep))
    return replace(generator, spec=spec, module=module.eval())


def _widths(graph: ChannelGraph, keep: np.ndarray) -> list[int]:
    """Kept entries of each latent vector."""
    groups = np.unique(graph.groups[graph.prunable])
    return [int(keep[graph.prunable & (graph.groups == group)].sum()) for group in groups]


def compare(
    generators: Mapping[str, Generator], rounds: int, max_seconds: float, precisions: Sequence[str]
) -> BenchResult:
    """All files of both networks timed in turns on one thread."""
    from exporters.job import Job

    with _folder() as place:
        picture = place / "picture.png"
        for name, generator in generators.items():
            size = generator.spec.image.size
            _write_picture(picture, size)
            job = Job(generator, size, [picture], [picture], _NO_GOAL)
            (place / name).mkdir()
            for kind in ("onnx", "tflite"):
                for precision in precisions:
                    content = job.make(kind, precision, 0.0).content
                    (place / name / f"generator-{precision}.{kind}").write_bytes(content)
        folders = [place / name for name in generators]
        return bench(folders, output=place / "bench", threads=[1], rounds=rounds, max_seconds=max_seconds)


def ratios(result: BenchResult) -> list[dict[str, Any]]:
    """odd over rounded for each runtime and precision, with the samples."""
    found = []
    for item in result.series:
        if item.group != "odd":
            continue
        same = (item.runtime, item.precision)
        other = next(s for s in result.series if s.group == "rounded" and (s.runtime, s.precision) == same)
        ratio = speed_up(item.samples_ms, other.samples_ms)
        found.append(
            {
                "runtime": item.runtime,
                "precision": item.precision,
                "odd_ms": summarise(item.samples_ms).median,
                "rounded_ms": summarise(other.samples_ms).median,
                "odd_over_rounded": ratio.as_json(),
                "samples_ms": {"odd": list(item.samples_ms), "rounded": list(other.samples_ms)},
            }
        )
    return found


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pocketgan-rounding-") as folder:
        yield Path(folder)


def _write_picture(path: Path, size: tuple[int, int]) -> None:
    from compressor.data.images import write_image

    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = [0.5 + 0.45 * np.sin(9 * rows * k + 5 * columns) for k in (1, 2, 3)]
    write_image(path, np.stack(waves, 2).astype(np.float32))


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results/rounding.json"))
@click.option("--only", multiple=True, help="srvgg or resnet; both if not given.")
@click.option("--share", default=0.5, show_default=True, help="Of the MACs.")
@click.option("--rounds", default=31, show_default=True)
@click.option("--max-seconds", default=180.0, show_default=True, help="For each network.")
@click.option("--seed", default=0, show_default=True, help="Of the channel scores.")
def main(
    output: Path, only: tuple[str, ...], share: float, rounds: int, max_seconds: float, seed: int
) -> None:
    """Time odd widths against multiples of 8."""
    results: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name, generator in networks().items():
        if only and name not in only:
            continue
        pruned, facts = landings(generator, share, seed)
        result = compare(pruned, rounds, max_seconds, ("fp32", "int8"))
        found = ratios(result)
        for key, fact in facts.items():
            click.echo(f"{name} {key}: {fact['macs']:,} MACs, widths {fact['widths']}")
        for row in found:
            ratio = row["odd_over_rounded"]
            click.echo(
                f"{name} {row['runtime']} {row['precision']}: odd {row['odd_ms']:.2f} ms, rounded "
                f"{row['rounded_ms']:.2f} ms, ratio {ratio['value']:.2f} "
                f"({ratio['low']:.2f} to {ratio['high']:.2f}), {ratio['verdict']}"
            )
        load = {key: result.document[key] for key in ("load_before", "load_after", "rounds")}
        results[name] = {"landings": facts, "size": list(generator.spec.image.size), **load, "files": found}
        about = {key: result.document[key] for key in ("machine", "runtimes", "order")}
        document = {"format": FORMAT, "multiple": MULTIPLE, "seed": seed, **about, "networks": results}
        write_json(output, document)


if __name__ == "__main__":
    main()
