"""`pocketgan farm`: a plan of many files over many phones on many hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import GateError, PocketganError, UsageError
from pocketgan import options
from pocketgan.options import Answer, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from benchmarks.farm.coordinator import FarmResult
    from benchmarks.farm.host import Hosting
    from benchmarks.farm.link import Link
    from benchmarks.farm.store import Store

ACTIONS = {
    "run": "PLAN.yaml: measure what it names, go on where an earlier call was stopped",
    "worker": "serve this machine's phones to the scheduler of another",
    "results": "PLAN.yaml: write a bench.json for each measured job",
}


@command("farm")
@click.argument("action", type=click.Choice(list(ACTIONS)))
@click.argument("plan", metavar="[PLAN.yaml]", type=options.FILE, required=False)
@click.option(
    "--output-dir",
    "output",
    type=options.FOLDER,
    metavar="OUT",
    help="Folder of the result store.  [default: the plan's name, beside it]",
)
@click.option("--store", "url", metavar="URL", help="SQLAlchemy URL of another database for results.")
@click.option("--run", "name", help="Name of the run within the store.  [default: the plan's name]")
@click.option("--scheduler", metavar="ADDRESS", help="A dask scheduler: tls://HOST:PORT.  [default: our own]")
@click.option("--tls-ca", type=options.FILE, help="PEM file of the farm's certificate authority.")
@click.option("--tls-cert", type=options.FILE, help="PEM file of this host's certificate.")
@click.option("--tls-key", type=options.FILE, help="PEM file of this host's key.")
@click.option("--insecure", is_flag=True, help="Speak to other hosts without TLS.")
@options.adb_server
@click.option("--connect", metavar="HOST[:PORT]", multiple=True, help="Connect a phone on the network.")
@click.option("--serial", "serials", multiple=True, help="Serve only this phone; may be given again.")
def farm_command(
    action: str,
    plan: Path | None,
    output: Path | None,
    url: str | None,
    name: str | None,
    scheduler: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    adb_server: str | None,
    connect: tuple[str, ...],
    serials: tuple[str, ...],
) -> Answer:
    """Measure a plan on every phone of every host (run), serve phones to it (worker), take results out.

    Give the same command again after an interruption, or when faults of the farm left jobs over: what is
    measured stays. Exit code 3: a file failed its check; 1: a file could not be run, or a fault of the
    farm (a phone, a cable, a host) left jobs over; 0: all is measured.
    """
    from benchmarks.farm.link import Link, require_farm

    link = Link(scheduler, tls_ca, tls_cert, tls_key, insecure) if scheduler else None
    if link is None and (tls_ca or tls_cert or tls_key or insecure):
        raise UsageError("keys are for the scheduler of another host", fix="say which: --scheduler ADDRESS")
    require_farm()
    if action == "worker":
        return _worker(plan, link, adb_server, serials, connect)
    if plan is None:
        raise UsageError(f"farm {action} needs a plan", fix=f"pocketgan farm {action} PLAN.yaml")
    output, name = output or plan.resolve().parent / plan.stem, name or plan.stem
    if action == "results":
        return _results(output, url, name)
    return _run(plan, output, url, name, link, _hosting(scheduler or "", adb_server, serials, connect))


def _run(plan: Path, output: Path, url: str | None, name: str, link: Link | None, hosting: Hosting) -> Answer:
    from benchmarks.farm.cluster import Farm
    from benchmarks.farm.coordinator import carry_out
    from benchmarks.farm.plan import list_jobs
    from benchmarks.farm.store import Store
    from pocketgan.farm_plan import read_plan

    asked = read_plan(plan)
    jobs = list_jobs(asked, plan.resolve().parent)
    with Store(url or output / "farm.sqlite", name) as store:
        with store.alone(), Farm(link, hosting) as farm:
            result = carry_out(asked, jobs, store, farm)
        keys = {job.key for job in jobs}
        unwell = [row for row in store.rows() if row.job in keys and row.status != "measured"]
        document = {
            "run": name,
            "store": store.name,
            **result.as_json(),
            "not_measured": [
                {"name": row.name, "target": row.target, "status": row.status, "serial": row.serial}
                | {"attempts": row.attempts, "error": row.error}
                for row in unwell
            ],
        }
        return Answer(_text(result, store, unwell), document, _problem(result))


def _worker(
    plan: Path | None,
    link: Link | None,
    adb_server: str | None,
    serials: tuple[str, ...],
    connect: tuple[str, ...],
) -> Answer:
    import signal

    from benchmarks.farm.host import serve

    if plan is not None:
        raise UsageError("farm worker takes no plan", got=plan, fix="leave it out")
    if link is None:
        raise UsageError("say whose jobs to do", fix="pocketgan farm worker --scheduler tls://HOST:PORT ...")
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    hosting = _hosting(link.scheduler, adb_server, serials, connect)
    serve(hosting, link.security(), lambda line: click.echo(line, err=True), lambda: stopped)
    return Answer("stopped", {"stopped": True})


def _results(output: Path, url: str | None, name: str) -> Answer:
    from benchmarks.farm.results import write_results
    from benchmarks.farm.store import Store

    path = output / "farm.sqlite"
    if url is None and not path.is_file():
        raise PocketganError(f"there are no results at {path}", fix="pocketgan farm run PLAN.yaml")
    with Store(url or path, name) as store:
        files = write_results(store, output / "results")
    return Answer("\n".join(map(str, files)) or "nothing is measured yet", {"files": list(map(str, files))})


def _hosting(
    scheduler: str, adb_server: str | None, serials: tuple[str, ...], connect: tuple[str, ...]
) -> Hosting:
    from benchmarks.farm.host import Hosting
    from devices.adb_server import server_at

    server = server_at(adb_server)
    return Hosting(scheduler, server.host, server.port, serials, connect)


def _problem(result: FarmResult) -> PocketganError | None:
    ended = result.ended
    if ended["refused"]:
        return GateError("files failed their check on the phone", got=f"{ended['refused']} of {result.jobs}")
    if ended["failed"]:
        return PocketganError("files could not be run", got=f"{ended['failed']} of {result.jobs}")
    if ended["infrastructure"]:
        return PocketganError(
            "faults of the farm left jobs over",
            got=f"{ended['infrastructure']} of {result.jobs}",
            fix="mend what is named, and give the same command again",
        )
    return None


def _text(result: FarmResult, store: Store, unwell: list[Any]) -> str:
    from devices.phone import plain

    rows = [
        (plain(row.name), row.status, plain(row.serial or "-"), plain(str((row.error or {}).get("error"))))
        for row in unwell
    ]
    counts = ", ".join(f"{count} {status}" for status, count in result.ended.items() if count)
    lines = [table(rows, head=("file", "ended", "phone", "why")), ""] if rows else []
    lines += [f"{result.jobs} jobs: {counts or 'none ended'} in {result.seconds:.0f} s", store.name]
    return "\n".join(lines)
