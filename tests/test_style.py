"""ruff and mypy over the whole repository, where they are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "line", ["ruff check .", "ruff format --check .", "mypy"], ids=["lint", "format", "types"]
)
def test_style(line: str) -> None:
    tool = line.split()[0]
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: pip install 'pocketgan[test]'")
    done = subprocess.run(
        [sys.executable, "-m", *line.split()], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
