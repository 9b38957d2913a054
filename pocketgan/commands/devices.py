"""`pocketgan devices`: the phones that adb sees, whether they are fit to measure on, timings, tidying up."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import PocketganError, UsageError
from pocketgan import options
from pocketgan.options import FILE, Answer, Numbers, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.phone_meter import Profiled
    from devices.adb_server import AdbServer
    from devices.phone import Listed
    from devices.preflight import Preflight


@command("devices")
@click.argument("action", type=click.Choice(["list", "doctor", "profile", "clean"]), default="list")
@click.argument("serial", required=False)
@options.adb_server
@click.option("--connect", metavar="HOST[:PORT]", multiple=True, help="Connect a phone on the network first.")
@click.option("--allow-emulated", is_flag=True, help="An emulated processor is no failure.")
@click.option(
    "--space", "spaces", multiple=True, metavar="NAME", help="Profile: a search space, or its file."
)
@click.option(
    "--model",
    "models",
    type=FILE,
    multiple=True,
    metavar="CHECKPOINT",
    help="Profile: a generator to be pruned; time its layers.",
)
@click.option(
    "--size", type=Numbers("HxW", int, "x", 2), help="Profile: input size.  [default: the usual one]"
)
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "litert"]),
    default="onnxruntime",
    show_default=True,
    help="Profile: what runs the files.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Profile: of the files.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Profile: threads of an inference.",
)
@click.option(
    "--latency-table",
    "timings",
    type=FILE,
    metavar="FILE",
    help="Profile: the table to fill.  [default: layer_times.json in the user's cache folder]",
)
def devices_command(
    action: str,
    serial: str | None,
    adb_server: str | None,
    connect: tuple[str, ...],
    allow_emulated: bool,
    spaces: tuple[str, ...],
    models: tuple[Path, ...],
    size: tuple[int, int] | None,
    runtime: str,
    precision: str,
    threads: int,
    timings: Path | None,
) -> Answer:
    """List phones (list, the default), check one before measuring on it (doctor SERIAL), time on it what
    latency budgets look up (profile SERIAL), or take everything of ours off it (clean SERIAL).

    A table that profile filled serves `search` and `prune` with --latency-serial SERIAL --latency-table FILE.
    Files that were brought to a phone stay there for the next session, until clean; a session that runs there
    meanwhile fails.
    """
    from devices.adb_server import server_at
    from devices.phone import list_phones

    server = server_at(adb_server)
    for address in connect:
        server.connect(address)
    if action == "list":
        phones = list_phones(server)
        return Answer(_listing(phones), {"phones": [phone.as_json() for phone in phones]})
    serial = serial or _only(list(server.states()))
    if action == "doctor":
        return _doctor(serial, server, allow_emulated)
    if action == "clean":
        return _clean(serial, server)
    if not spaces and not models:
        raise UsageError("say what to time", allowed="--space NAME, --model CHECKPOINT, or several of them")
    wanted = [_space(name, size) for name in spaces], [_generator(path, size) for path in models]
    from pocketgan.latency_options import open_meter

    given: dict[str, Any] = {
        **{"latency_runtime": runtime, "latency_precision": precision, "latency_threads": threads},
        **{"latency_table": timings, "latency_serial": serial, "latency_adb_server": adb_server},
        "latency_emulated": allow_emulated,
    }
    from benchmarks.phone_meter import profile

    found = profile(open_meter(given, []), *wanted)
    return Answer(_profiled(found, serial), found.as_json())


def _space(name: str, size: tuple[int, int] | None) -> Any:
    from dataclasses import replace

    from compressor.agd.fitting import fitted
    from compressor.agd.space import load_space

    space = load_space(name)
    return fitted(space, replace(space.image, size=size)) if size else space


def _generator(path: Path, size: tuple[int, int] | None) -> Any:
    from pocketgan.source import GeneratorSource

    return GeneratorSource(path, size=size).load()


def _doctor(serial: str, server: AdbServer, allow_emulated: bool) -> Answer:
    from devices.adb import AdbTransport
    from devices.preflight import preflight
    from devices.runner.bundle import WHEELS, prepare

    gather = [functools.partial(prepare, runtime) for runtime in WHEELS]
    found = preflight(AdbTransport(serial, server), gather, allow_emulated=allow_emulated)
    problem = None
    if not found.fit:
        failed = next(check for check in found.checks if check.passed is False)
        problem = PocketganError(f"{serial} is not fit to measure on: {failed.name}", fix=failed.fix)
    return Answer(_report(found), found.as_json(), problem)


def _clean(serial: str, server: AdbServer) -> Answer:
    from devices.adb import AdbTransport
    from devices.transport import purge

    device = AdbTransport(serial, server)
    removed = purge(device)
    text = f"{device.root} is gone from {serial}: {removed / 1e6:.1f} MB"
    return Answer(text, {"serial": serial, "removed": device.root, "bytes": removed})


def _profiled(found: Profiled, serial: str) -> str:
    device = found.device
    lines = [f"{device['phone']} ({device['chip']}): {found.measured} timings taken in {found.seconds:.0f} s"]
    if device.get("emulated"):
        lines.append("EMULATED: no phone's processor ran this; the times mean nothing.")
    for name, (low, high) in found.spaces.items():
        lines.append(f"{name}: operators sum up to {low / 1e6:.3f} ms at least, {high / 1e6:.3f} at most")
    lines += [f"{name}: {count} layers" for name, count in found.layers.items()]
    told = shlex.join(["--latency-serial", serial, "--latency-table", str(found.table)])
    return "\n".join([*lines, "", str(found.table), f"  next: pocketgan search or prune ... {told}"])


def _only(serials: list[str]) -> str:
    if len(serials) == 1:
        return serials[0]
    raise UsageError(
        "say which phone" if serials else "adb sees no phone",
        got=", ".join(serials) or None,
        fix="pocketgan devices doctor SERIAL" if serials else "plug one in, and switch on USB debugging",
    )


def _listing(phones: list[Listed]) -> str:
    if not phones:
        return (
            "adb sees no phone. Plug one in, switch on USB debugging in its developer options,\n"
            "and accept this computer's key; or reach one on the network with --connect HOST:PORT."
        )
    rows = []
    for phone in phones:
        facts = phone.facts
        row = [phone.serial, phone.state]
        if facts is None:
            row += ["-"] * 6
        else:
            heat = facts.heat
            battery = "-" if heat.battery_percent is None else f"{heat.battery_percent} %"
            row += [f"{facts.maker} {facts.model}".strip(), facts.chip, facts.cores, facts.android or "-"]
            row += [battery, heat.words]
        rows.append(row)
    head = ("serial", "state", "phone", "chip", "cores", "Android", "battery", "heat")
    advice = [f"{phone.serial}: {phone.advice}" for phone in phones if phone.advice]
    return "\n".join([table(rows, head=head), *([""] if advice else []), *advice])


def _report(found: Preflight) -> str:
    word = {True: "ok", False: "FAILED", None: "mind"}
    rows = [(word[check.passed], check.name, check.said) for check in found.checks]
    advice = [f"{check.name}: {check.fix}" for check in found.checks if check.fix]
    return "\n".join([table(rows), *([""] if advice else []), *advice])
