"""The report's figures and words: computed from raw samples, complete, escaped, and honest about gaps."""

# ruff: noqa: F811 - tests take fixtures by their names

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_page import Text, edit, run, whole  # noqa: F401 - fixtures among them
from run_folder import write_run

from benchmarks.report import words
from benchmarks.report.findings import find, precision_remarks
from benchmarks.report.page import report
from benchmarks.report.run_folder import read_run
from benchmarks.report.summary import summary, summary_json
from benchmarks.statistics import speed_up
from compressor.errors import PocketganError

pytest.importorskip("skimage", reason="needs the compress extra for its photographs")
HOSTILE = '<img src=x onerror="document.title=1">&"\'{}</script>'


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


@pytest.mark.parametrize("memory", [[], {}, None, "much"])
def test_memory_that_is_no_number_is_left_out(run, memory):
    for file in ("bench/bench.json", "environment.json"):
        edit(run / file, lambda d: d["machine"].update(memory_mb=memory))
    assert "Usable cores" in Text(report(run)).text and "GiB" not in Text(report(run)).text


def test_operators_outside_the_delegate_are_named(run):
    kept = {"nodes": 104, "delegated": 98, "partitions": 3, "kept": {"MIRROR_PAD": 5, "TANH": 1}}
    edit(run / "bench" / "bench.json", lambda d: [s.update(delegation=kept) for s in d["series"]])
    assert "partly , not MIRROR_PAD (5), TANH" in Text(report(run)).text
