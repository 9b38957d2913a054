"""A host of a farm: a worker for each phone cabled to it, as long as the phone is there.

The host looks at its adb server every two seconds. A phone that is ready gets a worker process, which
announces it to the scheduler by its serial and its chip; one that has gone loses it, and its job moves.
A worker that is killed is started again by its nanny; a phone whose worker gave up rests, longer each
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.host import usable_cores
from devices.phone import PhoneFacts, facts, plain
from devices.transport import DeviceError

if TYPE_CHECKING:
    from distributed import Nanny, Security

PHONE = "phone"
"""The resource that every phone offers; each also offers "soc:PART" and "serial:SERIAL"."""
_LOOK = 2.0  # seconds between looks at the adb server
_MISSED = 3  # looks that a phone may be away before its worker ends
_REST = (5.0, 300.0)  # seconds that a phone rests after its worker gave up; doubles up to the second
_LONG = 600.0  # seconds of work after which a phone counts as well again
_UNREACHED = "120 s"  # a worker that does not reach the scheduler for so long ends


@dataclass
class _Held:
    """One phone: its worker while it has one, what is being done about it, and when it may have the next."""

    nanny: Nanny | None = None
    work: asyncio.Task[None] | None = None
    since: float = 0.0
    missed: int = 0
    rest: float = _REST[0]
    not_before: float = 0.0


@dataclass(frozen=True)
class Hosting:
    """What a host serves.

    Attributes:
        scheduler: its address.
        adb_host, adb_port: the adb server that the phones are on.
        serials: only these phones; all if empty.
        connect: addresses of phones on the network, which are connected again when they drop out.
    """

    scheduler: str
    adb_host: str
    adb_port: int
    serials: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()


class Host:
    """The phones of one adb server, each with its worker.

    Args:
        hosting: what to serve.
        security: the keys, or None.
        say: shows one line.
    """

    def __init__(self, hosting: Hosting, security: Security | None, say: Callable[[str], None]):
        self.hosting, self.security, self._say = hosting, security, say
        self._server = AdbServer(hosting.adb_host, hosting.adb_port)
        self._phones: dict[str, _Held] = {}
        self._fault = ""
        self._starting = asyncio.Semaphore(2 * usable_cores())

    async def serve(self, stop: Callable[[], bool]) -> None:
        """Serve until `stop` says so; then every worker ends."""
        import dask

        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here
        method = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
        with tempfile.TemporaryDirectory(prefix="pocketgan-farm-") as scratch, method:
            try:
                while not stop():
                    await self._look(scratch)
                    await asyncio.sleep(_LOOK)
            finally:
                for held in self._phones.values():
                    if held.work is not None:
                        held.work.cancel()
                nannies = [held.nanny for held in self._phones.values() if held.nanny]
                await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)

    async def _look(self, scratch: str) -> None:
        try:
            states = await asyncio.to_thread(self._states)
            self._fault = ""
        except DeviceError as error:
            if error.what != self._fault:
                self._say(error.what)
            states, self._fault = {}, error.what
        for serial in states:
            if not self.hosting.serials or serial in self.hosting.serials:
                self._phones.setdefault(serial, _Held())
        for serial, held in self._phones.items():
            ready = states.get(serial) == "device"
            if held.work is not None and not held.work.done():
                continue
            if held.nanny is None:
                if ready and time.monotonic() >= held.not_before:
                    held.work = asyncio.create_task(self._take_up(serial, held, scratch))
                continue
            held.missed = 0 if ready else held.missed + 1
            ended = held.nanny.status.name in ("closed", "failed", "closing", "closing_gracefully")
            if ended or held.missed >= _MISSED:
                why = "its worker gave up" if ended else "adb lost it"
                held.work = asyncio.create_task(self._let_go(serial, held, why))

    def _states(self) -> dict[str, str]:
        states = self._server.states()
        for address in self.hosting.connect:
            if states.get(address) != "device":
                with contextlib.suppress(DeviceError):
                    self._server.disconnect(address)
                    self._server.connect(address, timeout=5)
                    states[address] = self._server.states().get(address, "")
        return states

    async def _take_up(self, serial: str, held: _Held, scratch: str) -> None:
        from distributed import Nanny

        try:
            async with self._starting:
                held.since = time.monotonic()
                known = await asyncio.to_thread(facts, AdbTransport(serial, self._server))
                nanny = Nanny(self.hosting.scheduler, **self._options(serial, known, scratch))
                try:
                    held.nanny = await nanny
                except BaseException:
                    _kill(
                        nanny
                    )  # dask may leave a process that was slow to start, and it would hold the phone
                    raise
        except Exception as error:  # dask raises whatever went wrong in the new process
            said = (error.what if isinstance(error, DeviceError) else str(error)).splitlines()
            await self._let_go(serial, held, plain(said[0]) if said else type(error).__name__)
            return
        held.missed = 0
        self._say(f"{plain(serial)}: {known.chip}, {known.cores}")

    def _options(self, serial: str, known: PhoneFacts, scratch: str) -> dict[str, Any]:
        from benchmarks.farm.phone_worker import PhonePlugin

        resources = {PHONE: 1, f"serial:{serial}": 1}
        if known.soc:
            resources[f"soc:{known.soc}"] = 1
        return {
            "name": f"{socket.gethostname()}/{self.hosting.adb_port}/{serial}",
            "nthreads": 1,
            "resources": resources,
            "memory_limit": None,
            "death_timeout": _UNREACHED,
            "local_directory": scratch,
            "security": self.security,
            "silence_logs": logging.CRITICAL,
            "dashboard": False,
            "plugins": (PhonePlugin(serial, known.soc, self.hosting.adb_host, self.hosting.adb_port),),
        }

    async def _let_go(self, serial: str, held: _Held, why: str) -> None:
        nanny, held.nanny, held.missed = held.nanny, None, 0
        if nanny is not None:
            with contextlib.suppress(Exception):
                await nanny.close()
        now = time.monotonic()
        held.rest = _REST[0] if now - held.since > _LONG else min(2 * held.rest, _REST[1])
        held.not_before = now + held.rest
        self._say(f"{plain(serial)}: {why}; tried again in {held.rest:.0f} s")


def _kill(nanny: Nanny) -> None:
    process = nanny.process.process if nanny.process is not None else None
    if process is not None and process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def serve(
    hosting: Hosting, security: Security | None, say: Callable[[str], None], stop: Callable[[], bool]
) -> None:
    """Run a host until `stop`; Ctrl-C ends it too."""
    asyncio.run(Host(hosting, security, say).serve(stop))


def serve_below(hosting: Hosting, security: Security) -> None:
    """A host as a child process: it ends when its parent is gone."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us
    stopped = False

    def end(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, end)
    parent = multiprocessing.parent_process()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    serve(hosting, security, say, lambda: stopped or parent is None or not parent.is_alive())
