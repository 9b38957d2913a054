"""Tables that take hours: cells that several processes fill side by side, and that survive a kill."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from compressor.files import atomic

DONE = "cell.json"


def claim(folder: Path, done: str = DONE) -> bool:
    """Whether a cell is ours to fill: not done, and not in the hands of a process that still runs.

    Args:
        folder: of the cell; is made.
        done: the file that its end leaves in it.
    """
    import psutil

    folder.mkdir(parents=True, exist_ok=True)
    if (folder / done).exists():
        return False
    try:
        (folder / "claim").open("x").write(str(psutil.Process().pid))
    except FileExistsError:
        holder = int((folder / "claim").read_text() or 0)
        if psutil.pid_exists(holder):
            return False
        (folder / "claim").write_text(str(psutil.Process().pid))
    return True


def write_record(
    path: Path, rows: Sequence[Mapping[str, Any]], cases: Mapping[str, Any], threads: int, **versions: str
) -> None:
    """All cells with what they were measured on, as JSON, one cell a line.

    Args:
        cases: dataclasses, by name: the settings.
        threads: of torch.
        versions: of further packages.
    """
    import torch

    from devices.host import facts

    head = {
        "command": ["python", "-m", getattr(sys.modules["__main__"].__spec__, "name", "?"), *sys.argv[1:]],
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        **versions,
        "threads": threads,
        "machine": facts().as_json(),
        "cases": {name: asdict(case) for name, case in cases.items()},
    }
    with atomic(path, "w") as file:
        file.write(json.dumps(head, indent=2)[:-2] + ',\n  "cells": [\n')
        file.write(",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]\n}\n")
