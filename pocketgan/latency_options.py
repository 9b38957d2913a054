"""The options of a budget of latency: on what networks are timed while they are pruned or searched."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.budget import Budget
from compressor.errors import GateError, UsageError
from pocketgan.options import FILE, F

if TYPE_CHECKING:
    from benchmarks.latency_meter import LocalMeter

_NAMES = (
    "latency_runtime",
    "latency_precision",
    "latency_threads",
    "latency_table",
    "latency_serial",
    "latency_adb_server",
    "latency_emulated",
)
MeterFor = Callable[[Sequence[Budget], Sequence[Path]], "LocalMeter | None"]
"""From budgets and pictures (for INT8 ranges) to what latency is measured with; None if no budget asks."""


def latency_options(function: F) -> F:
    """--latency-runtime and others; the command gets them as `meter_for`, a `MeterFor`."""

    @functools.wraps(function)
    def collect(*args: Any, **kwargs: Any) -> Any:
        given = {name: value for name in _NAMES if (value := kwargs.pop(name)) not in (None, False)}
        return function(*args, meter_for=functools.partial(_meter, given), **kwargs)

    made: Any = collect
    for option in reversed(
        (
            click.option(
                "--latency-runtime",
                type=click.Choice(["onnxruntime", "litert"]),
                help="For latency budgets: what runs the file.  [default: onnxruntime]",
            ),
            click.option(
                "--latency-precision",
                type=click.Choice(["fp32", "fp16", "int8"]),
                help="For latency budgets: of the file that is timed.  [default: fp32]",
            ),
            click.option(
                "--latency-threads",
                type=click.IntRange(1, 1024),
                help="For latency budgets: threads of an inference.  [default: 1]",
            ),
            click.option(
                "--latency-table",
                type=FILE,
                metavar="FILE",
                help="For latency budgets: where timings of layers and operators are kept, to be taken "
                "only once.  "
                "[default: layer_times.json in the user's cache folder]",
            ),
            click.option(
                "--latency-serial",
                metavar="SERIAL",
                help="For latency budgets: time on this phone (see pocketgan devices), not on this machine.",
            ),
            click.option(
                "--latency-adb-server",
                metavar="HOST[:PORT]",
                help="For latency budgets: the phone is on another machine's adb server.",
            ),
            click.option(
                "--latency-emulated",
                is_flag=True,
                help="For latency budgets: take times of an emulated processor; they stay marked.",
            ),
        )
    ):
        made = option(made)
    return made


def missed(documents: Sequence[Mapping[str, Any]]) -> GateError | None:
    """What to say where the device was slower than asked whatever was landed on.

    Args:
        documents: what prune.json or search.json say, with the "folder" of each.
    """
    timed = [{**found["latency"], "folder": found["folder"]} for found in documents if "latency" in found]
    late = [found for found in timed if not found["met"]]
    if not late:
        return None
    return GateError(
        "the latency asked for was not met by any landing that was measured",
        got="; ".join(f"{x['folder']}: {x['measured'] / 1e6:.3f} ms" for x in late),
        allowed="; ".join(f"{x['target'] / 1e6:.3f} ms" for x in late),
        fix="try again on a calmer machine, or ask for less; the folder's JSON record has every attempt",
    )


def _meter(given: dict[str, Any], budgets: Sequence[Budget], images: Sequence[Path]) -> LocalMeter | None:
    if not any(part.metric == "latency" for budget in budgets for part in budget.parts()):
        if given:
            flag = "--" + next(iter(given)).replace("_", "-")
            raise UsageError(f"{flag} means nothing to this budget", allowed="--budget latency=50%")
        return None
    return open_meter(given, images)


def open_meter(given: Mapping[str, Any], images: Sequence[Path]) -> LocalMeter:
    """This machine as what latency is measured with, or the phone that `latency_serial` names.

    Args:
        given: values of the options above by their names; what is not there has its default.
        images: pictures, for INT8 ranges of whole networks.
    """
    runtime, precision = given.get("latency_runtime", "onnxruntime"), given.get("latency_precision", "fp32")
    threads, table = given.get("latency_threads", 1), given.get("latency_table")
    serial, emulated = given.get("latency_serial"), given.get("latency_emulated", False)
    if serial is None:
        if emulated or given.get("latency_adb_server"):
            raise UsageError("there is no phone to time on", fix="say which: --latency-serial SERIAL")
        from benchmarks.latency_meter import LocalMeter

        return LocalMeter(runtime, precision, threads, images, table=table)
    from benchmarks.phone_meter import PhoneMeter
    from devices.adb import AdbTransport
    from devices.adb_server import server_at

    phone = AdbTransport(serial, server_at(given.get("latency_adb_server")))
    return PhoneMeter(phone, runtime, precision, threads, images, table=table, allow_emulated=emulated)
