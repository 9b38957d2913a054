"""`pocketgan bench`: latency of exported files on this machine, or on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import UsageError
from pocketgan import options
from pocketgan.format_options import format_options
from pocketgan.options import Answer, Numbers, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.ci.outputs import Outputs
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
@click.option("--serial", help="Measure on this phone (see pocketgan devices).")
@options.adb_server
@click.option(
    "--cores",
    type=click.Choice(["all", "fast"]),
    default="all",
    show_default=True,
    help="Cores of the phone to stay on: all, or its fastest cluster.",
)
@click.option(
    "--runner",
    type=click.Choice(["host", "arm64", "benchmark_model"]),
    help="What runs the files: this machine's runtimes, our runner on a phone's processor, or Google's tool "
    "there.  [default: host; with --serial arm64]",
)
@click.option(
    "--benchmark-model",
    "tool",
    type=options.FILE,
    metavar="PATH",
    help="Google's benchmark_model for Android, arm64.",
)
@click.option(
    "--delegate",
    type=click.Choice(["cpu", "gpu", "nnapi", "npu"]),
    default="cpu",
    show_default=True,
    help="What benchmark_model hands the file to.",
)
@click.option("--allow-fallback", is_flag=True, help="A delegate may leave operators to the processor.")
@click.option("--allow-emulated", is_flag=True, help="Take times of an emulated processor; they stay marked.")
@format_options
def bench_command(
    export_dirs: tuple[Path, ...],
    threads: tuple[int, ...] | None,
    rounds: int,
    warmup: int,
    max_seconds: float,
    output: Path | None,
    force: bool,
    resume: bool,
    serial: str | None,
    adb_server: str | None,
    cores: str,
    runner: str | None,
    tool: Path | None,
    delegate: str,
    allow_fallback: bool,
    allow_emulated: bool,
    outputs: Outputs,
) -> Answer:
    """Time every file of every EXPORT_DIR in interleaved rounds, so that they can be compared fairly."""
    from benchmarks.ci.rows import rows_of

    output = output or export_dirs[0].resolve().parent / "bench"
    runner = runner or ("host" if serial is None else "arm64")
    _check(serial, resume, runner, tool, delegate, allow_fallback)
    if serial is not None:
        from benchmarks.on_phone import OtherPicture, bench_on_phone
        from benchmarks.on_phone_by_tool import bench_by_tool
        from devices.adb import AdbTransport
        from devices.adb_server import server_at

        problem = None
        with outputs.told_of_errors(f"bench on {serial}"):
            device = AdbTransport(serial, server_at(adb_server))
            shared: dict[str, Any] = {
                "output": output,
                "threads": threads,
                "rounds": rounds,
                "warmup": warmup,
                "max_seconds": max_seconds,
                "cores": cores,
                "replace": force,
                "allow_emulated": allow_emulated,
            }
            try:
                if tool is not None:
                    result = bench_by_tool(
                        export_dirs, device, tool, delegate=delegate, allow_fallback=allow_fallback, **shared
                    )
                else:
                    result = bench_on_phone(export_dirs, device, **shared)
            except OtherPicture as error:
                problem, result = error, error.result
        outputs.write(rows_of(result))
        return Answer(_on_phone(result) + _text(result), result.as_json(), problem)
    from benchmarks.latency import bench

    with outputs.told_of_errors("bench"):
        result = bench(
            export_dirs,
            output=output,
            threads=threads,
            rounds=rounds,
            warmup=warmup,
            max_seconds=max_seconds,
            replace=force,
            resume=resume,
        )
    outputs.write(rows_of(result))
    return Answer(_text(result), result.as_json())


def _check(
    serial: str | None, resume: bool, runner: str, tool: Path | None, delegate: str, allow_fallback: bool
) -> None:
    if serial is not None and resume:
        raise UsageError("a session on a phone cannot be resumed", fix="measure again: --force")
    if runner != "host" and serial is None:
        raise UsageError(f"{runner} runs on phones", fix="say which: --serial SERIAL")
    if runner == "host" and serial is not None:
        raise UsageError("the host's runtimes do not run on a phone", fix="leave out --runner or --serial")
    if (runner == "benchmark_model") != (tool is not None):
        raise UsageError(
            "--runner benchmark_model and --benchmark-model PATH go together",
            fix="get it: pocketgan data fetch benchmark_model",
        )
    if tool is None and (delegate != "cpu" or allow_fallback):
        raise UsageError(
            "delegates are benchmark_model's", fix="--runner benchmark_model --benchmark-model PATH"
        )


def _on_phone(result: BenchResult) -> str:
    """What ran where, and a warning that cannot be missed when nothing real did."""
    from benchmarks.ci.rows import is_throttled, plain

    document = result.document
    device = document["device"]
    lines = [f"{device['maker']} {device['model']}: {device['chip']}, {device['cores']}, {document['order']}"]
    if document["emulated"]:
        lines.append("EMULATED: no phone's processor ran this; the times mean nothing, the outputs count.")
    if is_throttled(document):
        hot = sum(not heat["cooled"] for heat in document["heat_by_round"])
        lines.append(
            f"THROTTLED by heat, and not cool in time for {hot} of {len(document['heat_by_round'])} rounds "
            "of turns: these are a hot phone's times. Let it cool, and measure again."
        )
    if document["parity"]:
        worst = max(item["max_abs"] for item in document["parity"])
        lines.append(f"Outputs on the phone equal this machine's to {worst:.2%} of their range at worst.")
    else:
        lines.append("benchmark_model gives no outputs, so none were compared with this machine's.")
    for series in result.series:
        for item in (series.delegation or {}).get("replaced", ()):
            told = f"{item['delegated']} of {item['nodes']} nodes"
            lines.append(f"{plain(series.file)}: {told} on {plain(item['delegate'])}")
    return "\n".join(lines) + "\n\n"


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
