"""Teachers: anything that makes a picture of a picture, be it a network, a file or a folder of outputs.

Importing this package is cheap: files run without torch, which comes in with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.agd.teachers.base import NetworkTeacher, Teacher
    from compressor.agd.teachers.cache import OutputCache
    from compressor.agd.teachers.opening import open_teacher
    from compressor.agd.teachers.pairs import FolderTeacher
    from compressor.agd.teachers.taught import TaughtPictures

__all__ = ["FolderTeacher", "NetworkTeacher", "OutputCache", "TaughtPictures", "Teacher", "open_teacher"]

_HOMES = {
    "FolderTeacher": "pairs",
    "NetworkTeacher": "base",
    "OutputCache": "cache",
    "TaughtPictures": "taught",
    "Teacher": "base",
    "open_teacher": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
