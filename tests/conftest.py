"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from phone_fixtures import adb, device, gathered, phone, six_files  # noqa: F401

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at a time, with what they start

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> None:
    """Background jobs of a shell ignore Ctrl-C, and so do their children; some tests send it to theirs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and generators, or a skip that says how to name it."""
    folder = Path(os.environ.get("POCKETGAN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real generators at {folder}; set POCKETGAN_DATA to their folder")
    return folder
