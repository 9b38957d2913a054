"""What a fuzzed reader is: its good inputs' damage, and the call that reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Files = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """One reader. It may take an input or refuse it with an error of ours; all else it does is a finding.

    Attributes:
        reads: what it reads, for the table.
        inputs: makes the strategy of damaged inputs: files by name.
        read: reads the files of a folder.
    """

    reads: str
    inputs: Callable[[], SearchStrategy[Files]]
    read: Callable[[Path], object]
