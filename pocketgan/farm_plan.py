"""A farm's plan read from YAML, as strictly as a recipe."""

from __future__ import annotations

from pathlib import Path

from benchmarks.farm.plan import Plan, matches
from compressor.errors import PocketganError, UsageError
from pocketgan.strict_yaml import build, parse


def read_plan(path: Path) -> Plan:
    """Read a plan; its patterns start from its own folder.

    Raises:
        UsageError: it is no valid plan, or a pattern matches nothing; the message names the line.
        PocketganError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", got=error.reason) from error
    except OSError as error:
        raise PocketganError(f"cannot read the plan {path}", got=error.strerror or error) from error
    base = path.resolve().parent
    tree = parse(text, path.name, base)
    plan = build(Plan, tree)
    assert isinstance(tree.data, dict) and isinstance(tree.data["models"].data, list)
    for pattern, item in zip(plan.models, tree.data["models"].data, strict=True):
        if not matches(pattern, base):
            raise UsageError(
                f"{item.where}: models matches nothing",
                got=repr(pattern),
                allowed=".onnx and .tflite files, and folders of them",
                fix=f"name what is there; patterns start from {base}",
            )
    return plan
