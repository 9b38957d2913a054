"""YAML into frozen dataclasses, strictly: unknown and double keys and wrong types are errors with their line.

A plain scalar is read as the type its field has (so `1e-3` is a number and `no` a word where a word
belongs), not by YAML's guesses. Anchors, aliases and tags are refused: settings need none, and they are
what hostile files are made of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from compressor.errors import PocketganError, UsageError
from pocketgan.options import nearest

T = TypeVar("T")
_LONGEST = 1 << 20  # characters of a settings file
_DEEPEST = 16  # levels of nesting
_NULL = ("", "~", "null")
_TRUE_FALSE = {"true": True, "false": False}


@dataclass(frozen=True)
class Value:
    """One node of a document.

    Attributes:
        data: a scalar's text, a list or a mapping of values.
        where: "FILE, line N" or the option it came from.
        base: folder that relative paths refer to.
        quoted: a scalar in quotes, which is a word and never a number.
    """

    data: str | list[Value] | dict[str, Value]
    where: str
    base: Path
    quoted: bool = False


def read_text(path: Path, what: str) -> str:
    """A file's text; `what` it is ("recipe") goes into the error.

    Raises:
        UsageError: it is no text.
        PocketganError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", got=error.reason) from error
    except OSError as error:
        raise PocketganError(f"cannot read the {what} {path}", got=error.strerror or error) from error


def parse(text: str, name: str, base: Path) -> Value:
    """Read one YAML document.

    Args:
        text: the document.
        name: what to call it in messages.
        base: folder that its relative paths refer to.

    Raises:
        UsageError: it is not YAML, too long, too deep, or uses anchors, aliases, tags or duplicate keys.
    """
    if len(text) > _LONGEST:
        raise UsageError(
            f"{name} is too long for settings", got=f"{len(text):,} characters", allowed=_LONGEST
        )
    try:
        _refuse_hostile(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise UsageError(f"{where}: this is not YAML", got=error.problem or error.context) from error
    except yaml.YAMLError as error:  # among them control characters, as in a binary file
        raise UsageError(f"{name} is not YAML", got=str(error).splitlines()[0]) from error
    return Value({}, f"{name}, line 1", base) if node is None else _value(node, name, base)


def _refuse_hostile(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{name}, line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UsageError(
                f"{where}: anchors (&) and aliases (*) are not allowed", fix="write the value out"
            )
        if tag := getattr(event, "tag", None):
            raise UsageError(f"{where}: tags are not allowed", got=tag)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise UsageError(f"{where}: nested too deeply", allowed=f"{_DEEPEST} levels")


def _value(node: yaml.Node, name: str, base: Path) -> Value:
    where = f"{name}, line {node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        return Value(node.value, where, base, quoted=node.style is not None)
    if isinstance(node, yaml.SequenceNode):
        return Value([_value(item, name, base) for item in node.value], where, base)
    assert isinstance(node, yaml.MappingNode)
    entries: dict[str, Value] = {}
    for key, item in node.value:
        line = f"{name}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{line}: a key must be a word")
        if key.value in entries:
            raise UsageError(
                f"{line}: {key.value!r} is set twice", got=f"first at {entries[key.value].where}"
            )
        entries[key.value] = dataclasses.replace(_value(item, name, base), where=line)
    return Value(entries, where, base)


def put(tree: Value, path: str, value: Value) -> Value:
    """A copy of the document with the value at a dotted path set.

    Raises:
        UsageError: a part of the path is a plain value already.
    """
    head, _, rest = path.partition(".")
    if not isinstance(tree.data, dict):
        raise UsageError(f"{value.where}: {head!r} cannot be set here", got=f"{tree.where} is not a section")
    child = put(tree.data.get(head, Value({}, value.where, value.base)), rest, value) if rest else value
    return dataclasses.replace(tree, data={**tree.data, head: child})


def build(kind: type[T], value: Value, path: str = "") -> T:
    """A dataclass from a mapping.

    Args:
        kind: a dataclass; its fields may be str, int, float, bool, Path, dataclasses, tuples of these
            and optional ones.
        value: the mapping.
        path: its dotted path, for messages.

    Raises:
        UsageError: an unknown or missing key, a wrong type, or what the dataclass itself refuses.
    """
    if isinstance(value.data, str) and value.data in _NULL and not value.quoted:
        value = dataclasses.replace(value, data={})  # a section with all its lines commented out
    if not isinstance(value.data, dict):
        raise _wrong(value, path or "the document", "a section of `key: value` lines")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    for key, item in value.data.items():
        if key not in fields:
            raise UsageError(f"{item.where}: there is no {_join(path, key)!r}{nearest(key, fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value.data:
            raise UsageError(
                f"{value.where}: {_join(path, name)!r} is missing", allowed=_describe(hints[name])
            )
    arguments = {
        key: _typed(hints[key], item, _join(path, key), optional=fields[key].default is None)
        for key, item in value.data.items()
    }
    try:
        return kind(**arguments)
    except PocketganError as error:
        named = value.data.get(error.what.split(" ")[0].rpartition(".")[2], value)  # "rounds is too small"
        raise UsageError(f"{named.where}: {error.what}", got=error.got, allowed=error.allowed) from error


def _typed(kind: Any, value: Value, path: str, *, optional: bool = False) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        alternatives = [part for part in parts if part is not types.NoneType]
        if not value.quoted and value.data in _NULL:
            sections = [part for part in alternatives if dataclasses.is_dataclass(part)]
            return build(sections[0], value, path) if sections else None  # type: ignore[arg-type]
        for part in alternatives[:-1]:
            try:
                return _typed(part, value, path)
            except UsageError:
                continue
        return _typed(alternatives[-1], value, path)
    if origin is tuple:
        return _typed_tuple(kind, parts, value, path)
    if origin is dict:
        if not isinstance(value.data, dict):
            raise _wrong(value, path, _describe(kind))
        return {key: _free(item, _join(path, key)) for key, item in value.data.items()}
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)  # type: ignore[arg-type]
    if not isinstance(value.data, str) or (not value.quoted and value.data in _NULL):
        raise _wrong(value, path, _describe(kind))
    try:
        return _scalar(kind, value)
    except (ValueError, RuntimeError):  # RuntimeError: the home folder of nobody, as in ~nobody-here
        raise _wrong(value, path, _describe(kind)) from None


def _typed_tuple(kind: Any, parts: tuple[Any, ...], value: Value, path: str) -> tuple[Any, ...]:
    if not isinstance(value.data, list):
        raise _wrong(value, path, _describe(kind))
    if parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value.data)
    if len(parts) != len(value.data):
        raise _wrong(value, path, _describe(kind))
    return tuple(
        _typed(part, item, f"{path}[{index}]")
        for index, (part, item) in enumerate(zip(parts, value.data, strict=True))
    )


def _free(value: Value, path: str) -> Any:
    """A value whose type nothing states: a list, a number, true or false, or else a word."""
    if isinstance(value.data, list):
        return [_free(item, f"{path}[{index}]") for index, item in enumerate(value.data)]
    for kind in (int, float, bool):
        with contextlib.suppress(UsageError):
            return _typed(kind, value, path)
    return _typed(str, value, path)


def _scalar(kind: Any, value: Value) -> Any:
    text = value.data
    assert isinstance(text, str)
    text.encode()  # refuses lone surrogates, which no file and no path can hold
    if kind in (str, Path) and text in _TRUE_FALSE and not value.quoted:
        raise ValueError
    if kind is Path:
        if "\0" in text:
            raise ValueError
        return Path(value.base, Path(text).expanduser())
    if kind is str:
        return text
    if value.quoted:
        raise ValueError
    if kind is bool:
        if text not in _TRUE_FALSE:
            raise ValueError
        return _TRUE_FALSE[text]
    number = kind(text.replace("_", "x"))  # int("1_0") is 10, which no reader of YAML expects
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError
    return number


def _describe(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in parts if part is not types.NoneType)
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return f"a list, each {_describe(parts[0])}"
        return f"a list of {len(parts)}, each {_describe(parts[0])}"
    if dataclasses.is_dataclass(kind) or origin is dict:
        return "a section of `key: value` lines"
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", Path: "a path"}
    return names[kind]


def _wrong(value: Value, path: str, allowed: str) -> UsageError:
    match value.data:
        case str() as text:
            got = repr(text) if value.quoted else text or "nothing"
        case list():
            got = "a list"
        case _:
            got = "a section"
    return UsageError(f"{value.where}: {path} is not {allowed}", got=got)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def read_word(text: str) -> Any:
    """A number, true or false, or else the word itself."""
    return _free(Value(text, "", Path()), "")


def as_plain(settings: Any) -> Any:
    """A dataclass as what YAML and JSON hold: mappings, lists, numbers and text."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {f.name: as_plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    if isinstance(settings, tuple):
        return [as_plain(item) for item in settings]
    return str(settings) if isinstance(settings, Path) else settings


def flatten(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, item in settings.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, _join(path, key))
        else:
            flat[_join(path, key)] = item
    return flat
