"""What a table is: rows that say where each comes from."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Value = float | int | str | None
Source = Literal["measured", "recorded", "published", "missing"]
SOURCES: dict[Source, str] = {
    "measured": "computed here, from data and weights at hand",
    "recorded": "from a record of one of our benchmarks",
    "published": "as its authors state it; not run by us",
    "missing": "cannot be had here, and why",
}


@dataclass(frozen=True)
class Column:
    """One figure: its name in CSV, its heading, and how it is written."""

    key: str
    label: str
    write: Callable[[Any], str]


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        figures: by column key; what is absent is a gap.
        told: date and command of a record, the publication, or what is missing and what to do.
    """

    name: str
    source: Source
    figures: Mapping[str, Value] = field(default_factory=dict)
    told: str = ""


@dataclass(frozen=True)
class Table:
    """A table and its protocol.

    Attributes:
        plotted: key of the column that a plot shows.
        notes: the protocol, and what the data folder lacks.
        told_apart: keys of columns that tell rows of one name apart, where there is only a name.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    plotted: str
    notes: tuple[str, ...] = ()
    told_apart: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The table as JSON types, figures unrounded."""
        rows = [{"name": r.name, "source": r.source, "told": r.told, **r.figures} for r in self.rows]
        return {
            "title": self.title,
            "columns": [c.key for c in self.columns],
            "rows": rows,
            "notes": self.notes,
        }


def absent(what: str, data: Path, fetched: str | None, elsewhere: str = "") -> str:
    """That something is not in the data folder, and what brings it.

    Args:
        fetched: its name in `pocketgan data list`; None if that does not have it.
        elsewhere: who has it then.
    """
    return f"{what} is not in {data}: " + (
        f"pocketgan data fetch {fetched} --output-dir {shlex.quote(str(data))}" if fetched else elsewhere
    )


def decimals(digits: int) -> Callable[[Any], str]:
    """Numbers with so many decimals."""
    return lambda value: f"{value:.{digits}f}"


def billions(value: Any) -> str:
    """MACs as 12.3 G would be, without the unit, which stands in the heading."""
    return f"{value / 1e9:.4g}" if value < 1e13 else f"{value / 1e9:.0f}"


def millions(value: Any) -> str:
    """Parameters in millions."""
    return f"{value / 1e6:.3g}"
