"""Where a farm's results lie: one row for each job of a run, in SQLite or another SQL database.

A job that was measured, or that failed a check, is written once and never changed; one that ended in a
fault of the farm may be tried again by a later call. Each write is one transaction, so a process killed
at any moment leaves whole rows.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import PocketganError, UsageError, missing_extra

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

VERSION = 1
"""Of the tables; a store of a later version is refused."""
MEASURED, REFUSED, FAILED, INFRASTRUCTURE = "measured", "refused", "failed", "infrastructure"
STATUSES = (MEASURED, REFUSED, FAILED, INFRASTRUCTURE)
"""Measured; measured or refused by a check; the file cannot be run; a fault of the farm."""
FINAL = (MEASURED, REFUSED, FAILED)


@dataclass(frozen=True)
class Row:
    """What became of one job, or of one attempt at it.

    Attributes:
        job: its key. name, target: see `benchmarks.farm.plan.Job`.
        status: one of STATUSES.
        serial, soc, host: of the phone; None where none was reached.
        attempts: how many were made.
        seconds: on the phone's host.
        error: `PocketganError.as_json`, or None.
        document: the session as bench.json holds it (see `benchmarks.samples`), or None.
    """

    job: str
    name: str
    target: str
    status: str
    serial: str | None = None
    soc: str | None = None
    host: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    error: dict[str, Any] | None = None
    document: dict[str, Any] | None = None


class Store:
    """A result store, a context manager.

    Args:
        address: a SQLite file, or an SQLAlchemy URL ("postgresql+psycopg://...").
        run: results of different runs lie apart.

    Raises:
        PocketganError: it cannot be opened, is no store, or is of a later version.
    """

    def __init__(self, address: Path | str, run: str):
        try:
            import sqlalchemy
        except ModuleNotFoundError as error:
            raise missing_extra("SQLAlchemy", "farm") from error
        self.run = run
        with _translated(str(address)):
            if isinstance(address, Path):
                address.parent.mkdir(parents=True, exist_ok=True)
                self._url = sqlalchemy.URL.create("sqlite", database=str(address))
            else:
                self._url = sqlalchemy.make_url(address)
            self.name = self._url.render_as_string(hide_password=True)
            self._engine = sqlalchemy.create_engine(self._url)
        tables = _tables()
        self._results, self._attempts = tables.tables["farm_results"], tables.tables["farm_attempts"]
        try:
            with self._transaction() as connection:
                tables.create_all(connection)
                self._check_version(connection, tables)
        except BaseException:
            self._engine.dispose()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store for one coordinator; others may read it meanwhile.

        An exclusive transaction on a file beside the store, which the operating system ends with its process,
        however that dies. Databases on a server are not held: name two coordinators' runs apart there.

        Raises:
            UsageError: another coordinator holds it.
        """
        path = self._url.database
        if self._url.get_backend_name() != "sqlite" or not path or path == ":memory:":
            yield
            return
        with contextlib.closing(sqlite3.connect(f"{path}.lock", timeout=0, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):  # a disk that is full or read-only
                    raise PocketganError(f"{path}.lock cannot be held", got=str(error)) from error
                raise UsageError(
                    f"another coordinator works on {path}",
                    got=str(error),
                    allowed="one at a time",
                    fix="wait until it ends, or stop it; or choose another --output-dir",
                ) from error
            yield

    def finished(self) -> dict[str, str]:
        """Jobs of this run that need no more work, and their status."""
        from sqlalchemy import select

        columns = self._results.c
        query = select(columns.job, columns.status).where(columns.run == self.run, columns.status.in_(FINAL))
        with self._transaction() as connection:
            return {str(found.job): str(found.status) for found in connection.execute(query)}

    def record(self, row: Row) -> bool:
        """Write what became of a job; False where it is finished already, and nothing was changed."""
        from sqlalchemy import delete, insert
        from sqlalchemy.exc import IntegrityError

        table = self._results
        again = (table.c.run == self.run, table.c.job == row.job, table.c.status == INFRASTRUCTURE)
        try:
            with self._transaction() as connection:
                connection.execute(delete(table).where(*again))
                connection.execute(insert(table).values(**self._values(row), document=_text(row.document)))
        except IntegrityError:
            return False
        return True

    def note_attempt(self, row: Row) -> None:
        """Keep one attempt that a fault of the farm ended, as evidence."""
        from sqlalchemy import insert

        with self._transaction() as connection:
            connection.execute(insert(self._attempts).values(**self._values(row)))

    def rows(self, *, documents: bool = False) -> Iterator[Row]:
        """This run's jobs by name, one at a time; `documents` brings the sessions along."""
        yield from self._read(self._results, documents)

    def attempts(self) -> Iterator[Row]:
        """This run's attempts that faults of the farm ended, oldest first."""
        yield from self._read(self._attempts, False)

    def _read(self, table: Any, documents: bool) -> Iterator[Row]:
        from sqlalchemy import select

        names = [name for name in Row.__dataclass_fields__ if name != "document" or documents]
        order = table.c.number if "number" in table.c else (table.c.name, table.c.target, table.c.job)
        query = select(*(table.c[name] for name in names)).where(table.c.run == self.run)
        query = query.order_by(*(order if isinstance(order, tuple) else (order,)))
        with self._transaction() as connection:
            for values in connection.execution_options(yield_per=16).execute(query).mappings():
                fields = dict(values)
                for name in ("error", "document"):
                    if fields.get(name):
                        fields[name] = json.loads(fields[name])
                yield Row(**fields)

    def _values(self, row: Row) -> dict[str, Any]:
        names = ("job", "name", "target", "status", "serial", "soc", "host", "attempts", "seconds")
        values = {name: getattr(row, name) for name in names}
        return {**values, "run": self.run, "error": _text(row.error), "ended": time.time()}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with _translated(self._url.render_as_string(hide_password=True)), self._engine.begin() as connection:
            yield connection

    def _check_version(self, connection: Connection, tables: MetaData) -> None:
        from sqlalchemy import insert, select

        table = tables.tables["farm_schema"]
        found = connection.execute(select(table.c.version)).scalars().all()
        if not found:
            connection.execute(insert(table).values(version=VERSION))
        elif max(found) > VERSION:
            raise PocketganError(
                f"{self.name} was written by a later pocketgan",
                got=f"schema {max(found)}",
                allowed=VERSION,
                fix="update pocketgan, or choose another --output-dir",
            )


def _tables() -> MetaData:
    from sqlalchemy import Column, Float, Integer, MetaData, String, Table, Text

    def shared() -> list[Column[Any]]:
        return [
            Column("name", Text, nullable=False),
            Column("target", Text, nullable=False),
            Column("status", String(16), nullable=False),
            Column("serial", Text),
            Column("soc", Text),
            Column("host", Text),
            Column("attempts", Integer, nullable=False),
            Column("seconds", Float, nullable=False),
            Column("ended", Float, nullable=False),
            Column("error", Text),
        ]

    tables = MetaData()
    Table("farm_schema", tables, Column("version", Integer, primary_key=True, autoincrement=False))
    Table(
        "farm_results",
        tables,
        Column("run", String(128), primary_key=True),
        Column("job", String(32), primary_key=True),
        *shared(),
        Column("document", Text(1 << 24)),
    )
    Table(
        "farm_attempts",
        tables,
        Column("number", Integer, primary_key=True),
        Column("run", String(128), nullable=False),
        Column("job", String(32), nullable=False),
        *shared(),
    )
    return tables


def _text(document: dict[str, Any] | None) -> str | None:
    return None if document is None else json.dumps(document, allow_nan=False)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    """A database's errors as ours; a broken key is left to the caller."""
    from sqlalchemy.exc import IntegrityError, NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except IntegrityError:
        raise
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise PocketganError(
            "SQLAlchemy has no driver for this database", got=str(error), fix="pip install the driver"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()
        raise PocketganError(
            f"the result store {name} cannot be used",
            got=said[0][:300] if said else type(error).__name__,
            fix="check that it is a store of ours, and that the disk has space; the same command goes on",
        ) from error
