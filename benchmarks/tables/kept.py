"""Figures that were measured before: kept by what they were measured on, picture by picture."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import PocketganError
from compressor.files import read_json, sha256, write_json
from compressor.progress import Progress

_VERSION = 2  # raise it when a measure changes
_SAVE_EVERY = 5.0  # seconds


class Kept:
    """A folder of figures; a call that is stopped goes on at the picture where it was.

    Args:
        folder: where they lie; is made.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def of_pictures(
        self,
        what: str,
        pictures: Sequence[Path],
        measure: Callable[[Path], list[float]],
        weights: Sequence[Path] = (),
        beside: Callable[[Path], Path] | None = None,
    ) -> list[list[float]]:
        """`measure` of each picture, or what it gave before.

        Args:
            what: the measure in words; a part of the key.
            weights: files whose content decides too.
            beside: the other picture that a measure looks at.
        """
        facts = [what, _VERSION, *(sha256(path) for path in weights)]
        watched = [path for each in pictures for path in ([each, beside(each)] if beside else [each])]
        facts += [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in watched]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', what)}-{digest}.json"
        known: dict[str, list[float]] = _known(path)
        if all(each.name in known for each in pictures):
            return [known[each.name] for each in pictures]
        saved = time.monotonic()
        with Progress(what, len(pictures), sum(each.name in known for each in pictures)) as progress:
            try:
                for number, each in enumerate(pictures, 1):
                    if each.name not in known:
                        known[each.name] = measure(each)
                    progress.update(max(number, progress.done))
                    if time.monotonic() - saved > _SAVE_EVERY:
                        write_json(path, known)
                        saved = time.monotonic()
            finally:
                write_json(path, known)
        return [known[each.name] for each in pictures]


def _known(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except PocketganError:
        return {}  # not measured yet, or damaged: measured again
    return document if isinstance(document, dict) else {}
