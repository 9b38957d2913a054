"""JUnit XML, which every CI reads: a test suite for each device, a test case for each row.

`time` is the median in seconds; all other figures are properties. A fault of the measuring is an
`error`, a regression or a wrong picture a `failure`, and a row without a verdict is `skipped`: none of the
three counts as passed. Written with junitparser, in the dialect of pytest and Jenkins (xunit2).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from benchmarks.ci.rows import Row, plain


def junit(rows: Sequence[Row]) -> str:
    """The rows as one XML document."""
    from junitparser import JUnitXml
    from junitparser.xunit2 import TestSuite

    document = JUnitXml("pocketgan")
    for device, own in groupby(sorted(rows, key=lambda row: row.key), key=lambda row: row.key.device):
        suite = TestSuite(plain(device))
        for row in own:
            suite.append(_case(row))
        suite.update_statistics()
        document.append(suite)
    document.update_statistics()
    buffer = io.BytesIO()
    document.write(buffer)
    return buffer.getvalue().decode("utf-8") + "\n"


def _case(row: Row) -> Any:
    from junitparser import Error, Failure, Skipped
    from junitparser.xunit2 import TestCase

    key = row.key
    case = TestCase(key.name, classname=plain(f"pocketgan.{key.runtime}.{key.precision}"))
    case.time = 0.0 if row.summary is None else round(row.summary.median / 1e3, 9)
    for name, value in figures(row).items():
        case.add_property(name, plain(str(value)))
    kinds = {"failed": Failure, "error": Error, "skipped": Skipped}
    if row.state in kinds:
        case.append(kinds[row.state](plain(row.said), row.judged.verdict if row.judged else row.state))
    return case


def figures(row: Row) -> dict[str, object]:
    """Every figure of a row under a name that says its unit; what is unknown is left out."""
    found: dict[str, object] = {"device": row.key.device, "model": row.key.model, "threads": row.key.threads}
    if (summary := row.summary) is not None:
        found |= {
            "samples": summary.count,
            "median_ms": summary.median,
            "median_low_ms": summary.low,
            "median_high_ms": summary.high,
            "p90_ms": summary.p90,
            "p99_ms": summary.p99,
            "iqr_ms": summary.iqr,
            "cv": summary.cv,
            "unstable": summary.unstable,
        }
    found |= row.facts
    if (judged := row.judged) is not None:
        found |= {
            "verdict": judged.verdict,
            "baseline_ms": judged.baseline_ms,
            "new_ms": judged.new_ms,
            "change": judged.change,
            "change_low": judged.low,
            "change_high": judged.high,
            "p": judged.p,
        }
    return {name: value for name, value in found.items() if value is not None}
