"""JSON into dataclasses by their own type hints: what is of another type is an error that says where."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

_FARTHEST = 1e300  # of a number; whole ones have no end in JSON, and floats do


def fields_of(kind: type, document: object) -> dict[str, Any]:
    """The arguments of a dataclass from a JSON object; keys that it does not know are passed over.

    Raises:
        KeyError: a field without a default is missing.
        TypeError, ValueError: a value is not of its field's type, or no finite number.
    """
    if not isinstance(document, Mapping):
        raise TypeError(f"{type(document).__name__} where {kind.__name__} belongs")
    hints, found = _hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in document:
            found[field.name] = typed(hints[field.name], document[field.name], field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise KeyError(field.name)
    return found


def typed(kind: Any, value: Any, where: str) -> Any:
    """A JSON value as a type: a scalar, `Any`, an optional one, a tuple, a mapping or a dataclass.

    A dataclass that has a `from_json` of its own is read by that.

    Raises:
        KeyError, TypeError, ValueError: as `fields_of`.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):  # of None and one other type
        rest = [part for part in parts if part is not types.NoneType]
        return None if value is None and len(rest) < len(parts) else typed(rest[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if parts[-1] is Ellipsis:
            return tuple(typed(parts[0], item, where) for item in value)
        if len(parts) == len(value):
            return tuple(typed(part, item, where) for part, item in zip(parts, value, strict=True))
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {typed(str, key, where): typed(parts[1], item, where) for key, item in value.items()}
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        read = getattr(kind, "from_json", None)
        return read(value) if read else kind(**fields_of(kind, value))
    elif kind is bool and isinstance(value, bool):
        return value
    elif kind in (int, float) and isinstance(value, int if kind is int else (int, float)):
        if not isinstance(value, bool) and abs(value) < _FARTHEST and math.isfinite(value):
            return kind(value)
    elif kind is str and isinstance(value, str):
        return value
    said = type(value).__name__ if isinstance(value, list | dict) else repr(value)[:80]  # may be deep
    raise TypeError(f"{where} is {said}, which is no {getattr(kind, '__name__', kind)}")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
