"""Teachers: anything that makes a picture of a picture, be it a network, a file or a folder of outputs."""

from __future__ import annotations

from compressor.agd.teachers.base import NetworkTeacher, Teacher
from compressor.agd.teachers.cache import OutputCache
from compressor.agd.teachers.opening import open_teacher
from compressor.agd.teachers.pairs import FolderTeacher
from compressor.agd.teachers.taught import TaughtPictures

__all__ = ["FolderTeacher", "NetworkTeacher", "OutputCache", "TaughtPictures", "Teacher", "open_teacher"]
