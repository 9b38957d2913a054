"""Writing rows in the formats that CI services and spreadsheets read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ci.junit import junit
from benchmarks.ci.rows import Row, row_of_error
from benchmarks.ci.tables import csv_table, markdown
from benchmarks.ci.trackers import bencher, github_benchmark
from compressor.errors import PocketganError, UsageError
from compressor.files import atomic

FORMATS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "junit": junit,
    "markdown": markdown,
    "csv": csv_table,
    "github_benchmark": github_benchmark,
    "bencher": bencher,
}


@dataclass(frozen=True)
class Outputs:
    """Files to be written, by format; an earlier file is replaced.

    Attributes:
        paths: by a name of `FORMATS`.
    """

    paths: Mapping[str, Path]

    def write(self, rows: Sequence[Row]) -> None:
        """Write every file, each whole or not at all.

        Raises:
            PocketganError: a file cannot be written.
        """
        for name, path in self.paths.items():
            with atomic(path, "w") as file:
                file.write(FORMATS[name](rows))

    @contextlib.contextmanager
    def told_of_errors(self, name: str) -> Iterator[None]:
        """Write what ended the block in place of rows, so that CI shows the cause and no stale file stays."""
        try:
            yield
        except PocketganError as error:
            if not isinstance(error, UsageError):
                self.write([row_of_error(name, error)])
            raise
