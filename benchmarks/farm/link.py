"""Addresses of schedulers, and the keys that hosts of a farm trust each other by.

dask's messages are pickles: whoever may send one runs code on every host. So hosts speak TLS with
certificates of the farm's own authority, and a farm within one machine makes keys for its own life.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import PocketganError, UsageError, missing_extra

if TYPE_CHECKING:
    from distributed import Security


@dataclass(frozen=True)
class Link:
    """How to reach a scheduler.

    Attributes:
        scheduler: "tls://HOST:PORT" or "tcp://HOST:PORT".
        ca, cert, key: PEM files: the authority, this host's certificate and its key; all or none.
        insecure: speak without TLS to other hosts.

    Raises:
        UsageError: the address is none, or keys are missing or not wanted.
    """

    scheduler: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        found = re.fullmatch(r"(tls|tcp)://(\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", self.scheduler)
        if not found or not 0 < int(found.group(3)) < 65536:
            raise UsageError(
                "this is no scheduler", got=repr(self.scheduler), allowed="tls://HOST:PORT or tcp://HOST:PORT"
            )
        files = {"--tls-ca": self.ca, "--tls-cert": self.cert, "--tls-key": self.key}
        missing = [name for name, path in files.items() if path is None]
        if found.group(1) == "tls":
            if missing:
                raise UsageError("TLS needs keys", got=f"no {', '.join(missing)}", allowed="all three")
            for name, path in files.items():
                if path is not None and not path.is_file():
                    raise UsageError(f"{name} is no file", got=path)
            return
        if len(missing) < 3:
            raise UsageError("keys need a tls:// address", got=self.scheduler)
        if not self.insecure and not _is_loopback(found.group(2)):
            raise UsageError(
                "without TLS, whoever reaches the scheduler runs code on every host of the farm",
                got=self.scheduler,
                fix="use tls:// with --tls-ca, --tls-cert and --tls-key, or --insecure on your own network",
            )

    def security(self) -> Security | None:
        """dask's form of the keys."""
        from distributed import Security

        if self.ca is None:
            return None
        ca, cert, key = (str(path) for path in (self.ca, self.cert, self.key))
        return Security(
            tls_ca_file=ca,
            tls_client_cert=cert,
            tls_client_key=key,
            tls_worker_cert=cert,
            tls_worker_key=key,
            require_encryption=True,
        )


def require_farm() -> None:
    """Say what to install where the farm's packages are not there.

    Raises:
        PocketganError: the extra is not installed, or this system is not served.
    """
    try:
        import cryptography  # noqa: F401
        import distributed  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "farm") from error
    try:
        import fcntl  # noqa: F401
    except ModuleNotFoundError as error:
        raise PocketganError("a farm's hosts run Linux or macOS") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
