"""`pocketgan prune --task`: the command as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from compressor.data.images import write_image
from compressor.generators import load
from pocketgan.cli import main

SMALL = [
    *("--scratch", "--size", "32x32", "--argument", "width=8", "--epochs", "2", "--epochs-decay", "1"),
    *("--search-epochs", "1", "--discriminator-width", "4", "--discriminator-layers", "2"),
    *("--budget", "macs=50%"),
]


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["prune", *map(str, words)])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for side in "AB":
        for index in range(2):
            coarse = draw.random((4, 4, 3)).astype(np.float32)
            write_image(tmp_path / "data" / side / f"{index}.png", np.kron(coarse, np.ones((8, 8, 1))))
    return tmp_path / "data"


def test_pix2pix_from_a_family_name(pictures, tmp_path):
    out = tmp_path / "out"
    result = call(
        "resnet", "--task", "pix2pix", "--images", pictures, "--output-dir", out, *SMALL, "--argument",
        "blocks=2", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["task"] == "pix2pix" and document["scratch"] and 0.48 < document["share"] <= 0.5
    assert load(out).spec.arguments["width"] == 8


def test_cyclegan_gives_two_generators(pictures, tmp_path):
    out = tmp_path / "out"
    result = call(
        "resnet", "--task", "cyclegan", "--images", pictures / "A", "--partner-images", pictures / "B",
        "--output-dir", out, *SMALL, "--argument", "blocks=2", "--partner-budget", "macs=40%", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    forth, back = json.loads(result.stdout)["generators"]
    assert forth["share"] > 0.45 > back["share"]
    assert load(Path(forth["folder"])) and load(Path(back["folder"]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "distill", "--l1", "3"), "--l1 means nothing to --task distill"),
        (("--task", "pix2pix", "--steps", "3"), "--steps means nothing to --task pix2pix"),
        (("--task", "cyclegan", "--scratch"), "second set of pictures"),
        (("--task", "cyclegan", "--scratch", "--partner-images", "."), "no pictures"),
        (("--task", "pix2pix", "--scratch", "--search-epochs", "500"), "search_epochs"),
    ],
)
def test_what_a_task_does_not_know_or_lacks_is_said(pictures, tmp_path, words, said):
    (tmp_path / "empty").mkdir()
    words = [tmp_path / "empty" if word == "." else word for word in words]
    result = call(
        "resnet", "--images", pictures, "--output-dir", tmp_path / "out", "--budget", "macs=50%", *words
    )
    assert result.exit_code in (1, 2)
    assert said in result.output + (result.stderr or "")
    assert not (tmp_path / "out").exists()


def test_families_of_pix2pix_and_cyclegan(pictures, tmp_path):
    from tiny import write_generator

    write_generator(tmp_path / "tiny.pth")
    small = [word for word in SMALL if word not in ("--scratch", "--budget", "macs=50%")]
    small = [*small[:2], *small[4:], "--budget", "macs=70%,50%", "--distillation", "1"]
    for task, count in (("pix2pix", 2), ("cyclegan", 4)):
        out = tmp_path / task
        where = ("--images", pictures) if task == "pix2pix" else (
            "--images", pictures / "A", "--partner-images", pictures / "B", "--partner", tmp_path / "tiny.pth"
        )  # fmt: skip
        result = call(
            tmp_path / "tiny.pth", "--task", task, *where, "--output-dir", out, *small, "--json"
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        family = json.loads(result.stdout)["family"]
        assert len(family) == count
        assert len({document["original"]["macs"] for document in family}) == 1
        assert all(0.66 < document["share"] <= 0.7 for document in family[: count // 2])
        assert all(0.46 < document["share"] <= 0.5 for document in family[count // 2 :])
        again = call(
            tmp_path / "tiny.pth", "--task", task, *where, "--output-dir", out, *small, "--json", "--resume"
        )
        assert json.loads(again.stdout)["family"] == family


def test_a_family_does_not_start_from_nothing(pictures, tmp_path):
    words = [*SMALL[:-1], "macs=70%,50%"]
    result = call(
        "resnet", "--task", "pix2pix", "--images", pictures, "--output-dir", tmp_path / "out", *words
    )
    assert result.exit_code == 2 and "trained generator" in result.output + (result.stderr or "")


@pytest.mark.parametrize("words", [(), ("--round", "8")])
@pytest.mark.parametrize("task", ["distill", "pix2pix", "cyclegan"])
def test_an_unreachable_budget_is_told_before_anything_is_done(pictures, tmp_path, monkeypatch, task, words):
    from compressor.adversarial.fresh import fresh
    from compressor.generators import save
    from compressor.training.loop import Loop

    monkeypatch.setattr(Loop, "__iter__", lambda self: pytest.fail("trained before it was said"))
    made = fresh("resnet", {"width": 8, "blocks": 2}, size=(32, 32))
    save(made.spec, made.module, tmp_path / "model", {})
    out, model = tmp_path / "out", tmp_path / "model"
    line = [model, "--task", task, "--images", pictures / "A", "--output-dir", out, *words]
    line += ["--budget", "macs=2%"]
    if task != "distill":
        line += ["--partner-images", pictures / "B", "--crop", "32"]
    if task == "cyclegan":
        line += ["--partner", model]
    result = call(*line)
    assert result.exit_code == 2 and "at least" in result.stderr, result.output
    assert not out.exists()
