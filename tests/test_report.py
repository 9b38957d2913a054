"""The report's figures and words: computed from raw samples, complete, escaped, and honest about gaps."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from run_folder import write_run

from benchmarks.report import figures, words
from benchmarks.report.findings import find, precision_remarks
from benchmarks.report.page import report
from benchmarks.report.pictures import LIMIT
from benchmarks.report.records import Layer
from benchmarks.report.run_folder import read_run
from benchmarks.report.summary import summary, summary_json
from benchmarks.report.trade import trade
from benchmarks.report.watched import Vector
from benchmarks.statistics import speed_up
from compressor.data.images import write_image
from compressor.errors import PocketganError

pytest.importorskip("skimage", reason="needs the compress extra for its photographs")
HOSTILE = '<img src=x onerror="document.title=1">&"\'{}</script>'


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def edit(path: Path, change) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


class Text(HTMLParser):
    """All elements with their attributes, and the text a reader sees."""

    def __init__(self, page: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(page.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag):
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data):
        if not self._hidden:
            self.words.append(data)


def test_speed_ups_are_those_of_the_raw_samples(whole):
    series = json.loads((whole / "bench" / "bench.json").read_text())["series"]
    samples = {(s["group"], s["file"], s["threads"]): s["samples_ms"] for s in series}
    findings = find(read_run(whole))
    checked = 0
    for row in findings.rows:
        for timing in row.timings:
            own = samples[row.group, row.name, timing.series.threads]
            assert timing.summary.median == pytest.approx(np.median(own))
            if row.group == "original":
                assert timing.speed_up is None
                continue
            baseline = f"generator-fp32{Path(row.name).suffix}"
            theirs = samples["original", baseline, timing.series.threads]
            assert timing.speed_up == speed_up(theirs, own)
            checked += 1
    assert checked == 12
    assert findings.fastest[0].name == "generator-int8.tflite"
    assert findings.fastest[1].speed_up.value == max(
        t.speed_up.value for r in findings.rows for t in r.timings if t.speed_up and not t.unstable
    )
    assert findings.smallest.size_ratio == pytest.approx(11.44e6 / int(4.83e6 * 0.28))


def test_the_page_says_what_was_found(whole):
    page = report(whole)
    assert page == whole / "report.html"
    text = Text(page).text
    findings = find(read_run(whole))
    for expected in (
        "painting_resnet.pth",
        words.times(findings.fastest[1].speed_up.value),
        words.interval(findings.fastest[1].speed_up),
        words.times(findings.smallest.size_ratio),
        words.decibel(findings.psnr_median),
        "8 of 8 files agree with PyTorch",
        "no speed-up over FP32",
        "XNNPACK runs 98 of 104 operators in 3 parts",
        "pocketgan run recipe.yaml --output-dir whole",
        "Example CPU @ 2.60GHz",
        "checkpoint: painting_resnet.pth",
        "1 min 1 s",
    ):
        assert expected in text, expected
    assert "Not run" not in text


def test_the_page_is_self_contained(whole):
    page = Text(report(whole))
    sources = [
        v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href") and v
    ]
    assert len(sources) > 20
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    source = (whole / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", source)
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "script-src 'sha256-" in policy


def test_building_again_gives_the_same_page_and_leaves_no_trace(whole):
    before = sorted(whole.iterdir())
    first = report(whole).read_bytes()
    assert report(whole).read_bytes() == first
    assert sorted(whole.iterdir()) == sorted({*before, whole / "report.html"})


def test_precision_without_gain_is_said_plainly(whole):
    remarks = {r.row.name: r.verdict for r in precision_remarks(find(read_run(whole)))}
    assert remarks == {
        "generator-fp16.onnx": "same",
        "generator-int8.onnx": "faster",
        "generator-fp16.tflite": "same",
        "generator-int8.tflite": "faster",
    }
    assert "generator-fp16.onnx: no speed-up over FP32 on this machine" in summary(whole)


@pytest.mark.parametrize("stage", ["prune", "distill", "eval", "export", "bench"])
def test_a_missing_stage_is_shown_as_not_run(run, stage):
    shutil.rmtree(run / stage)
    text = Text(report(run)).text
    assert read_run(run).missing == [stage]
    assert summary_json(run)["missing"] == [stage]
    assert f"{stage}: not run" in summary(run)
    assert f"Not run. pocketgan {stage} makes it." in text


def test_a_run_that_has_only_begun(tmp_path):
    write_run(tmp_path / "new", stages=())
    assert Text(report(tmp_path / "new")).text.count("Not run.") == 5
    assert {check["passed"] for check in summary_json(tmp_path / "new")["checks"]} == {None}


DAMAGED = {
    "prune/prune.json": ("prune", "{"),
    "distill/distill.json": ("distill", '{"steps": 3}'),
    "eval/eval.json": ("eval", '{"reference": "x", "images": []}'),
    "export/compressed/export.json": ("export", '{"format": "pocketgan.export/77"}'),
    "bench/bench.json": ("bench", "[]"),
}


@pytest.mark.parametrize("file", DAMAGED)
def test_a_damaged_stage_is_named_and_the_rest_shown(run, file):
    stage, content = DAMAGED[file]
    (run / file).write_text(content)
    folder = read_run(run)
    assert list(folder.problems) == [stage]
    text = Text(report(run)).text
    assert folder.problems[stage] in text
    assert f"{stage}: " in summary(run)


def test_costs_that_cannot_be_are_refused_not_divided_by(run):
    edit(run / "prune" / "prune.json", lambda d: d["original"].update(macs=0))
    assert "prune" in read_run(run).problems
    report(run)


def test_a_lone_export_folder_and_a_lone_bench_folder(run, tmp_path):
    export, bench = tmp_path / "export", tmp_path / "bench"
    shutil.copytree(run / "export" / "compressed", export)
    shutil.copytree(run / "bench", bench)
    assert "6 of 6 files agree" in Text(report(export)).text
    assert [row.group for row in find(read_run(bench)).rows].count("compressed") == 6
    assert "ONNX Runtime, 1 thread" in Text(report(bench)).text


def test_export_folders_beside_a_bench_folder(run, tmp_path):
    shutil.copytree(run / "export" / "compressed", tmp_path / "work" / "small")
    shutil.copytree(run / "bench", tmp_path / "work" / "bench")
    edit(
        tmp_path / "work" / "bench" / "bench.json",
        lambda d: [s.update(group="small") for s in d["series"] if s["group"] == "compressed"],
    )
    findings = find(read_run(tmp_path / "work"))
    assert findings.subject == "small"
    assert findings.fastest is not None and findings.fastest[1].speed_up.verdict == "faster"


def test_folders_without_anything_of_ours_are_refused(tmp_path):
    with pytest.raises(PocketganError, match="no folder"):
        report(tmp_path / "none")
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(PocketganError, match="nothing to report"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_hostile_names_stay_text(tmp_path):
    evil = "<svg onload=alert(1)>\"'&{{7*7}}"
    run = write_run(
        tmp_path / "run",
        name=evil.replace("/", ""),
        layer_name=f"{evil.replace('{', '(').replace('}', ')')}.{{}}",
    )
    edit(run / "eval" / "eval.json", lambda d: d["images"][0].update(name=HOSTILE))
    edit(run / "bench" / "bench.json", lambda d: d["machine"].update(cpu=HOSTILE))
    edit(run / "environment.json", lambda d: d.update(command=["pocketgan", HOSTILE], pocketgan=HOSTILE))
    edit(run / "environment.json", lambda d: d["machine"].update(cpu=HOSTILE))
    edit(run / "export" / "compressed" / "export.json", lambda d: d["files"][0].update(notes=[HOSTILE]))
    (run / "recipe.yaml").write_text(HOSTILE)
    page = Text(report(run))
    assert HOSTILE in page.text and "{{7*7}}" in page.text
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert all(a["src"].startswith("data:image/") for t, a in page.elements if t == "img")
    assert [t for t, _ in page.elements].count("script") == 1
    assert any(evil.split("{")[0] in (a.get("data-layer") or "") for _, a in page.elements)


def test_failed_parity_is_never_headlined(run):
    def fail(document):
        for file in document["files"]:
            if file["precision"] == "int8":
                file["parity"]["images"][0]["psnr"] = 12.0

    edit(run / "export" / "compressed" / "export.json", fail)
    findings = find(read_run(run))
    assert findings.fastest[0].precision != "int8" and findings.smallest.precision == "fp16"
    parity = next(check for check in findings.checks if check.name == "Parity")
    assert parity.passed is False and parity.text.startswith("6 of 8")
    text = Text(report(run)).text
    assert "12.0 dB failed" in text and "FAILED" in summary(run)


def test_a_file_that_could_not_be_made_is_shown_with_the_reason(run):
    def lose(document):
        document["files"][5].update(error="no kernel for it", bytes=0, parity=None, delegation=None)

    edit(run / "export" / "compressed" / "export.json", lose)
    assert "not made no kernel for it" in Text(report(run)).text
    assert "not made" in summary(run)


def test_timings_of_another_file_are_left_out_and_said(run):
    def rehash(document):
        document["files"][0]["sha256"] = "1" * 64

    edit(run / "export" / "compressed" / "export.json", rehash)
    edit(run / "bench" / "bench.json", lambda d: [s.update(sha256="2" * 64) for s in d["series"]])
    findings = find(read_run(run))
    row = next(r for r in findings.rows if (r.group, r.name) == ("compressed", "generator-fp32.onnx"))
    assert row.timings == ()
    assert any(c.name == "Currency" and c.passed is False and row.name in c.text for c in findings.checks)


def test_unstable_series_are_marked_and_never_outshine_stable_ones(run):
    def shake(document):
        for series in document["series"]:
            if series["file"] == "generator-int8.tflite":
                series["samples_ms"] = [
                    value * (1 + index % 3) for index, value in enumerate(series["samples_ms"])
                ]

    edit(run / "bench" / "bench.json", shake)
    findings = find(read_run(run))
    assert findings.fastest[0].name != "generator-int8.tflite" and findings.fastest[1].unstable is None
    stability = next(check for check in findings.checks if check.name == "Stability")
    assert stability.passed is False and not stability.serious


def test_no_verdict_on_a_precision_without_a_stable_series(run):
    def shake(document):
        for series in document["series"]:
            if series["precision"] == "fp32":
                series["samples_ms"] = [
                    value * (1 + index % 3) for index, value in enumerate(series["samples_ms"])
                ]

    edit(run / "bench" / "bench.json", shake)
    remarks = precision_remarks(find(read_run(run)))
    assert {remark.verdict for remark in remarks} == {"open"}
    assert Text(report(run)).text.count("no verdict: the measurements are unstable") == 4
    assert "about" in Text(report(run)).text


def test_a_busy_machine_is_said(run):
    edit(run / "bench" / "bench.json", lambda d: d.update(load_before=3.21, load_after=4.0))
    assert "load 3.2 on 2 usable cores" in Text(report(run)).text and "load 3.2" in summary(run)
    edit(run / "bench" / "bench.json", lambda d: d.update(load_before=0.2))
    assert "machine was busy" not in Text(report(run)).text


def test_operators_outside_the_delegate_are_named(run):
    kept = {"nodes": 104, "delegated": 98, "partitions": 3, "kept": {"MIRROR_PAD": 5, "TANH": 1}}
    edit(run / "bench" / "bench.json", lambda d: [s.update(delegation=kept) for s in d["series"]])
    assert "partly , not MIRROR_PAD (5), TANH" in Text(report(run)).text


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
