"""Damaged inputs: what is done to good files, drawn by hypothesis so that a seed gives the same inputs again.

Three views of a file are damaged: its bytes, its lines and words, and the tree that its JSON means.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

MOST = 1 << 20  # bytes of a damaged file
_CHANGES = (1, 1, 1, 2, 3, 6)
_EDGES = tuple(
    struct.pack(form, value)
    for form, values in (
        ("<B", (0, 1, 0x7F, 0x80, 0xFF)),
        ("<H", (0xFFFF, 0x7FFF, 0x8000)),
        ("<I", (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 20, 1)),
        ("<Q", ((1 << 64) - 1, (1 << 63) - 1, 1 << 63, 1 << 40)),
    )
    for value in values
)
WORDS = (
    "", "0", "-1", "1", "²", "1e999", "-1e-400", "nan", "inf", "null", "true", "~", "[]", "{}", "%", "\\",
    str(2**31), str(2**63), str(10**9), "9" * 40, "9" * 5000, "1/0", "0x10", "1_0", "٣", "\ufeff", "\u202e",
    "a" * 300, "[" * 3000, "../../etc/passwd", "/dev/zero", "~nobody-here/x", "\0", "\x1b[31m", "&a", "*a",
    "!!python/object", "!!binary", "<<", "{{7*7}}", "'", '"', ":", "- - - -", "?", "|", ">", "---", "#",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 7, 2**16, 2**31, 2**63, 2**64, 10**9, 10**30, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "x", "fp32", "\0", "\ud800", "9" * 50, "a" * 5000, [], {}, [None], [[]],
    [1, 2], [1.5, "x"], {"": 0}, {"x": {}}, [0] * 3, [2**40, 2**40], [-1, -1],
)  # fmt: skip


def some_bytes(content: bytes) -> SearchStrategy[bytes]:
    """The bytes with a few changes: turned, cut, doubled, moved, put in; or bytes that were never a file."""
    from hypothesis import strategies as st

    @st.composite
    def damaged(draw: DrawFn) -> bytes:
        if draw(st.integers(0, 49)) == 0:
            return draw(st.binary(max_size=300))
        made = bytearray(content)
        for _ in range(draw(st.sampled_from(_CHANGES))):
            near = min(len(made), draw(st.sampled_from((64, 512, len(made) or 1))))
            at = draw(st.integers(0, max(0, near - 1)))  # beginnings hold the structure
            match draw(st.sampled_from(("turn", "set", "edge", "cut", "drop", "double", "insert"))):
                case "turn" if made:
                    made[at] ^= 1 << draw(st.integers(0, 7))
                case "set" if made:
                    made[at] = draw(st.integers(0, 255))
                case "edge":
                    edge = draw(st.sampled_from(_EDGES))
                    made[at : at + len(edge)] = edge
                case "cut":
                    del made[draw(st.integers(0, len(made))) :]
                case "drop":
                    del made[at : at + draw(st.sampled_from((1, 2, 4, 16, 100)))]
                case "double":
                    part = made[at : at + draw(st.sampled_from((1, 4, 16, 200)))]
                    to = draw(st.integers(0, len(made)))
                    made[to:to] = part
                case "insert":
                    made[at:at] = draw(st.binary(max_size=12))
        return bytes(made[:MOST])

    return damaged()


def some_text(content: str) -> SearchStrategy[bytes]:
    """The text with lines and words changed, as UTF-8; now and then its bytes are damaged instead."""
    from hypothesis import strategies as st

    @st.composite
    def damaged(draw: DrawFn) -> bytes:
        if draw(st.integers(0, 5)) == 0:
            return draw(some_bytes(content.encode()))
        lines = content.split("\n")
        for _ in range(draw(st.sampled_from(_CHANGES))):
            at = draw(st.integers(0, len(lines) - 1))
            match draw(
                st.sampled_from(("word", "word", "word", "drop", "double", "swap", "indent", "put", "join"))
            ):
                case "word":
                    spans = [found.span() for found in re.finditer(r"[^\s:,=\[\]{}()]+", lines[at])]
                    if spans:
                        start, end = draw(st.sampled_from(spans))
                        new = draw(st.sampled_from(WORDS) | st.text(max_size=8) | st.integers().map(str))
                        lines[at] = lines[at][:start] + new + lines[at][end:]
                case "drop" if len(lines) > 1:
                    del lines[at]
                case "double":
                    lines.insert(draw(st.integers(0, len(lines))), lines[at])
                case "swap":
                    other = draw(st.integers(0, len(lines) - 1))
                    lines[at], lines[other] = lines[other], lines[at]
                case "indent":
                    lines[at] = (
                        draw(st.sampled_from(("", " ", "  ", "\t", "- ", "      "))) + lines[at].lstrip()
                    )
                case "put":
                    lines.insert(at, draw(st.sampled_from(WORDS) | st.text(max_size=30)))
                case "join":
                    lines[at : at + 2] = ["".join(lines[at : at + 2])]
        return "\n".join(lines).encode("utf-8", "surrogatepass")[:MOST]

    return damaged()


def some_tree(document: Any) -> SearchStrategy[Any]:
    """A JSON document with values, keys and places changed."""
    from hypothesis import strategies as st

    @st.composite
    def damaged(draw: DrawFn) -> Any:
        tree = json.loads(json.dumps(document))
        for _ in range(draw(st.sampled_from(_CHANGES))):
            places = _places(tree)
            if not places:
                return draw(st.sampled_from(VALUES).map(deepcopy))
            holder, key = draw(st.sampled_from(places))
            match draw(
                st.sampled_from(("value", "value", "value", "near", "drop", "rename", "swap", "wrap", "deep"))
            ):
                case "value":
                    holder[key] = draw(
                        st.sampled_from(VALUES).map(deepcopy)
                        | st.integers()
                        | st.floats()
                        | st.text(max_size=8)
                    )
                case "near":
                    holder[key] = _near(holder[key], draw(st.sampled_from((-1, 1, 2, 100))))
                case "drop":
                    del holder[key]
                case "rename" if isinstance(holder, dict):
                    holder[draw(renamed(key))] = holder.pop(key)
                case "swap":
                    other, place = draw(st.sampled_from(places))
                    if not _inside(holder[key], other) and not _inside(other[place], holder):
                        holder[key], other[place] = other[place], holder[key]
                case "wrap":
                    holder[key] = draw(
                        st.sampled_from(([holder[key]], {"x": holder[key]}, [holder[key]] * 3))
                    )
                case "deep":
                    for _ in range(draw(st.sampled_from((3, 20, 100)))):
                        holder[key] = [holder[key]]
            if draw(st.integers(0, 30)) == 0:
                tree = draw(st.sampled_from(([tree], {"x": tree}, [])))
        return tree

    return damaged()


def some_json(document: Any) -> SearchStrategy[bytes]:
    """A JSON file whose tree was changed (NaN and lone surrogates as Python writes them), or its text."""
    plain = json.dumps(document, indent=1)
    return some_tree(document).map(as_json) | some_text(plain)


def renamed(key: str) -> SearchStrategy[str]:
    """A key with a number, a part or all of it changed."""
    from hypothesis import strategies as st

    numbers = st.sampled_from(("0", "-1", "7", "99", "100000", str(10**9), "9" * 30))
    return st.one_of(
        numbers.map(lambda number: re.sub(r"\d+", number, key)),
        numbers.map(lambda number: re.sub(r"\d+", number, key, count=1)),
        st.sampled_from((key + ".x", "module." + key, key[:-1], key.replace(".", ""), "", ".", key * 2)),
        st.text(max_size=8),
    )


def as_json(tree: Any) -> bytes:
    """As Python's own writer has it: with NaN and Infinity, which readers must be ready for."""
    return json.dumps(tree).encode()[:MOST]


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key or index) of a tree, without walking into what is too deep."""
    found: list[tuple[Any, Any]] = []
    waiting: list[tuple[Any, int]] = [(tree, 0)]
    while waiting:
        holder, depth = waiting.pop()
        keys: Any = ()
        if isinstance(holder, dict):
            keys = list(holder)
        elif isinstance(holder, list):
            keys = range(len(holder))
        for key in keys:
            found.append((holder, key))
            if depth < 20:
                waiting.append((holder[key], depth + 1))
    return found


def _inside(tree: Any, holder: Any) -> bool:
    return tree is holder or any(part[key] is holder for part, key in _places(tree))


def _near(value: Any, by: int) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + by
    return value * 2 if isinstance(value, str | list) else value


def each_of(files: dict[str, bytes], how: Callable[[str, bytes], SearchStrategy[bytes]]) -> Any:
    """Files of which one or two are damaged, each in its way.

    Args:
        files: by name; together they are one good input.
        how: what is done to a file of that name.
    """
    from hypothesis import strategies as st

    @st.composite
    def damaged(draw: DrawFn) -> dict[str, bytes]:
        chosen = draw(st.sets(st.sampled_from(sorted(files)), min_size=1, max_size=2))
        made = {
            name: draw(how(name, files[name])) if name in chosen else files[name] for name in sorted(files)
        }
        if draw(st.integers(0, 40)) == 0:
            del made[draw(st.sampled_from(sorted(made)))]
        return made

    return damaged()
