"""A run over its folder: finished once, continued after kill -9 anywhere, and never another recipe's."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner, Result

from pocketgan.cli import main
from pocketgan.recipe import read_recipe
from pocketgan.stages import stages_of

# Runs the command line, but dies by SIGKILL just before or after a named file is put in its place for the
# given time; checkpoints are written after every step instead of every few seconds.
KILLED = """
import os, signal, sys
import compressor.training.loop
from pocketgan.cli import main
compressor.training.loop._SAVE_EVERY = -1.0
when, name, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
replace = os.replace
def counting(source, target):
    global left
    hit = os.fspath(target).endswith(name)
    left -= hit
    if hit and left == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if hit and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
if name != "never":
    os.replace = counting
main(sys.argv[4:])
"""

# In the order in which they happen; each process resumes the one before it.
MOMENTS = [
    ("before", "run/recipe.yaml", 1),
    ("before", "original/weights.safetensors", 1),
    ("after", "prune/checkpoint.pt", 3),
    ("before", "prune/prune.json", 1),
    ("after", "distill/checkpoint.pt", 4),
    ("before", "eval/eval.json", 1),
    ("after", "compressed/export.json", 1),
    ("before", "original/export.json", 1),
    ("before", "bench/bench.json", 1),
    ("before", "run/report.html", 1),
]
QUICK = ["--set=export.formats=[onnx]", "--set=export.precisions=[fp32,int8]", "--set=bench.threads=[1]"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_job(tmp_path_factory.mktemp("job"))


def run(
    recipe: Path, folder: Path, *more: str, kill: tuple[str, str, int] = ("", "never", 0)
) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-c",
        KILLED,
        *map(str, kill),
        "run",
        str(recipe),
        f"--output-dir={folder}",
        *more,
    ]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


def figures(folder: Path) -> dict[str, Any]:
    """All that a run found out, without times."""

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text())

    def digest(name: str) -> str:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    exported = {
        f"{group}/{file['file']}": (file["kind"], file["sha256"], file["parity"])
        for group in ("compressed", "original")
        for file in read(f"export/{group}/export.json")["files"]
    }
    return {
        "prune": read("prune/prune.json"),
        "distill": read("distill/distill.json"),
        "eval": read("eval/eval.json"),
        "metrics": (folder / "metrics.jsonl").read_text().splitlines(),
        "weights": [digest(f"{stage}/weights.safetensors") for stage in ("original", "prune", "distill")],
        "pictures": {
            path.name: digest(f"eval/images/{path.name}") for path in (folder / "eval/images").iterdir()
        },
        "exported": exported,
        "series": [(s["group"], s["file"], s["threads"]) for s in read("bench/bench.json")["series"]],
    }


@pytest.fixture(scope="module")
def uninterrupted(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = run(job, folder, *QUICK)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_leaves_what_it_promises(uninterrupted: Path) -> None:
    stages = json.loads((uninterrupted / "stages.json").read_text())
    assert list(stages) == list(stages_of(read_recipe(uninterrupted / "recipe.yaml"))) and {
        stage["state"] for stage in stages.values()
    } == {"done"}
    environment = json.loads((uninterrupted / "environment.json").read_text())
    assert environment["command"][:2] == ["pocketgan", "run"] and environment["seed"] == 3
    assert environment["packages"]["torch"] and environment["machine"]["cpu"]
    assert (uninterrupted / "report.html").stat().st_size > 10_000
    assert not list(uninterrupted.rglob("checkpoint.pt")) and not list(uninterrupted.rglob("*.part"))
    found = figures(uninterrupted)
    budget = found["prune"]["budget"]
    assert (
        0.5 * 0.95 < found["prune"]["share"] <= 0.5 and found["prune"]["reached"]["macs"] <= budget["target"]
    )
    assert set(found["exported"]) == {
        "compressed/generator-fp32.onnx",
        "compressed/generator-int8.onnx",
        "original/generator-fp32.onnx",
    }
    assert [json.loads(line)["stage"] for line in found["metrics"]] == ["prune"] * 8 + ["distill"] * 8


def test_kill_9_in_every_stage_then_resume_ends_in_the_same_figures(
    job: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for moment in MOMENTS:
        done = run(job, folder, "--resume", *QUICK, kill=moment)
        assert done.returncode == -signal.SIGKILL, f"{moment}: {done.stderr}"
    last = run(job, folder, "--resume", *QUICK)
    assert last.returncode == 0, last.stderr
    assert "prune: done before" in last.stderr
    assert figures(folder) == figures(uninterrupted)
    assert (folder / "report.html").exists()
    assert not list(folder.rglob(".*.part"))  # what was being written when a process died


@pytest.mark.acceptance
@pytest.mark.parametrize("seed", [0, 1])
def test_kill_9_at_any_time_on_a_real_generator(shared_data: Path, tmp_path: Path, seed: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    checkpoint = shared_data / "weights" / "gan_compression_horse2zebra.pth"
    recipe.write_text(
        f"generator: {{checkpoint: {checkpoint}, size: [128, 128]}}\n"
        f"data: {{images: {shared_data}/horse2zebra/testA_real}}\n"
        "budget: macs=50%\nprune: {steps: 12, crop: 64}\ndistill: {steps: 12, crop: 64}\n"
        "export: {calibration: 4}\nbench: {rounds: 5, warmup: 1}\n"
    )
    line = [sys.executable, "-c", KILLED, "", "never", "0", "run", str(recipe), "--resume", "--output-dir"]
    began = time.monotonic()
    code = subprocess.run([*line, str(tmp_path / "whole")], capture_output=True).returncode
    assert code in (0, 3)  # 3: so little training may leave too little parity, but always the same
    whole = time.monotonic() - began
    moments = random.Random(seed)
    for attempt in range(40):
        patience = (
            whole * moments.uniform(0.05, 0.5) * (1 + attempt / 10)
        )  # the machine may have become slower
        process = subprocess.Popen([*line, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
        try:
            assert process.wait(timeout=patience) == code
            break
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL
            process.wait()
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_finished_run_is_not_overwritten_and_resuming_it_changes_nothing(
    job: Path, uninterrupted: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.is_file()}
    refused = call("run", job, "--output-dir", uninterrupted, *QUICK)
    assert refused.exit_code == 1 and "already holds files" in refused.stderr
    again = call("run", job, "--output-dir", uninterrupted, "--resume", "--json", *QUICK)
    assert again.exit_code == 0 and json.loads(again.stdout)["run"] == str(uninterrupted)
    after = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*") if path.is_file()}
    before.pop(uninterrupted / ".lock"), after.pop(uninterrupted / ".lock")
    assert after == before


def test_the_written_recipe_is_the_same_run(uninterrupted: Path) -> None:
    again = call("run", uninterrupted / "recipe.yaml", "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(uninterrupted)


def test_resuming_with_another_recipe_names_the_keys_that_differ(job: Path, uninterrupted: Path) -> None:
    line = ["run", job, "--output-dir", uninterrupted, "--resume", *QUICK]
    other = call(*line, "--set", "prune.steps=9", "--seed", "4")
    assert other.exit_code == 2
    for words in ("prune.steps, seed", "got: prune.steps=9, seed=4", "allowed: prune.steps=8, seed=3"):
        assert words in other.stderr


def test_a_folder_that_is_no_run_is_left_alone(job: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    for flags in ([], ["--resume"]):
        assert call("run", job, "--output-dir", tmp_path, *flags).exit_code == 1
    assert (tmp_path / "thesis.tex").read_text() == "important"
    assert not (tmp_path / "recipe.yaml").exists()


def test_dry_run_reads_everything_and_writes_nothing(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    planned = call(
        "run", job, "--output-dir", folder, "--dry-run", "--json", "--set", "budget=params=10k,macs=2M"
    )
    document = json.loads(planned.stdout)
    assert document["budget"] == {
        "asked": "params=10k,macs=2M",
        "metric": "parameters",
        "target": 10_000,
        "also": {"macs": 2_000_000},
    }
    assert document["cost"]["parameters"] == 32_451 and document["images"] == {"training": 4, "held_out": 1}
    assert document["recipe"]["seed"] == 3 and not folder.exists()
    met = call("run", job, "--output-dir", folder, "--dry-run", "--set", "budget=params=10M")
    assert met.exit_code == 2 and "already meets" in met.stderr


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_an_impossible_budget_says_what_is_reachable_and_writes_nothing(
    job: Path, tmp_path: Path, flags: list[str]
) -> None:
    done = call("run", job, "--output-dir", tmp_path / "run", "--set", "budget=params=10", *flags)
    assert done.exit_code == 2 and "allowed: at least " in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_picture_folder_is_told_before_any_work(job: Path, tmp_path: Path) -> None:
    done = call("run", job, "--output-dir", tmp_path / "run", "--set", f"data.images={tmp_path}/none")
    assert done.exit_code == 1 and "there is no folder" in done.stderr
    assert not (tmp_path / "run" / "prune").exists()


def test_two_processes_do_not_share_a_run_folder(job: Path, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = call("run", job, "--output-dir", folder, "--resume")
    assert done.exit_code == 1 and "another process" in done.stderr


def test_ctrl_c_says_how_to_go_on(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = [sys.executable, "-m", "pocketgan", "run", str(job), "--output-dir", str(folder), *QUICK]
    process = subprocess.Popen(
        [*line, "--set=prune.steps=5000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: (folder / "metrics.jsonl").exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and stdout == ""
    assert "stopped; go on with: pocketgan run" in stderr and stderr.rstrip().endswith("--resume")
    assert "Traceback" not in stderr
    assert json.loads((folder / "stages.json").read_text())["prune"] == {"state": "running"}


def test_a_failed_check_is_measured_reported_and_exit_3(
    job: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import exporters.parity

    monkeypatch.setattr(exporters.parity, "THRESHOLDS", dict.fromkeys(exporters.parity.THRESHOLDS, 400.0))
    monkeypatch.setattr("exporters.export.THRESHOLDS", exporters.parity.THRESHOLDS)
    folder = tmp_path / "run"
    only = [*QUICK, "--set=export.precisions=[fp32]", "--set=prune.steps=1", "--set=distill.steps=1"]
    done = call("run", job, "--output-dir", folder, "--json", *only)
    assert done.exit_code == 3, done.stderr
    document = json.loads(done.stdout)
    assert document["exit_code"] == 3 and document["error"]
    assert (folder / "bench" / "bench.json").exists() and (folder / "report.html").exists()
    again = call("run", job, "--output-dir", folder, "--resume", *only)
    assert again.exit_code == 3 and "export: done before" in again.stderr


def wait_until(condition: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 kB, which `mount -o remount,size=` makes larger."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", tmp_path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_full_disk_loses_nothing(job: Path, small_disk: Path) -> None:
    checkpoint, pictures = job.with_name("tiny.pth"), job.with_name("pictures")
    line = ["prune", checkpoint, "--images", pictures, "--budget", "macs=50%", "--steps", "4", "--crop", "32"]
    line += ["--output-dir", small_disk / "out", "--json"]
    full = call(*line)
    assert full.exit_code == 1
    assert "disk is full" in json.loads(full.stdout)["error"] and "Traceback" not in full.stderr
    assert not list(small_disk.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    assert call(*line, "--resume").exit_code == 0
