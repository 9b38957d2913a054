"""What a call has finished, written down picture by picture, so that a later call can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.errors import PocketganError
from compressor.files import read_json, sha256, write_error, write_json

FORMAT = "pocketgan.apply/1"
FILE, JOURNAL = "apply.json", "apply.jsonl"


@dataclass(frozen=True)
class Done:
    """One picture that was painted.

    Attributes:
        picture: the original's path.
        source_sha256: of its bytes.
        files: hash of each file written, by its path in the output folder.
        size: (height, width) painted.
        tiles: how many it took.
        seam: largest difference of two neighbours at their cut in grey levels; None with one tile.
    """

    picture: str
    source_sha256: str
    files: Mapping[str, str]
    size: tuple[int, int]
    tiles: int
    seam: float | None

    def still_true(self, folder: Path, source: Path) -> bool:
        """Whether the original and all files written are as they were."""
        try:
            return sha256(source) == self.source_sha256 and all(
                sha256(folder / name) == known for name, known in self.files.items()
            )
        except OSError:
            return False


class Record:
    """The journal of an output folder; lines of another model or other settings are forgotten.

    Args:
        folder: the output folder.
        task: what decides the files' content (JSON types).
    """

    def __init__(self, folder: Path, task: Mapping[str, Any]):
        self.folder, self.task = folder, json.loads(json.dumps(task))
        self.reach: dict[str, Any] | None = None
        self.done: dict[str, Done] = {}
        lines = self._read()
        if lines and lines[0].get("task") == self.task:
            for line in lines:
                self._take(line)
        else:
            (folder / JOURNAL).unlink(missing_ok=True)
            self._append({"task": self.task})

    def set_reach(self, reach: Mapping[str, Any]) -> None:
        """Keep what was measured of the network: a resumed call must cut as the first one did."""
        self.reach = dict(reach)
        self._append({"reach": self.reach})

    def add(self, done: Done) -> None:
        """Write down a picture whose files are complete."""
        self.done[done.picture] = done
        self._append({"done": asdict(done)})

    def finish(self, document: Mapping[str, Any]) -> None:
        """Write apply.json."""
        write_json(self.folder / FILE, document)

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = (self.folder / JOURNAL).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        lines = []
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # a call was stopped while it wrote this
        return [line for line in lines if isinstance(line, dict)]

    def _take(self, line: dict[str, Any]) -> None:
        if "reach" in line:
            self.reach = line["reach"]
        elif "done" in line:
            done = Done(**{**line["done"], "size": tuple(line["done"]["size"])})
            self.done[done.picture] = done

    def _append(self, line: Mapping[str, Any]) -> None:
        path = self.folder / JOURNAL
        try:
            with path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(path, error) from error


def read_record(folder: Path) -> dict[str, Any]:
    """The apply.json of a folder.

    Raises:
        PocketganError: there is none, or it is of another format.
    """
    document = read_json(folder / FILE)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PocketganError(f"{folder / FILE} is of a format this version does not know", allowed=FORMAT)
    return document
