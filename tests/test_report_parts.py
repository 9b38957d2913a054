"""Parts of the report: the curve of INT8, pictures, figures in words, drawings, what was watched."""

# ruff: noqa: F811 - tests take fixtures by their names

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pytest
from report_page import Text, edit, run, whole  # noqa: F401 - fixtures among them

from benchmarks.report import figures, words
from benchmarks.report.findings import find
from benchmarks.report.page import report
from benchmarks.report.pictures import LIMIT
from benchmarks.report.records import Layer
from benchmarks.report.run_folder import read_run
from benchmarks.report.summary import summary_json
from benchmarks.report.trade import trade
from benchmarks.report.watched import Vector
from compressor.data.images import write_image

pytest.importorskip("skimage", reason="needs the compress extra for its photographs")


def test_what_int8_costs_is_a_curve_of_psnr_against_latency(run):
    points = [
        {"floated": 0, "share": 0.0, "psnr": 31.2, "drop": 0.9, "chosen": False},
        {"floated": 2, "share": 0.2, "psnr": 38.4, "drop": 0.3, "chosen": True},
        {"floated": 5, "share": 0.5, "psnr": 44.6, "drop": 0.1, "chosen": False},
    ]
    drop = {"images": [["a", 30.0, 29.625]], "limit": 0.5}

    def planned(document):
        for file in document["files"]:
            if file["precision"] == "int8":
                file.update(trade=points, drop=drop)

    page = run / "export" / "compressed" / "export.json"
    edit(page, planned)
    rows = find(read_run(run)).rows
    by_name = {(row.group, row.name): row for row in rows}
    row, whole = (by_name["compressed", f"generator-{p}.onnx"] for p in ("int8", "fp32"))
    found = trade(row, rows)
    ours, theirs = row.timings[0].summary.median, whole.timings[0].summary.median
    assert [step.latency for step in found.steps] == pytest.approx(
        [ours - (theirs - ours) * 0.25, ours, ours + (theirs - ours) * 0.375]
    )  # 0.2 and 0.3 of what lies between a fifth in float and all of it
    text = Text(report(run)).text
    assert "Quality against latency" in text and "38.4 dB" in text and "0.900 dB" in text
    assert "0.375 dB on average, 0.5 allowed" in text and "chosen" in text
    edit(run / "bench" / "bench.json", lambda d: d.update(series=[]))
    untimed = trade({(r.group, r.name): r for r in find(read_run(run)).rows}["compressed", row.name], [])
    assert [step.latency for step in untimed.steps] == [None, None, None]
    edit(page, lambda d: [file.pop("trade") for file in d["files"]])  # of an older version
    assert "Quality against latency" not in Text(report(run)).text


def test_identical_pictures_have_no_error_and_break_nothing(run):
    def perfect(document):
        for image in document["images"]:
            image.update(psnr=None, ssim=1.0)

    edit(run / "eval" / "eval.json", perfect)
    assert math.isinf(find(read_run(run)).psnr_median)
    text = Text(report(run)).text
    assert "exact" in text and "identical" in text
    assert summary_json(run)["quality"]["psnr_median"] is None


def test_large_pictures_become_previews_and_the_page_says_so(run):
    chance = np.random.default_rng(0)
    for kind in ("original", "compressed", "error"):
        write_image(run / "eval" / "images" / f"coffee.{kind}.png", chance.random((1200, 900, 3), np.float32))
    page = report(run)
    assert "JPEG previews of at most" in Text(page).text
    assert page.stat().st_size < LIMIT * 4 / 3 + 400_000


def test_damaged_pictures_are_passed_over(run):
    (run / "eval" / "images" / "coffee.compressed.png").write_bytes(b"<script>")
    text = Text(report(run)).text
    assert "1 pictures cannot be read" in text and "rocket" in text


def test_summary_json_is_plain_json_and_complete(whole):
    document = summary_json(whole)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["budget"]["reached"]["macs"] <= document["budget"]["target"]
    assert len(document["files"]) == 8 and all(len(file["latency"]) == 2 for file in document["files"])
    assert document["fastest"]["speed_up"]["verdict"] == "faster"
    assert document["missing"] == [] and document["problems"] == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999.6, "1.00 k"), (1234, "1.23 k"), (56.8e9, "56.8 G"), (2_856_000, "2.86 M"), (42, "42")],
)
def test_scaled_numbers(value, text):
    assert words.scaled(value) == text


def test_words_for_figures():
    assert words.size(1_348_000) == "1.35 MB"
    assert words.milliseconds(0.01234) == "0.0123 ms" and words.milliseconds(1234.5) == "1,230 ms"
    assert words.significant(2.4e-6, 2) == "2.4e-6"
    assert (words.times(2.456), words.times(12.34), words.percent(0.49861)) == ("2.46×", "12.3×", "49.86 %")
    assert (words.decibel(math.inf), words.decibel(31.04)) == ("identical", "31.0 dB")
    assert (words.seconds(8.14), words.seconds(125.9)) == ("8.1 s", "2 min 5 s")


@pytest.mark.parametrize("high", [1e-9, 0.03, 1.0, 1.06, 99.0, 12345.0, 3e9])
def test_axis_ticks_are_round_few_and_in_place(high):
    axis = figures.axis(0, high)
    values = [float(text.replace(",", "")) for _, text in axis.ticks]
    assert 2 <= len(values) <= 7
    for (share, _), value in zip(axis.ticks, values, strict=True):
        assert 0 <= share <= 1 and share * high == pytest.approx(value, abs=1e-9 * high)
    steps = np.diff(values)
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert f"{steps[0]:.0e}"[0] in "125"


def test_layer_columns_have_the_heights_of_the_widths():
    rows = [Layer(f"l{i}", "Conv2d", 100, width, 10, 5) for i, width in enumerate((100, 50, 1))]
    svg = str(figures.layers(rows).svg)
    was, now = (
        [float(v) for v in re.findall(rf'class="{k}"[^>]*height="([\d.]+)"', svg)] for k in ("was", "is")
    )
    assert [n / w for n, w in zip(now, was, strict=True)] == pytest.approx([1, 0.5, 0.01], rel=1e-2)


def test_lines_end_where_the_trajectory_ends():
    points = [{"step": step, "loss": 1.0 + step} for step in range(5000)]
    svg = str(figures.lines(points, "loss", "t").svg)
    raw = re.search(r'class="raw" d="M([^"]+)"', svg).group(1).split("L")
    assert len(raw) < 700 and raw[0].startswith("0.0 ") and raw[-1].startswith("1000.0 ")
    assert figures.lines(points[:1], "loss", "t") is None
    assert figures.lines([{"step": 0.0}] * 9, "loss", "t") is None
    flat = [{"step": s, "loss": 0.0} for s in range(3)]
    assert figures.lines(flat, "loss", "t") is not None


# What was watched while it was trained


def test_the_page_shows_widths_and_samples_over_time(whole):
    page = Text(report(whole))
    assert "Widths of the latent vectors, steps 8 to 400" in page.text
    assert "Pruning: sample pictures over time original beside student" in page.text
    labels = [a["aria-label"] for tag, a in page.elements if tag == "svg" and "aria-label" in a]
    for vector in read_run(whole).prune.watched.vectors:
        assert f"{vector.name}: {vector.kept[0]} to {vector.kept[-1]} of {vector.whole}" in labels
        assert f"{vector.whole} → {vector.kept[-1]}" in page.text
    films = [a["alt"] for tag, a in page.elements if tag == "img" and "step" in (a.get("alt") or "")]
    assert films == [f"original beside student, step {step}" for step in (1, *range(50, 401, 50))]


def test_a_width_strip_ends_at_the_share_that_stays():
    drawn = str(figures.width_strip(Vector("a", 8, (8, 6, 2)), (1, 11, 21)))
    assert 'd="M0 30L0.0 0.00L500.0 7.50L1000.0 22.50L1000 30Z"' in drawn


def test_records_of_older_versions_and_a_pruned_folder_alone_can_be_shown(run, tmp_path):
    for name in ("widths", "samples"):
        edit(run / "prune" / "prune.json", lambda document, name=name: document.pop(name))
    text = Text(report(run)).text
    assert "Widths of the latent vectors" not in text and "Cost during" not in text
    assert "Pruning: share of the original's MACs" in text
    assert read_run(run).problems == {}
    alone = shutil.copytree(run / "prune", tmp_path / "alone")
    assert "Pruning: share of the original's MACs" in Text(report(alone)).text


def test_damaged_samples_are_passed_over_and_damaged_widths_named(run):
    (run / "prune" / "samples" / "step_000050.png").write_bytes(b"no picture")
    (run / "prune" / "samples" / "step_000100.png").unlink()
    films = [a for tag, a in Text(report(run)).elements if tag == "img" and "step" in (a.get("alt") or "")]
    assert len(films) == 7
    edit(run / "prune" / "prune.json", lambda document: document["widths"]["steps"].pop())
    assert "widths that do not fit" in read_run(run).problems["prune"]
