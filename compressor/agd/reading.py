"""Strict reading of a search space's YAML file: what is not known is an error with the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import yaml

from compressor.errors import UsageError

_FRACTION = re.compile(r"\d{1,6}(/\d{1,6}|\.\d{1,9})?")
_LONGEST = 1 << 18  # characters of a file


def parse(text: str, name: str) -> Any:
    """One YAML document as mappings, lists, numbers and words.

    Anchors, aliases and tags are refused, and so are keys set twice.

    Raises:
        UsageError: it is none of ours, or not YAML.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"{name} is too long for a search space", got=f"{len(text):,} characters")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise UsageError(f"{name}: anchors (&) and aliases (*) are not allowed", fix="write it out")
            if tag := getattr(event, "tag", None):
                raise UsageError(f"{name}: tags are not allowed", got=tag)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_doubles(node, name)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{line}: this is not YAML", got=error.problem or error.context) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not YAML", got=str(error).splitlines()[0]) from error


def _refuse_doubles(node: yaml.Node | None, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                line = key.start_mark.line + 1
                raise UsageError(f"{name}, line {line}: a key is set twice, or is no word", got=key.value)
            seen.add(key.value)
            _refuse_doubles(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_doubles(item, name)


def section(value: object, where: str, keys: Iterable[str], needed: Iterable[str] = ()) -> dict[str, Any]:
    """A mapping with none but these keys, and all that are needed.

    Raises:
        UsageError: it is no mapping, has another key, or lacks one.
    """
    keys = list(keys)
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is not a section of `key: value` lines", got=repr(value))
    for key in value:
        if key not in keys:
            raise UsageError(f"{where}: there is no {key!r}{nearest(key, keys)}")
    for key in needed:
        if key not in value:
            raise UsageError(f"{where}: {key!r} is missing")
    return dict(value)


def nearest(word: object, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest allowed word, or all of them."""
    choices = list(allowed)
    close = difflib.get_close_matches(str(word), choices, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it is one of: {', '.join(choices)}"


def among(value: object, where: str, allowed: Iterable[str]) -> str:
    """One of these words."""
    choices = list(allowed)
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f"{where}: there is no {value!r}{nearest(value, choices)}")
    return value


def whole(value: object, where: str, least: int = 1, most: int = 1 << 16) -> int:
    """A whole number between two."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{where} is not a whole number", got=repr(value), allowed=f"{least} to {most}")
    return value


def number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:
        raise UsageError(f"{where} is not a number", got=repr(value))
    return float(value)


def flag(value: object, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{where} is not true or false", got=repr(value))
    return value


def listed(value: object, where: str, *, empty: bool = False) -> list[Any]:
    """A list."""
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise UsageError(f"{where} is not a list", got=repr(value))
    return list(value)


def fraction(value: object, where: str) -> Fraction:
    """A positive number, or a fraction such as 4/12."""
    try:
        if isinstance(value, bool) or not _FRACTION.fullmatch(str(value)):
            raise ValueError
        found = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if found <= 0:
        raise UsageError(f"{where} is not a positive number or fraction", got=repr(value), allowed="as 4/12")
    return found
