"""Folders of exported files, as benchmarks and reports see them: export.json and what lies beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import PocketganError
from devices.runtimes import RUNTIMES
from exporters.byte_pictures import BYTES
from exporters.result import FILE, PRECISIONS, read_export


@dataclass(frozen=True)
class TimedFile:
    """One file to be timed.

    Attributes:
        group: whose file it is: "compressed", "original", or the folder's name.
        path: where it lies.
        runtime: "onnxruntime" or "litert".
        precision: one of `exporters.result.PRECISIONS`, or "unknown" for a foreign file.
        shape: the generator's input as (1, C, H, W), where known.
        value_range: values of black and white at the input, 0 and 255 where it is of bytes.
    """

    group: str
    path: Path
    runtime: str
    precision: str
    shape: tuple[int, int, int, int] | None
    value_range: tuple[float, float]


def list_files(folders: Iterable[Path]) -> list[TimedFile]:
    """All exported files of some folders, comparable ones side by side.

    A folder without files of its own stands for the export folders in it (RUN/export stands for
    RUN/export/compressed and RUN/export/original). Files without export.json are taken as they are.

    Raises:
        PocketganError: a folder is missing, holds no exported file, or one listed in export.json is gone.
    """
    found: list[TimedFile] = []
    for folder, group in _named(_expand(folders)):
        found += _files(folder, group)
    order = {name: place for place, name in enumerate(("onnxruntime", *PRECISIONS))}
    last = len(order)
    return sorted(
        found, key=lambda f: (order.get(f.runtime, last), order.get(f.precision, last), f.group, f.path.name)
    )


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
    return (folder / FILE).exists() or any(p.suffix.lower() in RUNTIMES for p in folder.iterdir())


def _files(folder: Path, group: str) -> list[TimedFile]:
    if not (folder / FILE).exists():
        loose = sorted(path for path in folder.iterdir() if path.suffix.lower() in RUNTIMES)
        return [TimedFile(group, p, RUNTIMES[p.suffix.lower()], _guess(p), None, (-1, 1)) for p in loose]
    export = read_export(folder)
    try:
        shape = tuple(int(side) for side in export.input["shape"][1:])
        low, high = (float(value) for value in export.input["range"])
        channels, height, width = shape
    except (KeyError, TypeError, ValueError) as error:
        raise PocketganError(f"{folder / FILE} does not say what goes in", got=repr(error)) from error
    files = []
    for item in export.files:
        path = folder / Path(item.file).name
        if item.error is not None:
            continue  # the export says why there is no such file
        if not path.is_file():
            raise PocketganError(f"{path} is listed in {FILE} but missing", fix="export it again")
        value_range = (low, high) if item.io == "float32" else BYTES
        files.append(
            TimedFile(group, path, item.runtime, item.precision, (1, channels, height, width), value_range)
        )
    return files


def _guess(path: Path) -> str:
    return precision_of(path.stem) or "unknown"


def precision_of(name: str) -> str | None:
    """The precision that a file's name says, or None.

    >>> precision_of("generator-int8-dynamic.onnx")
    'int8-dynamic'
    """
    said = [precision for precision in PRECISIONS if precision in name.lower()]
    return max(said, key=len, default=None)
