"""A run that searches, then prunes: from one recipe, resumed after a kill anywhere, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from click.testing import CliRunner
from tiny_space import TRANSLATION

from benchmarks.exported import list_files
from benchmarks.report.findings import find
from benchmarks.report.run_folder import read_run
from compressor.cost import count
from compressor.errors import UsageError
from compressor.generators import load
from exporters.given import take
from exporters.result import GIVEN, read_export
from pocketgan.cli import main
from pocketgan.pipeline import run
from pocketgan.recipe import Recipe, read_recipe, write_recipe
from pocketgan.stages import stages_of

RECIPE = """\
generator: {checkpoint: tiny.pth, size: [32, 32]}
data: {images: pictures}
budget: macs=20%
search: {budget: macs=1.4M, space: space.yaml, pretrain: 1, steps: 2, finalists: 1, trials: 2, trial_steps: 1,
         validation: 1, samples: 2}
train: {steps: 3, samples: 0}
prune: {steps: 2, samples: 0}
distill: {steps: 2, samples: 0}
export: {formats: [onnx], precisions: [fp32]}
bench: {rounds: 5, warmup: 1, threads: [1]}
seed: 3
"""
RECORDS = {"search": "search.json", "train": "distill.json", "prune": "prune.json", "distill": "distill.json"}

# In the order in which they happen: before or after a file is put in its place for the given time.
MOMENTS = [
    ("after", "search/checkpoint.pt", 2),
    ("before", "search/search.json", 1),
    ("after", "train/checkpoint.pt", 2),
    ("before", "train/distill.json", 1),
    ("after", "prune/checkpoint.pt", 1),
    ("after", "distill/checkpoint.pt", 1),
]


class Killed(BaseException):
    """Nothing in the product can catch it by mistake."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    tiny.write_generator(folder / "tiny.pth")
    tiny.write_pictures(folder / "pictures")
    (folder / "space.yaml").write_text(TRANSLATION.replace("size: [16, 16]", "size: [32, 32]"))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as context:
        context.setenv("POCKETGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def whole(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = CliRunner().invoke(main, ["run", str(job), "--output-dir", str(folder), "--json"])
    assert done.exit_code in (0, 3), done.stderr
    return folder


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_search_then_prune_in_one_run(whole: Path, job: Path) -> None:
    stages = read(whole, "stages.json")
    assert list(stages) == [
        *("original", "search", "train", "prune", "distill"),
        *("eval", "export", "bench", "report"),
    ]
    assert {stage["state"] for stage in stages.values()} == {"done"}
    costs = {
        stage: count(load(whole / stage).module, (1, 3, 32, 32)).macs
        for stage in ("original", "search", "train", "prune", "distill")
    }
    assert 0.98 * 1.4e6 < costs["search"] == costs["train"] <= 1.4e6
    # the last budget is a share of the original, not of what was found
    assert 0.95 * 0.2 * costs["original"] < costs["prune"] == costs["distill"] <= 0.2 * costs["original"]
    told = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in told] == ["search"] * 3 + ["trials"] * 2 + ["train"] * 3 + [
        "prune"
    ] * 2 + ["distill"] * 2
    assert len(list((whole / "search" / "samples").iterdir())) == 2
    run_folder = read_run(whole)
    assert not run_folder.missing and not run_folder.problems and run_folder.whole is not None
    assert run_folder.whole.share == pytest.approx(costs["distill"] / costs["original"])
    page = (whole / "report.html").read_text()
    for words in ("Pruning of what was found", "Training of the found network", 'id="search"'):
        assert words in page


def test_killed_in_every_new_stage_it_ends_in_the_same_figures(
    job: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.training.loop._SAVE_EVERY", -1.0)
    recipe, folder, replace = read_recipe(job), tmp_path / "run", os.replace
    for when, name, times in [*MOMENTS, ("before", "eval/eval.json", 1)]:
        left = times

        def dying(source: Any, target: Any, when: str = when, name: str = name) -> None:
            nonlocal left
            hit = os.fspath(target).endswith(name)
            left -= hit
            if hit and left == 0 and when == "before":
                raise Killed
            replace(source, target)
            if hit and left == 0:
                raise Killed

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            run(recipe, folder, resume=True)
    for stage, record in RECORDS.items():
        assert read(folder, f"{stage}/{record}") == read(whole, f"{stage}/{record}"), stage
        weights = f"{stage}/weights.safetensors"
        assert (folder / weights).read_bytes() == (whole / weights).read_bytes(), stage
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_resolved_recipe_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    recipe = read_recipe(whole / "recipe.yaml")
    write_recipe(recipe, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == recipe
    assert recipe.search is not None and recipe.search.steps == 2 and recipe.train is not None


def test_the_teachers_own_file_is_timed_beside_the_student(whole: Path, tmp_path: Path) -> None:
    """An ONNX teacher cannot be exported anew: it stands in for the original as it is, and is not judged."""
    file = whole / "export" / "original" / "generator-fp32.onnx"
    image = load(whole / "original").spec.image
    made = take(file, image, tmp_path / "export" / "original")
    assert made is not None and read_export(made.folder) == made
    (record,) = made.files
    assert (record.file, record.precision, record.kind) == ("generator-fp32.onnx", "fp32", GIVEN)
    assert (made.folder / record.file).read_bytes() == file.read_bytes()
    (timed,) = list_files([made.folder])
    assert timed.shape == (1, 3, 32, 32) and timed.value_range == image.input_range
    parity = next(check for check in find(read_run(tmp_path)).checks if check.name == "Parity")
    assert parity.passed is None


def recipe_of(job: Path, text: str, *settings: str) -> Recipe:
    path = job.with_name("other.yaml")
    path.write_text(text)
    return read_recipe(path, settings)


MINIMAL = "generator: {checkpoint: a.pth}\ndata: {images: pics}\nbudget: macs=50%\n"


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        (MINIMAL, "original prune distill eval export bench report"),
        (MINIMAL + "search:\n", "original search distill eval export bench report"),
        (MINIMAL + "search:\n  # steps: 3\n", "original search distill eval export bench report"),
        (
            MINIMAL + "search: {budget: macs=70%}\n",
            "original search train prune distill eval export bench report",
        ),
    ],
)
def test_the_section_decides_the_stages(job: Path, text: str, stages: str) -> None:
    recipe = recipe_of(job, text)
    assert list(stages_of(recipe)) == stages.split()
    plain = recipe.as_plain()
    assert ("search" in plain) == (recipe.search is not None) and "train" not in plain
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL.replace("a.pth", "a.onnx"), ["cannot be pruned", "search: {}"]),
        (MINIMAL.replace("checkpoint: a.pth", "outputs: made"), ["cannot be pruned"]),
        (MINIMAL.replace("a.pth", "a.pth, outputs: made") + "search: {}\n", ["generator.outputs"]),
        (MINIMAL.replace("a.pth", "a.onnx, factory: 'm:f'") + "search: {}\n", ["holds its network itself"]),
        (MINIMAL.replace("a.pth", "a.pth, layout: NHWC"), ["generator.layout"]),
        (MINIMAL + "train: {}\n", ["train means nothing", "search.budget"]),
        (MINIMAL + "search: {}\ntrain: {}\n", ["train means nothing"]),
        (MINIMAL + "search: {}\nprune: {steps: 3}\n", ["prune means nothing", "search.budget"]),
        (MINIMAL + "search: {budget: macs=50%}\n", ["nothing is left to prune", "macs=50%"]),
        (MINIMAL + "search: {budget: 'macs=4G,1G'}\n", ["search.budget asks for several"]),
        (MINIMAL + "search: {budget: latency=5ms}\n", ["latency"]),
        (MINIMAL + "search: {truth: true}\n", ["search.truth=true, distill.truth=0"]),
        (MINIMAL + "search: {loss: style}\n", ["search.loss style"]),
        (MINIMAL + "search: {stepz: 3}\n", ["line 4", "'search.stepz'", "'steps'"]),
        (MINIMAL + "search: 3\n", ["search", "a section"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(job: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        recipe_of(job, text)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["search.budget=macs=99M"], "large enough"),
        (["search.budget=macs=2%", "budget=macs=1%"], "small enough"),
        (["budget=macs=1.4M"], "nothing is left to prune"),
        (["search.space=nowhere"], "'nowhere'"),
        (["generator={outputs: pictures, size: [32, 32]}"], "a share needs a teacher"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    job: Path, tmp_path: Path, settings: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(job.parent)
    line = ["run", str(job), "--output-dir", str(tmp_path / "run")]
    done = CliRunner().invoke(main, [*line, *(f"--set={setting}" for setting in settings)])
    assert done.exit_code == 2 and words in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_what_pruning_cannot_reach_is_said_before_the_found_network_is_trained(
    job: Path, tmp_path: Path
) -> None:
    line = ["run", str(job), "--output-dir", str(tmp_path / "run"), "--set=search.budget=macs=5%"]
    done = CliRunner().invoke(main, [*line, "--set=budget=macs=1%", "--set=search.steps=1"])
    assert done.exit_code == 2 and "cannot be reached" in done.stderr and "at least" in done.stderr
    assert (tmp_path / "run" / "search" / "search.json").exists() and not (
        tmp_path / "run" / "train"
    ).exists()


def test_a_dry_run_tells_space_and_stages(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a folder of outputs, of which no cost is known."""
    monkeypatch.chdir(job.parent)
    line = ["run", str(job), "--dry-run", "--json", "--set=generator={outputs: pictures, size: [32, 32]}"]
    done = CliRunner().invoke(main, [*line, "--set=budget=macs=1M"])
    assert done.exit_code == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["cost"] is None and planned["budget"]["target"] == 1_000_000
    assert planned["search"]["space"] == "tiny_st" and planned["search"]["target"] == 1_400_000
    assert planned["search"]["range"][0] < 1_400_000 < planned["search"]["range"][1]
    assert "train" in planned["stages"] and planned["recipe"]["search"]["pretrain"] == 1
