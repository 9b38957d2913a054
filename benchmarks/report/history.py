"""Latency from session to session, as one page: by device and precision, with noise and throttling.

Sessions are every bench.json below a folder, in the order of the time that they record; those of earlier
versions record none, and go by their file's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.ci.compare import find_sessions
from benchmarks.ci.rows import Key, is_throttled, key_of, plain
from benchmarks.report import figures, words
from benchmarks.report.page import _HERE, templates
from benchmarks.samples import BenchResult, read_bench
from benchmarks.statistics import STABILITY_RULE, Summary
from compressor.errors import PocketganError
from compressor.files import atomic


@dataclass(frozen=True)
class Point:
    """One session of one series.

    Attributes:
        ended: "2026-11-21 21:00", UTC.
        place: the session's folder, from the one asked for.
        summary: of its samples, in milliseconds.
        remarks: why it says less: unstable, throttled, below its top clock.
    """

    ended: str
    place: str
    summary: Summary
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Track:
    """A series through all sessions that measured it, oldest first."""

    key: Key
    points: tuple[Point, ...]

    @property
    def change(self) -> float:
        """Median of the last session over that of the first, minus 1."""
        return self.points[-1].summary.median / self.points[0].summary.median - 1


def history(folder: Path, *, allow_emulated: bool = False) -> Path:
    """Build FOLDER/history.html from all sessions below FOLDER; an earlier one is replaced.

    Raises:
        GateError: a session on an emulated processor, and that was not allowed.
        PocketganError: there are no sessions, or damaged ones.
    """
    found = tracks(folder, allow_emulated=allow_emulated)
    page = folder / "history.html"
    with atomic(page, "w") as file:
        file.write(words.writable(_render(folder.resolve().name, found)))
    return page


def tracks(folder: Path, *, allow_emulated: bool = False) -> list[Track]:
    """All series below a folder, by device, precision and name."""
    if not folder.is_dir():
        raise PocketganError(f"there is no folder {folder}", fix="give one that holds bench folders")
    sessions = []  # without their samples, of which there may be millions
    for path in _paths(folder):
        result = read_bench(path, allow_emulated=allow_emulated)
        own = [(key_of(result, series), series.summary) for series in result.series]
        sessions.append((_time(result), path, own, _throttled(result.document)))
    points: dict[Key, list[Point]] = {}
    for ended, path, own, throttled in sorted(sessions, key=lambda session: session[:2]):
        place = plain(str(path.parent.relative_to(folder)))
        for key, summary in own:
            remarks = [f"unstable: {summary.unstable}"] if summary.unstable else []
            one = Point(f"{ended:%Y-%m-%d %H:%M}", place, summary, (*remarks, *throttled))
            points.setdefault(key, []).append(one)
    found = [Track(key, tuple(own)) for key, own in points.items()]
    return sorted(found, key=lambda track: (track.key.device, track.key.precision, track.key))


def _paths(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("bench.json"))
    return paths or [result.path for result in find_sessions(folder)]  # which says what is missing


def _time(result: BenchResult) -> datetime:
    try:
        told = datetime.fromisoformat(str(result.document["ended"]))
        return told if told.tzinfo else told.replace(tzinfo=timezone.utc)
    except (KeyError, ValueError):
        return datetime.fromtimestamp(result.path.stat().st_mtime, timezone.utc)


def _throttled(document: dict[str, Any]) -> list[str]:
    """What a phone's session tells of its heat and clocks."""
    said = ["throttled by heat"] if is_throttled(document) else []
    shares = (document.get("share_below_top_frequency") or {}).values()
    if shares:
        said.append(f"{min(shares):.0%} to {max(shares):.0%} of the time below the top clock")
    return said


def _render(name: str, found: list[Track]) -> str:
    devices = []
    for device, of_device in groupby(found, key=lambda track: track.key.device):
        precisions = []
        for precision, own in groupby(of_device, key=lambda track: track.key.precision):
            drawn = []
            for track in own:
                ends = track.points[0].ended, track.points[-1].ended
                title = f"{track.key.model}, {track.key.runtime}, {words.threads(track.key.threads)}"
                summaries = [point.summary for point in track.points]
                drawn.append((track, plain(title), figures.history(summaries, ends, plain(title))))
            precisions.append((plain(precision), drawn))
        devices.append((plain(device), precisions))
    return (
        templates()
        .get_template("history.html")
        .render(
            name=plain(name),
            devices=devices,
            sessions=len({point.place for track in found for point in track.points}),
            style=(_HERE / "page.css").read_text(encoding="utf-8"),
            stability_rule=STABILITY_RULE,
        )
    )
