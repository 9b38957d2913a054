"""--junit FILE and its like: results as files for CI, the same for every command that has timings."""

from __future__ import annotations

import functools
from typing import Any

import click

from pocketgan.options import FILE, F

_HELP = {
    "junit": "Also as JUnit XML.",
    "markdown": "Also as a Markdown table, as for $GITHUB_STEP_SUMMARY.",
    "csv": "Also as CSV.",
    "github_benchmark": "Also for github-action-benchmark, tool customSmallerIsBetter.",
    "bencher": "Also in Bencher Metric Format.",
}


def format_options(function: F) -> F:
    """--junit, --markdown, --csv, --github-benchmark, --bencher; the command gets `outputs`.

    `outputs` is a `benchmarks.ci.outputs.Outputs`.
    """

    @functools.wraps(function)
    def collect(*args: Any, **kwargs: Any) -> Any:
        from benchmarks.ci.outputs import Outputs

        paths = {name: path for name in _HELP if (path := kwargs.pop(name)) is not None}
        return function(*args, outputs=Outputs(paths), **kwargs)

    made: Any = collect
    for name, told in reversed(_HELP.items()):
        flag = "--" + name.replace("_", "-")
        made = click.option(flag, name, type=FILE, metavar="FILE", help=told)(made)
    return made
