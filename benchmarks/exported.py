"""Folders of exported files, as benchmarks and reports see them: export.json and what lies beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import PocketganError
from compressor.files import read_json

FORMAT = "pocketgan.export/1"
_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "litert"}


@dataclass(frozen=True)
class ExportedFile:
    """One file to be timed.

    Attributes:
        group: whose file it is: "compressed", "original", or the folder's name.
        path: where it lies.
        runtime: "onnxruntime" or "litert".
        precision: "fp32", "fp16", "int8", or "unknown" for a foreign file.
        shape: the generator's input as (1, C, H, W), where known.
        value_range: values of black and white at the input.
    """

    group: str
    path: Path
    runtime: str
    precision: str
    shape: tuple[int, int, int, int] | None
    value_range: tuple[float, float]


def read_document(folder: Path) -> dict[str, Any] | None:
    """export.json of a folder, or None where there is none.

    Raises:
        PocketganError: it cannot be read, or is of a format we do not know.
    """
    path = folder / "export.json"
    if not path.exists():
        return None
    document = read_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        got = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise PocketganError(f"{path} is of a format this version does not know", got=got, allowed=FORMAT)
    if not isinstance(document.get("files"), list):
        raise PocketganError(f"{path} lists no files", allowed='"files": [...]')
    return document


def list_files(folders: Iterable[Path]) -> list[ExportedFile]:
    """All exported files of some folders, comparable ones side by side.

    A folder without files of its own stands for the export folders in it (RUN/export stands for
    RUN/export/compressed and RUN/export/original). Files without export.json are taken as they are.

    Raises:
        PocketganError: a folder is missing, holds no exported file, or one listed in export.json is gone.
    """
    found: list[ExportedFile] = []
    for folder, group in _named(_expand(folders)):
        found += _files(folder, group)
    order = {"onnxruntime": 0, "litert": 1, "fp32": 0, "fp16": 1, "int8": 2}
    return sorted(found, key=lambda f: (order[f.runtime], order.get(f.precision, 3), f.group, f.path.name))


def _expand(folders: Iterable[Path]) -> list[Path]:
    expanded: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise PocketganError(
                f"there is no folder {folder}", fix="give a folder that `pocketgan export` wrote"
            )
        if _own(folder):
            expanded.append(folder)
            continue
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _own(path)]
        if not inner:
            raise PocketganError(
                f"{folder} holds no exported files",
                allowed=".onnx and .tflite files, or folders of them",
                fix="write some: pocketgan export MODEL --images DIR --output-dir OUT",
            )
        expanded += inner
    return list(dict.fromkeys(path.resolve() for path in expanded))


def _named(folders: list[Path]) -> list[tuple[Path, str]]:
    """Give each folder the shortest tail of its path that no other one shares."""
    for parts in range(1, max((len(f.parts) for f in folders), default=1) + 1):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return list(zip(folders, names, strict=True)) if folders else []


def _own(folder: Path) -> bool:
    return (folder / "export.json").exists() or any(p.suffix.lower() in _RUNTIMES for p in folder.iterdir())


def _files(folder: Path, group: str) -> list[ExportedFile]:
    document = read_document(folder)
    if document is None:
        loose = sorted(path for path in folder.iterdir() if path.suffix.lower() in _RUNTIMES)
        return [ExportedFile(group, p, _RUNTIMES[p.suffix.lower()], _guess(p), None, (-1, 1)) for p in loose]
    try:
        source = document.get("input") or {}
        shape = tuple(int(side) for side in source["shape"]) if source.get("shape") else None
        low, high = source.get("range") or (-1.0, 1.0)
        files = [
            ExportedFile(
                group=group,
                path=folder / Path(item["file"]).name,
                runtime=_RUNTIMES[Path(item["file"]).suffix.lower()],
                precision=str(item["precision"]),
                shape=shape if shape and len(shape) == 4 else None,
                value_range=(float(low), float(high)),
            )
            for item in document["files"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PocketganError(f"{folder / 'export.json'} is damaged", got=repr(error)) from error
    for file in files:
        if not file.path.is_file():
            raise PocketganError(f"{file.path} is listed in export.json but missing", fix="export it again")
    return files


def _guess(path: Path) -> str:
    match = re.search(r"(fp32|fp16|int8)", path.stem.lower())
    return match.group(1) if match else "unknown"
