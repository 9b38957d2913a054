"""Where this process stands among those that torchrun started, from the environment alone; no torch here."""

from __future__ import annotations

import os

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def world() -> int:
    """How many processes train together; 1 where torchrun (or the like) did not start us."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _SET_BY_TORCHRUN) else 1


def rank() -> int:
    """Our number among them, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def local_rank() -> int:
    """Our number among those on this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if world() > 1 else 0


def leads() -> bool:
    """Whether we are the one that writes files, logs and progress."""
    return rank() == 0
