"""What the chaos run calls equal: run folders that differ by times alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.chaos import differences


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    left, right = tmp_path / "left", tmp_path / "right"
    for number, folder in enumerate((left, right)):
        (folder / "prune").mkdir(parents=True)
        (folder / "prune" / "weights.safetensors").write_bytes(b"weights")
        (folder / "recipe.yaml").write_text(f"output_dir: {folder}\n")
        series = [{"file": "a.onnx", "samples_ms": [number]}]
        bench = {"ended": str(number), "series": series, "images": f"{folder}/eval"}
        (folder / "bench.json").write_text(json.dumps(bench))
        (folder / "report.html").write_text(str(number))
    return left, right


def test_times_and_places_are_no_difference(runs: tuple[Path, Path]) -> None:
    assert differences(*runs) == []


def test_everything_else_is(runs: tuple[Path, Path]) -> None:
    _, right = runs
    (right / "prune" / "weights.safetensors").write_bytes(b"other")
    (right / "bench.json").write_text((right / "bench.json").read_text().replace("a.onnx", "b.onnx"))
    (right / "left.part").write_bytes(b"")
    assert differences(*runs) == ["left.part, which only one has", "bench.json", "prune/weights.safetensors"]
    shutil.rmtree(right / "prune")
    assert "prune/weights.safetensors, which only one has" in differences(*runs)
