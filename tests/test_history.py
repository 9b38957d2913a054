"""The page of latencies from session to session."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from bench_files import PHONE, samples, series, write_bench
from click.testing import CliRunner

from benchmarks.report.history import history, tracks
from compressor.errors import GateError, PocketganError
from pocketgan.cli import main


def write(folder: Path, hours: int, medians: dict[str, float], **document: object) -> None:
    entries = [series(name, samples(median, hours), precision=name[:4]) for name, median in medians.items()]
    write_bench(folder / f"run-{9 - hours}", entries, ended=f"2026-11-20T{hours:02}:30:00+00:00", **document)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Three sessions of a phone whose names do not rise with time, and one of another phone."""
    for hours, median in ((1, 20.0), (2, 20.4), (3, 22.0)):
        write(tmp_path, hours, {"fp32.onnx": median, "int8.onnx": 8.0})
    hot = {"heat_after": {"status": 2}, "share_below_top_frequency": {"cpu0": 0.25, "cpu7": 0.75}}
    other = {**PHONE, "model": "<script>alert(1)</script>"}
    write(tmp_path, 4, {"fp32.onnx": 30.0}, device=other, **hot)
    return tmp_path


def test_series_follow_time_by_device_and_precision(sessions: Path) -> None:
    found = tracks(sessions)
    assert [(track.key.precision, len(track.points)) for track in found] == [
        ("fp32", 1),
        ("fp32", 3),
        ("int8", 3),
    ]
    slower = found[1]
    assert [point.place for point in slower.points] == ["run-8", "run-7", "run-6"]
    assert [point.ended for point in slower.points] == [f"2026-11-20 0{n}:30" for n in (1, 2, 3)]
    assert slower.change == pytest.approx(0.1, abs=0.01) and slower.points[0].remarks == ()
    hot = found[0].points[0].remarks
    assert hot == ("throttled by heat", "25% to 75% of the time below the top clock")


def test_the_page_draws_every_series_and_runs_nothing(sessions: Path) -> None:
    text = history(sessions).read_text(encoding="utf-8")
    assert text.lstrip().startswith("<!doctype html>") and "<script" not in text
    assert "&lt;script&gt;alert(1)" in text and "default-src &#39;none&#39;" not in text
    assert text.count("<svg") == 3 and text.count('class="half"') == 7
    assert len(re.findall(r"<h2>", text)) == 2 and len(re.findall(r"<h3>", text)) == 3
    lines = [line.split("L") for line in re.findall(r'd="M([^"]+)"', text)]
    assert [len(line) for line in lines] == [1, 3, 3]
    heights = [float(pair.split()[1]) for pair in lines[1]]
    assert heights[0] > heights[1] > heights[2]  # slower is higher up
    assert "throttled by heat" in text and f"{100 * tracks(sessions)[1].change:+.1f} % since" in text


def test_sessions_without_a_time_go_by_their_file(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a")):
        path = write_bench(tmp_path / name, [series("x.onnx", samples(20))], ended=["", 5][number])
        os.utime(path, (1e9 + number, 1e9 + number))
    (track,) = tracks(tmp_path)
    assert [point.place for point in track.points] == ["b", "a"]


def test_the_command(sessions: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(sessions), "--history", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and Path(told["history"]).is_file() and len(told["series"]) == 3
    write_bench(sessions / "emulated", [series("x.onnx", samples(20))], emulated=True)
    with pytest.raises(GateError, match="emulated"):
        tracks(sessions)
    assert len(tracks(sessions, allow_emulated=True)) == 4
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(PocketganError):
            history(folder)
