"""`pocketgan bench`: latency of exported files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketgan import options
from pocketgan.options import Answer, Numbers, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.latency import BenchResult


@command("bench")
@click.argument("export_dirs", metavar="EXPORT_DIR...", nargs=-1, required=True, type=options.FOLDER)
@click.option(
    "--threads",
    type=Numbers("N,N,...", int, ","),
    help="Thread counts to measure with.  [default: 1 and all cores]",
)
@click.option("--rounds", type=click.IntRange(1), default=30, show_default=True, help="Timed runs a file.")
@click.option("--warmup", type=click.IntRange(0), default=3, show_default=True, help="Untimed runs before.")
@click.option(
    "--max-seconds",
    type=click.FloatRange(1),
    default=300.0,
    show_default=True,
    help="End the rounds early after this long.",
)
@click.option(
    "--output-dir",
    "output",
    type=options.FOLDER,
    metavar="OUT",
    help="Folder for bench.json.  [default: bench, beside the first EXPORT_DIR]",
)
@click.option("--force", is_flag=True, help="Measure again though OUT holds measurements.")
@options.resume
def bench_command(
    export_dirs: tuple[Path, ...],
    threads: tuple[int, ...] | None,
    rounds: int,
    warmup: int,
    max_seconds: float,
    output: Path | None,
    force: bool,
    resume: bool,
) -> Answer:
    """Time every file of every EXPORT_DIR in interleaved rounds, so that they can be compared fairly."""
    from benchmarks.latency import bench

    result = bench(
        export_dirs,
        output=output or export_dirs[0].resolve().parent / "bench",
        threads=threads,
        rounds=rounds,
        warmup=warmup,
        max_seconds=max_seconds,
        replace=force,
        resume=resume,
    )
    return Answer(_text(result), result.as_json())


def _text(result: BenchResult) -> str:
    rows = []
    for series in result.series:
        summary = series.summary
        rows.append(
            (
                series.group,
                series.file,
                str(series.threads),
                f"{summary.median:.2f}",
                f"{summary.p90:.2f}",
                f"{series.init_ms:.0f}",
                "-" if series.peak_rss_mb is None else f"{series.peak_rss_mb:.0f}",
            )
        )
    head = ("group", "file", "threads", "median ms", "p90 ms", "load ms", "peak MiB")
    return f"{table(rows, head=head)}\n\n{result.path}"
