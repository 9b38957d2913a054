"""`pocketgan compare`: what is matched, what fails a CI job, and the workflow that calls it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench_files import PHONE, samples, series, write_bench, write_sessions
from click.testing import CliRunner, Result

from benchmarks.ci.compare import Allowed, compare
from compressor.errors import GateError, PocketganError, UsageError
from pocketgan.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent
WORKFLOW = REPOSITORY / "docs" / "ci" / "latency-on-phones.yml"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def verdicts(baseline: Path, new: Path, **options: object) -> dict[str, str]:
    found = compare(baseline, new, **options)  # type: ignore[arg-type]
    return {row.key.model.split("/")[1]: row.judged.verdict for row in found.rows if row.judged}


def test_every_verdict_in_one_comparison(tmp_path: Path) -> None:
    names = {"same.onnx": 20.0, "slow.onnx": 20.0, "fast.onnx": 20.0, "gone.onnx": 20.0}
    before = write_sessions(tmp_path / "before", names)
    now = {"same.onnx": 20.1, "slow.onnx": 21.4, "fast.onnx": 18.0, "fresh.onnx": 5.0}
    after = write_sessions(tmp_path / "after", now, seed=5)
    found = compare(before, after)
    assert verdicts(before, after) == {
        "same.onnx": "same",
        "slow.onnx": "slower",
        "fast.onnx": "faster",
        "gone.onnx": "missing",
        "fresh.onnx": "new",
    }
    states = {row.key.model.split("/")[1]: row.state for row in found.rows}
    assert states == {
        "same.onnx": "passed",
        "slow.onnx": "failed",
        "fast.onnx": "passed",
        "gone.onnx": "error",
        "fresh.onnx": "skipped",
    }
    assert isinstance(found.problem, GateError) and "1 slower, 1 missing" in str(found.problem)
    assert len(found.baseline) == len(found.new) == 3


def test_the_command_fails_prints_and_writes(tmp_path: Path) -> None:
    before = write_sessions(tmp_path / "before", {"a.onnx": 20.0, "b.onnx": 8.0})
    after = write_sessions(tmp_path / "after", {"a.onnx": 22.0, "b.onnx": 8.0}, seed=5)
    line = ["compare", before, after, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "s.md"]
    done = call(*line)
    assert done.exit_code == 3 and "slower" in done.output and "Samsung SM-S928B" in done.output
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert len(root.findall(".//failure")) == 1 and len(root.findall(".//testcase")) == 2
    assert re.search(r"\|❌\|.*a\.onnx.*\+\d+\.\d %", (tmp_path / "s.md").read_text())
    document = json.loads(CliRunner().invoke(main, [*map(str, line), "--json"]).stdout)
    assert document["format"] == "pocketgan.compare/1" and document["passed"] is False
    assert document["verdicts"]["slower"] == 1 and document["exit_code"] == 3
    assert call("compare", before, after, "--threshold", "25%").exit_code == 0
    assert call("compare", before, before).exit_code == 0


def test_what_is_missing_fails_unless_allowed(tmp_path: Path) -> None:
    before = write_sessions(tmp_path / "before", {"a.onnx": 20.0, "b.onnx": 8.0})
    after = write_sessions(tmp_path / "after", {"a.onnx": 20.0}, seed=5)
    done = call("compare", before, after)
    assert done.exit_code == 3 and "--allow-missing" in done.output
    assert call("compare", before, after, "--allow-missing").exit_code == 0


def test_no_verdict_is_no_pass_unless_allowed(tmp_path: Path) -> None:
    before = write_sessions(tmp_path / "before", {"a.onnx": 20.0})
    once = write_sessions(tmp_path / "after", {"a.onnx": 20.0}, count=1)
    shutil.rmtree(before / "2")
    shutil.rmtree(before / "3")
    done = call("compare", before, once)
    assert done.exit_code == 3 and "sessions a side" in done.output
    assert call("compare", before, once, "--allow-unstable").exit_code == 0
    assert call("compare", before / "1" / "bench.json", once / "1", "--threshold", 20).exit_code == 0


def test_rows_match_by_device_runtime_precision_model_and_threads(tmp_path: Path) -> None:
    entry = series("a.onnx", samples(20))
    before = write_bench(tmp_path / "before", [entry])
    changes = [
        ({"device": {**PHONE, "model": "SM-S901B", "chip": "Snapdragon 8 Gen 1"}}, entry),
        ({}, {**entry, "runtime": "litert"}),
        ({}, {**entry, "precision": "int8"}),
        ({}, {**entry, "group": "original"}),
        ({}, {**entry, "threads": 4}),
    ]
    for number, (document, changed) in enumerate(changes):
        after = write_bench(tmp_path / str(number), [changed], **document)
        judged = {row.judged.verdict for row in compare(before, after).rows if row.judged}
        assert judged == {"missing", "new"}
    other = write_bench(
        tmp_path / "other", [entry], device={**PHONE, "serial": "ZY22"}, runtimes={"onnxruntime": "1.23"}
    )
    found = compare(before, other)
    assert len(found.rows) == 1 and {note.split(":")[0] for note in found.notes} == {"runtimes", "phone"}


def test_emulated_times_are_refused_unless_asked(tmp_path: Path) -> None:
    entry = series("a.onnx", samples(20))
    real, emulated = (write_bench(tmp_path / str(e), [entry], emulated=e) for e in (False, True))
    done = call("compare", emulated, emulated)
    assert done.exit_code == 3 and "emulated" in done.output
    assert call("report", emulated.parent, "--csv", tmp_path / "x.csv").exit_code == 3
    assert (
        "emulated" in (tmp_path / "x.csv").read_text() and "median_ms" not in (tmp_path / "x.csv").read_text()
    )
    mixed = compare(real, emulated, allowed=Allowed(emulated=True))
    assert {row.judged.verdict for row in mixed.rows if row.judged} == {
        "missing",
        "new",
    }  # never side by side


def test_another_picture_fails_however_fast(tmp_path: Path) -> None:
    before = write_sessions(tmp_path / "before", {"a.onnx": 20.0})
    parity = [{"group": "compressed", "file": "a.onnx", "max_abs": 0.5, "psnr": 9.0, "passed": False}]
    after = write_bench(tmp_path / "after", [series("a.onnx", samples(5))], parity=parity)
    found = compare(before, after)
    assert found.rows[0].state == "failed" and found.rows[0].judged.verdict == "faster"  # type: ignore[union-attr]
    assert found.problem is not None and "picture" in str(found.problem)


@pytest.mark.parametrize("threshold", ["0%", "-5%", "101%", "five", "nan", "inf"])
def test_thresholds_out_of_range_are_wrong_usage(tmp_path: Path, threshold: str) -> None:
    file = write_bench(tmp_path, [series("a.onnx", samples(20))])
    assert call("compare", file, file, "--threshold", threshold).exit_code == 2
    with pytest.raises(UsageError):
        compare(file, file, threshold=float("nan"))


def test_sides_without_measurements_are_named(tmp_path: Path) -> None:
    file = write_bench(tmp_path / "a", [series("a.onnx", samples(20))])
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", tmp_path / "absent"):
        done = call("compare", file, wrong, "--junit", tmp_path / "j.xml")
        assert done.exit_code == 1 and str(wrong) in done.output
        assert ElementTree.parse(tmp_path / "j.xml").getroot().findall(".//error")
    file.write_text("{}")
    with pytest.raises(PocketganError, match="format"):
        compare(file, file)


# The workflow


@pytest.fixture(scope="module")
def actionlint() -> str:
    """actionlint of this environment or of the system, with shellcheck beside it."""
    found = shutil.which("actionlint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("actionlint is not installed: pip install 'pocketgan[test]'")
    return found


def lint(actionlint: str, text: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [actionlint, "-no-color", "-ignore", 'label "phones" is unknown', "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path},
    )
    return done.stdout + done.stderr


def test_the_workflow_is_one(actionlint: str) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert lint(actionlint, text) == ""
    assert "env.SERIALS" in lint(actionlint, text.replace("vars.PHONE_SERIAL", "env.SERIALS"))  # it does look


def test_the_workflow_calls_what_there_is() -> None:
    import yaml

    from pocketgan.cli import load_command

    steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["latency"]["steps"]
    script = "\n".join(step.get("run", "") for step in steps).replace("\\\n", " ")
    calls = re.findall(r"^\s*pocketgan (\w+)(.*)$", script, re.MULTILINE)
    assert [name for name, _ in calls] == ["devices", "bench", "compare"]
    for name, rest in calls:
        known = {flag for option in load_command(name).params for flag in option.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known
