"""`pocketgan devices`: the phones that adb sees, and whether one is fit to measure on."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from compressor.errors import PocketganError, UsageError
from pocketgan.options import Answer, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from devices.adb_server import AdbServer
    from devices.phone import Listed
    from devices.preflight import Preflight


@command("devices")
@click.argument("action", type=click.Choice(["list", "doctor"]), default="list")
@click.argument("serial", required=False)
@click.option("--adb-server", metavar="HOST[:PORT]", help="Phones of another machine's adb server.")
@click.option("--connect", metavar="HOST[:PORT]", multiple=True, help="Connect a phone on the network first.")
@click.option("--allow-emulated", is_flag=True, help="An emulated processor is no failure.")
def devices_command(
    action: str, serial: str | None, adb_server: str | None, connect: tuple[str, ...], allow_emulated: bool
) -> Answer:
    """List phones (list, the default), or check one before measuring on it (doctor SERIAL)."""
    from devices.adb_server import server_at
    from devices.phone import list_phones

    server = server_at(adb_server)
    for address in connect:
        server.connect(address)
    if action == "list":
        phones = list_phones(server)
        return Answer(_listing(phones), {"phones": [phone.as_json() for phone in phones]})
    serial = serial or _only(list(server.states()))
    return _doctor(serial, server, allow_emulated)


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
