"""Tables as cells, Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.ci.rows import plain
from benchmarks.ci.tables import spreadsheet_cell
from benchmarks.tables.model import SOURCES, Row, Table, Value

_COLOURS = {"measured": "#0b6e4f", "recorded": "#2b5fa4", "published": "#9a9a9a"}
_WIDE, _LEFT, _LINE = 960, 380, 24  # of the plot, in SVG's units
_LABEL = 56  # letters that fit to the left


def cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and lines in words; columns that no row fills are left out."""
    used = [
        column
        for column in table.columns
        if any(row.figures.get(column.key) is not None for row in table.rows)
    ]
    head = ["", "from", *(column.label for column in used), "said"]
    lines = []
    for row in table.rows:
        figures = [_written(row.figures.get(column.key), column.write) for column in used]
        lines.append([plain(row.name), row.source, *figures, plain(row.told)])
    return head, lines


def notes(table: Table) -> list[str]:
    """What stands below: the sources that occur, and the protocol."""
    found = {row.source for row in table.rows}
    return [*(f"{name}: {told}" for name, told in SOURCES.items() if name in found), *table.notes]


def markdown(table: Table) -> str:
    """A Markdown table with its notes."""
    head, lines = cells(table)
    text = [f"## {table.title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    text += [f"| {' | '.join(_safe(cell) for cell in line)} |" for line in lines]
    return "\n".join([*text, "", *(f"- {_safe(note)}" for note in notes(table)), ""])


def csv_text(table: Table) -> str:
    """One line a row, figures unrounded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["name", "from", *(column.key for column in table.columns), "said"])
    for row in table.rows:
        figures = [row.figures.get(column.key) for column in table.columns]
        writer.writerow([spreadsheet_cell(each) for each in (row.name, row.source, *figures, row.told)])
    return buffer.getvalue()


def svg(table: Table) -> str:
    """The plotted column as bars in the rows' order, coloured by where a row comes from."""
    (column,) = (column for column in table.columns if column.key == table.plotted)
    rows = [
        (row, float(v)) for row in table.rows if isinstance(v := row.figures.get(column.key), int | float)
    ]
    values = [value for _, value in rows] or [0.0]
    low = 0.0 if min(values) < 0.7 * max(values) else min(values) - 0.2 * (max(values) - min(values) or 1)
    span = max(values) - low or 1.0
    tall = _LINE * (len(rows) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {tall}" font-family="sans-serif" '
        f'font-size="13"><title>{escape(table.title)}</title>',
        f'<rect width="{_WIDE}" height="{tall}" fill="white"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(f"{table.title}: {column.label}")}</text>',
    ]
    for number, (row, value) in enumerate(rows, 1):
        y = _LINE * (number + 0.75)
        length = (value - low) / span * (_WIDE - _LEFT - 80)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(_label(table, row))}</text>'
            f'<rect x="{_LEFT}" y="{y - 13}" width="{max(1.0, length):.1f}" height="16" '
            f'fill="{_COLOURS[row.source]}"/><text x="{_LEFT + max(1.0, length) + 6:.1f}" y="{y}">'
            f"{escape(column.write(value))}</text>"
        )
    x, y = _LEFT, _LINE * (len(rows) + 2.2)
    for source, colour in _COLOURS.items():
        parts.append(f'<rect x="{x}" y="{y - 12}" width="14" height="14" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{source}</text>')
        x += 130
    if low:
        parts.append(f'<text x="8" y="{y}" fill="#666">bars begin at {escape(column.write(low))}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _label(table: Table, row: Row) -> str:
    figures = [row.figures.get(key) for key in table.told_apart]
    apart = "".join(f", {figure}" for figure in figures if figure is not None)
    return plain(row.name)[: _LABEL - len(apart)] + plain(apart)


def _written(value: Value, write: Callable[[Any], str]) -> str:
    if value is None:
        return "-"
    return plain(value) if isinstance(value, str) else write(value)


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("@", "&#64;")
