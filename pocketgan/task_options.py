"""The options of `pocketgan prune`: each task has settings of its own, and some share a name."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

import click

from compressor.errors import UsageError
from compressor.options import AdversarialOptions, PruneOptions, SuperResolutionOptions
from pocketgan.options import FILE, F

TASKS: dict[str, type[Any]] = {
    "distill": PruneOptions,
    "sr": SuperResolutionOptions,
    "pix2pix": AdversarialOptions,
    "cyclegan": AdversarialOptions,
}


def task_settings(function: F) -> F:
    """--task, and an option for each field of the tasks' settings; the command gets `task` and `settings`."""
    fields: dict[str, list[tuple[type[Any], dataclasses.Field[Any]]]] = {}
    for kind in dict.fromkeys(TASKS.values()):
        for field in dataclasses.fields(kind):
            fields.setdefault(field.name, []).append((kind, field))

    @functools.wraps(function)
    def collect(*args: Any, task: str, **kwargs: Any) -> Any:
        given = {name: value for name in fields if (value := kwargs.pop(name)) is not None}
        known = {field.name for field in dataclasses.fields(TASKS[task])}
        if foreign := [name for name in given if name not in known]:
            owners = _tasks(fields[foreign[0]])
            raise UsageError(
                f"--{foreign[0].replace('_', '-')} means nothing to --task {task}",
                allowed=f"--task {' or '.join(owners)}",
            )
        return function(*args, task=task, settings=TASKS[task](**given), **kwargs)

    made: Any = collect
    for name, holders in reversed(fields.items()):
        made = _option(name, holders)(made)
    return click.option(
        "--task",
        type=click.Choice(list(TASKS)),
        default="distill",
        show_default=True,
        help="What it is trained for while it is pruned: to paint what it paints now (distill), to restore "
        "the large pictures of --images from small ones (sr), or to stand against discriminators on pairs "
        "(pix2pix) or on two sets of pictures (cyclegan).",
    )(made)


def _option(name: str, holders: list[tuple[type[Any], dataclasses.Field[Any]]]) -> Any:
    """The option of one field; it stays None where it is not given, so that each task has its default."""
    kind, field = holders[0]
    hint = typing.get_type_hints(kind)[name]
    value_type = next(part for part in (*typing.get_args(hint), hint))
    text = field.metadata["help"]
    text = f"{text[0].upper()}{text[1:]}."
    tasks = _tasks(holders)
    if len(tasks) < len(TASKS):
        text += f" For {' and '.join(tasks)}."
    defaults = list(dict.fromkeys(str(field.default) for _, field in holders if field.default is not None))
    flag = f"--{name.replace('_', '-')}"
    if value_type is bool:
        off = f"/--no-{name.replace('_', '-')}" if field.default else ""
        return click.option(flag + off, name, is_flag=True, default=None, help=text)
    if defaults:
        text += f"  [default: {'; pix2pix, cyclegan: '.join(defaults)}]"
    return click.option(flag, name, type=FILE if value_type.__name__ == "Path" else value_type, help=text)


def _tasks(holders: list[tuple[type[Any], dataclasses.Field[Any]]]) -> list[str]:
    """The tasks whose settings hold a field."""
    return [name for name, kind in TASKS.items() if kind in [holder for holder, _ in holders]]
