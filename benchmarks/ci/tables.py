"""Rows as tables: Markdown for summaries and comments, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from benchmarks.ci.junit import figures
from benchmarks.ci.rows import Row, plain
from benchmarks.report import words

SUMMARY_LIMIT = 1024 * 1024
"""Bytes that GitHub shows of a step's summary; one byte more, and it shows none."""
_KEEP_FREE = 4096  # bytes, for what others add to the same summary and for our last line
_SIGNS = {"passed": "✅", "failed": "❌", "error": "⚠️", "skipped": "⚪"}
_COMPARED = ("baseline", "change")
_RIGHT = ("threads", "median", *_COMPARED)
_COLUMNS = ("device", "runtime", "precision", "model", "threads", "state", "said", "verdict")


def markdown(rows: Sequence[Row], limit: int = SUMMARY_LIMIT) -> str:
    """A table for GitHub, what did not pass first; cut between rows, and said so, at `limit` bytes.

    Whatever came from outside stands in code spans, where neither HTML nor @names nor #numbers count.
    """
    compared = any(row.judged is not None for row in rows)
    counts = {state: sum(row.state == state for row in rows) for state in _SIGNS}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing was measured"
    head = [
        "",
        "model",
        "runtime",
        "threads",
        "device",
        "median",
        *(["baseline", "change"] * compared),
        "why",
    ]
    lines = [
        f"### Latency: {told}",
        "",
        f"|{'|'.join(head)}|",
        "|" + "|".join("-:" if name in _RIGHT else "-" for name in head) + "|",
    ]
    used = sum(len(line.encode()) + 1 for line in lines)
    ordered = sorted(rows, key=lambda row: (list(_SIGNS).index(row.state) + 3) % 4)
    for number, row in enumerate(ordered):
        line = f"|{'|'.join(_cells(row, compared))}|"
        used += len(line.encode()) + 1
        if used > limit - _KEEP_FREE:
            lines += ["", f"{len(ordered) - number} more rows did not fit; bench.json has them all."]
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Text as a code span in a cell of a Markdown table, whatever it holds."""
    shown = plain(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if not shown.strip() or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def csv_table(rows: Sequence[Row]) -> str:
    """One line a row, comma-separated, times in milliseconds; a cell that does not apply is empty.

    A text that a spreadsheet would take for a formula gets an apostrophe before it (OWASP, CSV Injection).
    """
    found = [{**_texts(row), **figures(row)} for row in rows]
    names = list(dict.fromkeys([*_COLUMNS, *(name for row in found for name in row)]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([spreadsheet_cell(row.get(name)) for name in names] for row in found)
    return buffer.getvalue()


def _texts(row: Row) -> dict[str, object]:
    return {"runtime": row.key.runtime, "precision": row.key.precision, "state": row.state, "said": row.said}


def spreadsheet_cell(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = plain(str(value))
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠")) else text


def _cells(row: Row, compared: bool) -> list[str]:
    key, judged = row.key, row.judged
    median = row.summary.median if row.summary else None
    if judged is not None and judged.new_ms is not None:
        median = judged.new_ms
    cells = [
        _SIGNS[row.state],
        code(key.model),
        code(f"{key.runtime} {key.precision}"),
        str(key.threads),
        code(key.device),
        _ms(median),
    ]
    if compared:
        cells += [_ms(judged.baseline_ms if judged else None), change_words(row)]
    return [*cells, code(row.said) if row.said else (judged.verdict if judged else "")]


def change_words(row: Row) -> str:
    """ "+5.1 % [+3.9, +6.3]", or a dash."""
    judged = row.judged
    if judged is None or judged.change is None or judged.low is None or judged.high is None:
        return "-"
    return f"{100 * judged.change:+.1f} % [{100 * judged.low:+.1f}, {100 * judged.high:+.1f}]"


def _ms(value: float | None) -> str:
    return "-" if value is None else words.milliseconds(value)
