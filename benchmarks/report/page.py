"""The report: one self-contained HTML page from a run folder."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import figures, front, words
from benchmarks.report.findings import BASELINE, Findings, Row, Timing, busy, find, precision_remarks
from benchmarks.report.pictures import filmstrip, gather
from benchmarks.report.records import Distillation, Pruning
from benchmarks.report.run_folder import RunFolder, read_run
from benchmarks.report.searched import COLOURS, Searching, draw, draw_turn
from benchmarks.report.trade import trade
from benchmarks.report.watched import Watched
from benchmarks.statistics import RATIO_RULE, STABILITY_RULE
from compressor.files import atomic

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).resolve().parent


def report(run: Path) -> Path:
    """Build RUN/report.html from what RUN holds; stages that did not run are shown as such.

    The page needs nothing but a browser: style, script and pictures are inside, and its content
    policy forbids every request. An earlier report.html is replaced.

    Args:
        run: a run folder, an export or bench folder, or a folder that holds such folders.

    Returns:
        The page.

    Raises:
        PocketganError: there is no such folder, it holds nothing of ours, or cannot be written to.
    """
    page = run / "report.html"
    text = render(read_run(run))
    with atomic(page, "w") as file:
        file.write(words.writable(text))
    return page


def templates() -> Environment:
    """The templates of this folder, with what they need to write figures."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": words.size,
        "scaled": words.scaled,
        "ms": words.milliseconds,
        "seconds": words.seconds,
        "db": words.decibel,
        "times": words.times,
        "interval": words.interval,
        "percent": words.percent,
        "threads": words.threads,
        "significant": words.significant,
    }
    return environment


def render(run: RunFolder) -> str:
    """The page's text."""
    findings = find(run)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        templates()
        .get_template("template.html")
        .render(
            run=run,
            findings=findings,
            style=(_HERE / "page.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=digest,
            metrics=words.METRICS,
            gallery=gather(run.evaluation) if run.evaluation else None,
            busy=busy(run),
            remarks=precision_remarks(findings),
            stability_rule=STABILITY_RULE,
            ratio_rule=RATIO_RULE,
            baseline=BASELINE,
            # a run divides its pictures; one picture alone serves as both parts
            held_out=bool(run.recipe and run.evaluation and len(run.evaluation.images) > 1),
            command=_command(run.environment),
            unstable=sum(t.summary.unstable is not None for row in findings.rows for t in row.timings),
            **_charts(run, findings),
        )
    )


def _charts(run: RunFolder, findings: Findings) -> dict[str, Any]:
    pruning, distill, evaluation = run.prune, run.distill, run.evaluation
    charts: dict[str, Any] = {
        "layer_chart": figures.layers(pruning.layers) if pruning else None,
        "share_chart": figures.lines(
            pruning.trajectory, "share", "Cost during pruning", target=pruning.target_share
        )
        if pruning
        else None,
        "prune_chart": figures.lines(pruning.trajectory, "loss", "Loss during pruning") if pruning else None,
        "distill_chart": figures.lines(distill.trajectory, "loss", "Loss during distillation")
        if distill
        else None,
        "train_chart": figures.lines(run.train.trajectory, "loss", "Loss while the found network is trained")
        if run.train
        else None,
        "widths": _widths(pruning.watched) if pruning else [],
        "search_films": _films({"Search": run.search}),
        "films": _films({"Training": run.train, "Pruning": pruning, "Distillation": distill}),
        "front": front.front(run.pareto) if run.pareto else None,
        "front_rows": front.rows(run.pareto) if run.pareto else [],
        "strip": None,
        **_search_charts(run),
        "latency": _latency(findings),
        "trades": {f"{r.group}/{r.name}": t for r in findings.rows if (t := trade(r, findings.rows))},
    }
    finite = [image.psnr for image in evaluation.images if math.isfinite(image.psnr)] if evaluation else []
    if len(finite) > 1 and findings.psnr_median is not None and math.isfinite(findings.psnr_median):
        scale = figures.axis(math.floor(min(finite)) - 1, math.ceil(max(finite)) + 1, 5)
        svg = figures.strip(finite, scale, findings.psnr_median, "PSNR of every picture")
        charts["strip"] = {"svg": svg, "axis": scale}
    return charts


def _search_charts(run: RunFolder) -> dict[str, Any]:
    found = run.search
    if found is None:
        return {}
    targets = {"share": 1.0}
    titles = {
        "cost": ("share", "Expected cost over target"),
        "loss": ("loss", "Loss during the search"),
        "multiplier": ("multiplier", "Multiplier of the budget"),
        "entropy": ("entropy", "Entropy of the operators"),
        "temperature": ("temperature", "Temperature"),
    }
    taken = {place.name: f"{place.operator} {place.channels}" for place in found.places}
    return {
        "colours": COLOURS,
        "architecture": draw(found.places, found.operators),
        **{
            f"search_{name}": figures.lines(found.trajectory, key, title, target=targets.get(key))
            for name, (key, title) in titles.items()
        },
        "turns": [
            {
                "name": turn.name,
                "text": taken.get(turn.name, ""),
                "svg": draw_turn(turn, found.steps, found.operators),
            }
            for turn in found.turns
        ],
    }


def _widths(watched: Watched) -> list[dict[str, Any]]:
    return [
        {"vector": vector, "svg": figures.width_strip(vector, watched.steps)} for vector in watched.vectors
    ]


def _films(stages: Mapping[str, Searching | Pruning | Distillation | None]) -> list[dict[str, Any]]:
    """The sample pictures of every stage that left some."""
    films = []
    for title, stage in stages.items():
        if stage is not None and (shown := filmstrip(stage.watched)):
            films.append({"title": title, "panels": " beside ".join(stage.watched.panels), "shown": shown})
    return films


def _latency(findings: Findings) -> dict[str, Any] | None:
    """Rows of the interval plot: for each number of threads and runtime, the original's first."""
    pairs: list[tuple[Row, Timing]] = [(row, timing) for row in findings.rows for timing in row.timings]
    if not pairs:
        return None
    scale = figures.latency_axis([timing.summary for _, timing in pairs])
    panels: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row, timing in sorted(pairs, key=lambda p: (p[1].series.threads, p[0].runtime != "onnxruntime")):
        samples = timing.series.samples_ms
        label = f"{row.group} {row.name}, {timing.series.threads} threads: {timing.summary.median:.2f} ms"
        panels.setdefault((timing.series.threads, row.runtime), []).append(
            {
                "row": row,
                "timing": timing,
                "svg": figures.latency(samples, timing.summary, scale, label),
                "beyond": sum(value > scale.high for value in samples),
            }
        )
    for rows in panels.values():
        rows.sort(key=lambda entry: entry["row"].group != BASELINE)
    return {"axis": scale, "panels": panels}


def _command(environment: Mapping[str, Any] | None) -> str | None:
    """The command line as a user would type it again."""
    words_typed = (environment or {}).get("command")
    if not isinstance(words_typed, list) or not words_typed:
        return None
    first, *rest = (str(word) for word in words_typed)
    return shlex.join([Path(first).name, *rest])
