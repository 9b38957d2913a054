"""The coordinator's side of dask: a scheduler of its own or another's, jobs sent, outcomes as they come."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.farm.host import PHONE, Hosting, serve_below
from benchmarks.farm.link import Link, require_farm
from compressor.errors import PocketganError
from devices.transport import DeviceError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

_REACH = 20.0  # seconds to reach a scheduler
_REVIVALS = 5  # times that this machine's host process is started again after it ended


@dataclass(frozen=True)
class FarmPhone:
    """A phone that some host announces now.

    Attributes:
        address: its worker's. name: "HOST/PORT/SERIAL".
        kinds: the targets that it serves: "any", "soc:PART", "serial:SERIAL".
    """

    address: str
    name: str
    kinds: frozenset[str]


@dataclass(frozen=True)
class Ended:
    """A job that is no longer in flight.

    Attributes:
        key: as it was sent.
        outcome: what the worker says, or None.
        fault: why there is no outcome, or None.
        lost: the scheduler dropped it; it may be sent again.
    """

    key: str
    outcome: dict[str, Any] | None = None
    fault: str | None = None
    lost: bool = False


class Farm:
    """A scheduler and its phones, a context manager.

    Args:
        link: another host's scheduler; None for one of our own, with this machine's phones.
        hosting: this machine's phones, where the scheduler is our own.

    Raises:
        PocketganError: the farm's packages are missing, or no scheduler answers.
    """

    def __init__(self, link: Link | None, hosting: Hosting | None):
        require_farm()
        self._link, self._hosting = link, hosting
        self._ended: queue.SimpleQueue[tuple[str, Future]] = queue.SimpleQueue()
        self._flying: dict[str, Future] = {}
        self._host: multiprocessing.process.BaseProcess | None = None
        self._revivals = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Farm:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said by the coordinator
        try:
            self._client = self._reach(self._link) if self._link else self._own()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._flying.values():
            with contextlib.suppress(Exception):
                future.cancel()
        self._stack.close()

    def phones(self) -> list[FarmPhone]:
        """All phones that are announced now.

        Raises:
            PocketganError: the scheduler is gone.
        """
        if self._host is not None and not self._host.is_alive():
            self._revive()
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except Exception as error:  # dask raises whatever its connection met
            raise PocketganError(
                "the farm's scheduler is gone",
                got=str(error)[:300] or type(error).__name__,
                fix="start it again; the same command goes on with what is left",
            ) from error
        return [
            FarmPhone(address, str(found["name"]), frozenset(_kinds(found["resources"])))
            for address, found in workers.items()
            if found["resources"].get(PHONE) and found["status"] == "running"
        ]

    def send(self, order: Mapping[str, Any], workers: Sequence[str] | None = None) -> str:
        """Send a job to a phone of its kind, the least busy one, or to one of `workers`; returns its key."""
        from benchmarks.farm.phone_worker import measure

        key = f"job-{uuid.uuid4().hex}"
        target = order["target"]
        future = self._client.submit(
            measure,
            dict(order),
            key=key,
            pure=False,
            resources={PHONE: 1} if target == "any" else {PHONE: 1, target: 1},
            workers=list(workers) if workers else None,
        )
        self._flying[key] = future
        future.add_done_callback(lambda done: self._ended.put((key, done)))
        return key

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that ended, at least one unless `seconds` pass."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self._ended.get(timeout=seconds))
            while True:
                found.append(self._ended.get_nowait())
        return [self._read(key, future) for key, future in found if self._flying.pop(key, None) is not None]

    def withdraw(self, key: str) -> None:
        """Forget a job that was sent; what it still gives is not listened to."""
        future = self._flying.pop(key, None)
        if future is not None:
            with contextlib.suppress(Exception):
                future.cancel()

    def bring(self, worker: str, digest: str, name: str, content: bytes) -> str | None:
        """Give a worker's host a file; what went wrong, or None."""
        from benchmarks.farm.phone_worker import bring

        try:
            said = self._client.run(bring, digest, name, content, workers=[worker])
        except Exception as error:  # the worker's host went away meanwhile
            return f"{type(error).__name__}: {error}"
        return said.get(worker, "the worker is gone")

    def _read(self, key: str, future: Future) -> Ended:
        try:
            if future.status == "finished":
                return Ended(key, future.result(timeout=_REACH))
            if future.status == "error":
                return Ended(key, fault=str(future.exception(timeout=_REACH))[:500])
            return Ended(key, lost=True)
        except Exception as error:  # the result was lost on its way, with the worker that held it
            return Ended(key, fault=f"{type(error).__name__}: {error}"[:500], lost=True)
        finally:
            future.release()

    def _own(self) -> Client:
        import dask
        from distributed import LocalCluster, Security

        settings = {"distributed.admin.system-monitor.log-length": 60}  # half a minute is enough
        self._stack.enter_context(dask.config.set(settings))
        security = Security.temporary()
        cluster: LocalCluster = self._stack.enter_context(
            LocalCluster(
                n_workers=0,
                host="tls://127.0.0.1",
                security=security,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        )
        self._address, self._security = cluster.scheduler_address, security
        client = self._connect(self._address, security)
        self._start_host()
        self._stack.callback(self._end_host)
        return client

    def _reach(self, link: Link) -> Client:
        try:
            return self._connect(link.scheduler, link.security())
        except Exception as error:  # refused, wrong keys, other versions: dask's and OpenSSL's own
            said = str(error.__cause__ or error).splitlines()
            raise PocketganError(
                f"no scheduler answers at {link.scheduler}",
                got=said[0][:300] if said else type(error).__name__,
                fix="start one there: dask scheduler --tls-ca-file CA --tls-cert CERT --tls-key KEY",
            ) from error

    def _connect(self, address: str, security: Any) -> Client:
        from distributed import Client

        return self._stack.enter_context(
            Client(address, security=security, timeout=_REACH, set_as_default=False)
        )

    def _start_host(self) -> None:
        from dataclasses import replace

        assert self._hosting is not None
        hosting = replace(self._hosting, scheduler=self._address)
        context = multiprocessing.get_context("spawn")
        self._host = context.Process(target=serve_below, args=(hosting, self._security), name="farm-host")
        self._host.start()

    def _revive(self) -> None:
        self._revivals += 1
        if self._revivals > _REVIVALS:
            raise DeviceError(
                "the process that serves this machine's phones ends again and again",
                fix="try it alone: pocketgan farm worker",
            )
        self._start_host()

    def _end_host(self) -> None:
        if self._host is None:
            return
        self._host.terminate()
        self._host.join(20)
        if self._host.is_alive():
            self._host.kill()
            self._host.join()


def _kinds(resources: Mapping[str, float]) -> list[str]:
    return ["any", *(name for name, count in resources.items() if count and name != PHONE)]
