"""Training pictures, losses and the resumable loop; pruning and distillation from end to end."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Small
from safetensors.torch import save_file

from compressor.budget import Budget
from compressor.coronet.landing import cost_model
from compressor.coronet.prune import prune
from compressor.data.images import write_image
from compressor.errors import PocketganError, UsageError
from compressor.evaluate import evaluate
from compressor.generators import Generator, load
from compressor.generators.spec import ImageFormat
from compressor.graph import trace
from compressor.options import DistilOptions, PruneOptions
from compressor.training import loop as loops
from compressor.training.distil import distil
from compressor.training.losses import Distance
from compressor.training.patches import Patches

FORMAT = ImageFormat(size=(32, 32), multiple=4)
FACTORY = "networks:Small"
PRUNE = PruneOptions(steps=12, batch=1)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "pictures"
    draw = np.random.default_rng(0)
    for index in range(4):
        coarse = draw.random((5, 6, 3)).astype(np.float32)
        write_image(folder / f"{index}.png", np.kron(coarse, np.ones((8, 8, 1), np.float32)))
    return sorted(folder.iterdir())


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    torch.manual_seed(0)
    save_file(Small().state_dict(), tmp_path / "small.safetensors")
    return load(tmp_path / "small.safetensors", factory=FACTORY, image=FORMAT)


def test_batches_depend_on_seed_and_step_alone(pictures):
    first, second = Patches(pictures, FORMAT, None, 3, seed=1), Patches(pictures, FORMAT, None, 3, seed=1)
    second(7), second(2)
    assert torch.equal(first(5), second(5))
    assert not torch.equal(first(5), first(6))
    assert not torch.equal(first(5), Patches(pictures, FORMAT, None, 3, seed=2)(5))
    assert first(0).shape == (3, 3, 32, 32)
    assert -1 <= first(0).min() < first(0).max() <= 1


def test_super_resolution_crops_are_pixels_of_the_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)) / 255.0
    write_image(tmp_path / "a.png", pixels)
    image = ImageFormat(input_range=(0, 1), output_range=(0, 1), size=(16, 16), scale=4)
    crop = Patches([tmp_path / "a.png"], image, None, 1, seed=0)(0)[0].numpy().transpose(1, 2, 0)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (16, 16, 3))[:, :, 0]
    candidates = [windows, windows[..., ::-1, :]]
    assert min(np.abs(c - crop).max(axis=(2, 3, 4)).min() for c in candidates) < 1e-6


def test_crop_must_suit_the_generator(pictures):
    with pytest.raises(PocketganError, match="multiples of 4"):
        Patches(pictures, FORMAT, 30, 1, seed=0)


def test_distance_is_l1_in_units_of_the_range():
    a, b = torch.full((1, 3, 8, 8), -0.5), torch.full((1, 3, 8, 8), 0.5)
    assert Distance(ImageFormat())(a, b).item() == pytest.approx(0.5)
    assert Distance(ImageFormat(output_range=(0, 1)))(a, b).item() == pytest.approx(1.0)


def test_feature_distance_uses_real_vgg(shared_data):
    distance = Distance(ImageFormat(), shared_data / "weights" / "vgg19_blocks1to3.safetensors")
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    assert distance(picture, picture).item() == 0
    rough = (picture + 0.1 * torch.randn_like(picture)).clamp(-1, 1)
    plain = Distance(ImageFormat())(rough, picture).item()
    assert distance(rough, picture).item() > plain


def test_feature_weights_of_another_network_are_refused(tmp_path):
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(PocketganError, match="VGG19"):
        Distance(ImageFormat(), tmp_path / "other.safetensors")


def test_cosine_rises_then_falls_to_zero():
    rates = [loops.cosine(step, 100, 2.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.4) and max(rates) == pytest.approx(2.0)
    assert rates[100] == pytest.approx(0) and all(a >= b for a, b in itertools.pairwise(rates[5:]))


@pytest.mark.parametrize("text", ["macs=50%", "params=40%", "bytes=60%"])
def test_prune_lands_on_its_budget(generator, pictures, tmp_path, text):
    budget = Budget.parse(text)
    result = prune(generator, pictures, budget, tmp_path / "out", PRUNE)
    graph = trace(generator.module, FORMAT.input_shape)
    whole = cost_model(graph, generator.module, budget.metric)(np.ones(graph.classes, bool))
    reached = result.document["reached"][budget.metric]
    assert 0.97 * budget.target(whole) <= reached <= budget.target(whole)
    again = load(tmp_path / "out", factory=FACTORY)
    picture = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.module(picture), result.generator.module(picture))
    assert sum(p.numel() for p in again.module.parameters()) == result.document["reached"]["parameters"]


def test_a_custom_folder_runs_code_only_when_told(generator, pictures, tmp_path):
    prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "out", PRUNE)
    with pytest.raises(PocketganError, match=FACTORY):
        load(tmp_path / "out")


@pytest.mark.parametrize("hypernet", ["gated", "collapsed", "dhp"])
@pytest.mark.parametrize("proximal", ["targeted", "l1"])
def test_every_form_prunes(generator, pictures, tmp_path, hypernet, proximal):
    options = PruneOptions(steps=12, batch=1, hypernet=hypernet, proximal=proximal)
    document = prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "out", options).document
    assert document["share"] <= 0.5
    assert np.isfinite([point["loss"] for point in document["trajectory"]]).all()


def test_targeted_shrinking_brings_the_doomed_to_zero(generator, pictures, tmp_path):
    document = prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "out", PRUNE).document
    assert document["trajectory"][0]["share"] == pytest.approx(1, abs=0.02)
    assert document["trajectory"][-1]["share"] == pytest.approx(document["share"])


class Killed(BaseException):
    """Stands for a kill: nothing after it runs."""


def _kill_after(monkeypatch, steps: int) -> None:
    """Save after every step, and stop dead after some."""
    monkeypatch.setattr(loops, "_SAVE_EVERY", 0.0)
    save = loops.Loop._save

    def save_then_die(self, step):
        save(self, step)
        if step == steps:
            raise Killed

    monkeypatch.setattr(loops.Loop, "_save", save_then_die)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder, factory=FACTORY).module.state_dict()


def test_stopped_and_resumed_ends_where_it_would_have(generator, pictures, tmp_path, monkeypatch):
    budget, log = Budget.parse("macs=50%"), tmp_path / "metrics.jsonl"
    small = prune(generator, pictures, budget, tmp_path / "whole", PRUNE)
    distil(small.generator, generator, pictures, tmp_path / "trained", DistilOptions(steps=8, batch=1))
    with monkeypatch.context() as context:
        _kill_after(context, 7)
        with pytest.raises(Killed):
            prune(generator, pictures, budget, tmp_path / "part", PRUNE, log=log)
    again = prune(generator, pictures, budget, tmp_path / "part", PRUNE, resume=True, log=log)
    assert again.document == small.document
    with monkeypatch.context() as context:
        _kill_after(context, 5)
        with pytest.raises(Killed):
            distil(again.generator, generator, pictures, tmp_path / "t2", DistilOptions(steps=8, batch=1))
    distil(
        again.generator, generator, pictures, tmp_path / "t2", DistilOptions(steps=8, batch=1), resume=True
    )
    for whole, part in (("whole", "part"), ("trained", "t2")):
        ours, theirs = _weights(tmp_path / whole), _weights(tmp_path / part)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, PRUNE.steps + 1))
    assert not list(tmp_path.glob("*/checkpoint.pt"))


def test_resume_with_other_settings_is_refused(generator, pictures, tmp_path, monkeypatch):
    _kill_after(monkeypatch, 3)
    with pytest.raises(Killed):
        prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "out", PRUNE)
    with pytest.raises(PocketganError, match="budget"):
        prune(generator, pictures, Budget.parse("macs=60%"), tmp_path / "out", PRUNE, resume=True)


def test_output_is_never_overwritten(generator, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("")
    with pytest.raises(PocketganError, match="already holds files"):
        prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "out", PRUNE)


def test_impossible_budget_fails_before_anything_is_written(generator, pictures, tmp_path):
    with pytest.raises(UsageError, match="at least"):
        prune(generator, pictures, Budget.parse("macs=1%"), tmp_path / "out", PRUNE)
    assert not (tmp_path / "out").exists()


def test_distillation_lowers_the_loss(generator, pictures, tmp_path):
    small = prune(generator, pictures, Budget.parse("macs=50%"), tmp_path / "p", PRUNE).generator
    document = distil(small, generator, pictures, tmp_path / "d", DistilOptions(steps=60, batch=2)).document
    assert document["loss_last"] < document["loss_first"]


def test_a_generator_equals_itself(generator, pictures, tmp_path):
    result = evaluate(generator, pictures, tmp_path / "eval", teacher=generator, pictures=1)
    assert [row["psnr"] for row in result.document["images"]] == [None] * 4  # infinite
    assert result.document["ssim_mean"] == pytest.approx(1)
    assert len(list((tmp_path / "eval" / "images").iterdir())) == 4


def test_eval_wants_exactly_one_reference(generator, pictures, tmp_path):
    with pytest.raises(UsageError, match="one reference"):
        evaluate(generator, pictures, tmp_path / "eval")


def test_eval_names_the_missing_partner(generator, pictures, tmp_path):
    write_image(tmp_path / "wanted" / "0.png", np.zeros((32, 32, 3)))
    with pytest.raises(PocketganError, match="no picture named 1"):
        evaluate(generator, pictures, tmp_path / "eval", reference=tmp_path / "wanted")
