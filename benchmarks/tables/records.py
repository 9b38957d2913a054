"""Rows from the records of our own benchmarks (benchmarks/results/*.json), with date and command."""

from __future__ import annotations

import itertools
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.pruning_quality import METHODS
from benchmarks.tables.model import Row, Value
from compressor.errors import PocketganError
from compressor.files import read_json

HERE = Path(__file__).resolve().parent.parent / "results"


def searched(folder: Path, cases: dict[str, str], figures: dict[str, str]) -> list[Row]:
    """Medians over seeds of `benchmarks.agd_quality`.

    Args:
        cases: the record's cases that belong here, and how to name them.
        figures: column keys by the record's names of figures.
    """
    document = _read(folder / "agd_quality.json")
    cells = [each for each in document.get("cells", ()) if each.get("method") and each["case"] in cases]
    rows = []
    for (case, method), found in itertools.groupby(sorted(cells, key=_cell), _cell):
        group = list(found)
        values = {key: _median(group, name) for name, key in figures.items()}
        values |= {"macs": _median(group, "macs"), "parameters": _median(group, "parameters")}
        name = f"{cases[case]}, {method}"
        rows.append(Row(name, "recorded", values, _told(folder / "agd_quality.json", document, len(group))))
    return rows


def pruned(folder: Path, generator: str, figures: dict[str, str]) -> list[Row]:
    """Medians over seeds of `benchmarks.pruning_quality`, by falling budget; then methods without a record.

    A call with other methods may have left a record of its own, pruning_quality-METHOD.json.
    """
    told: dict[str, tuple[Path, dict[str, Any]]] = {}
    cells = []
    for path in sorted(folder.glob("pruning_quality*.json")):
        document = _read(path)
        own = [each for each in document.get("cells", ()) if each["generator"] == generator]
        told |= {each["method"]: (path, document) for each in own}
        cells += own

    def key(cell: dict[str, Any]) -> tuple[float, str]:
        return -float(re.sub(r"[^\d.]", "", cell["budget"])), cell["method"]

    rows = []
    for (_, method), found in itertools.groupby(sorted(cells, key=key), key):
        group = list(found)
        values = {column: _median(group, name) for name, column in figures.items()}
        said = _told(*told[method], len(group))
        rows.append(Row(f"{generator} at {group[0]['budget']}, {method}", "recorded", values, said))
    absent = [method for method in METHODS if method not in told]
    record = f"pruning_quality-{absent[0]}.json" if len(absent) == 1 else "pruning_quality.json"
    options = (
        f"--only {generator} {' '.join(f'--method {method}' for method in absent)} --output-dir runs/more"
    )
    command = f"python -m benchmarks.pruning_quality --data DIR {options} --record {folder / record}"
    return rows + [_unrecorded(f"{generator}, {method}", command) for method in absent]


def training_cost(folder: Path, family: str) -> list[Row]:
    """Rows of `benchmarks.omgd_cost`: what compressing while training costs over training plainly."""
    ways = {"plain": "plain training", "coronet": "CoroNet", "omgd": "OMGD's scheme"}
    rows = []
    for path in sorted(folder.glob("omgd_cost-*.json")):
        document = _read(path)
        if document.get("family") != family:
            continue
        for way, name in ways.items():
            ratio = document["ratios"][f"{way} / plain"]["clock"]["value"] if way != "plain" else 1.0
            values: dict[str, Value] = {
                "macs": document["macs"]["whole" if way == "plain" else way],
                "training": ratio,
            }
            narrow = f" to {document['budget']}" if way != "plain" else ""
            rows.append(
                Row(
                    f"{document['size']}x{document['size']}, {name}{narrow}",
                    "recorded",
                    values,
                    _told(path, document, 1),
                )
            )
    command = f"python -m benchmarks.omgd_cost --data DIR --family {family} --output"
    command += f" {folder / f'omgd_cost-{family}.json'}"
    return rows or [_unrecorded(name, command) for name in ways.values()]


def adversarial(folder: Path, task: str) -> list[Row]:
    """Rows of `benchmarks.adversarial`: small networks from nothing, at 64x64."""
    path = folder / f"adversarial-{task}-64.json"
    document = _read(path)
    rows = []
    for name, found in document.get("rows", {}).items():
        values: dict[str, Value] = {
            "psnr": found["psnr_mean"],
            "ssim": found["ssim_mean"],
            "macs": found["macs"],
            "parameters": found["parameters"],
        }
        rows.append(Row(f"64x64 from nothing, {name}", "recorded", values, _told(path, document, 1)))
    return rows


def speeds(folder: Path) -> list[Row]:
    """Speed-ups of `benchmarks.real_generators` over the original's FP32 file in the same session."""
    path = folder / "real_generators.json"
    document = _read(path)
    rows = []
    for found in document.get("rows", ()):
        for series, ratio in found["speedup"].items():
            runtime, precision, threads = series.split()
            values: dict[str, Value] = {
                "runtime": runtime,
                "precision": precision,
                "threads": int(threads.removesuffix("t")),
                "ratio": ratio,
            }
            name = f"{found['generator']} at {document['budget']}"
            rows.append(Row(name, "recorded", values, _told(path, document, 1)))
    return rows


def _unrecorded(name: str, command: str) -> Row:
    return Row(name, "missing", told=f"no record yet: {command}")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    document = read_json(path)
    if not isinstance(document, dict):
        raise PocketganError(f"{path} is no record of a benchmark", got=type(document).__name__)
    return document


def _cell(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["case"], cell["method"]


def _median(cells: list[dict[str, Any]], name: str) -> float | None:
    values = [cell[name] for cell in cells if cell.get(name) is not None]
    return statistics.median(values) if values else None


def _told(path: Path, document: dict[str, Any], seeds: int) -> str:
    command = document.get("command", "")
    words = command if isinstance(command, str) else " ".join(command)
    brief = re.match(r"python -m \S+", words)
    parts = [document.get("date"), brief[0] if brief else words, path.name]
    parts += [f"median of {seeds} seeds"] if seeds > 1 else []
    return ", ".join(part for part in parts if part)
