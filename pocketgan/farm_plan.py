"""A farm's plan read from YAML, as strictly as a recipe."""

from __future__ import annotations

from pathlib import Path

from benchmarks.farm.plan import Plan, matches
from compressor.errors import UsageError
from pocketgan.strict_yaml import build, parse, read_text


def read_plan(path: Path) -> Plan:
    """Read a plan; its patterns start from its own folder.

    Raises:
        UsageError: it is no valid plan, or a pattern matches nothing; the message names the line.
        PocketganError: the file cannot be read.
    """
    base = path.resolve().parent
    tree = parse(read_text(path, "plan"), path.name, base)
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
