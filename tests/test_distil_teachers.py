"""Distillation from teachers of any kind, with its schedules and averaged weights; resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from networks import Small
from safetensors.torch import save_file
from teaching import onnx_file
from test_training import Killed, _kill_after
from torch import nn

from compressor.agd.teachers import FolderTeacher, open_teacher
from compressor.data.images import write_image
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, load, save
from compressor.generators.spec import GeneratorSpec, ImageFormat
from compressor.options import SCHEDULES, DistilOptions
from compressor.training.distil import distil
from compressor.training.schedules import Average, Schedule
from pocketgan.cli import main

FORMAT = ImageFormat(size=(32, 32), multiple=4)
FACTORY = "networks:Small"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    for index in range(3):
        coarse = draw.random((5, 6, 3)).astype(np.float32)
        write_image(tmp_path / "pictures" / f"{index}_real.png", np.kron(coarse, np.ones((8, 8, 1))))
        write_image(tmp_path / "made" / f"{index}_fake.png", np.kron(1 - coarse, np.ones((8, 8, 1))))
    return sorted((tmp_path / "pictures").iterdir())


def generator(folder: Path, seed: int) -> Generator:
    torch.manual_seed(seed)
    save_file(Small().state_dict(), folder / f"{seed}.safetensors")
    return load(folder / f"{seed}.safetensors", factory=FACTORY, image=FORMAT)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder, factory=FACTORY).module.state_dict()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("network", {"cached": True, "ema": 0.9, "schedule": "one-cycle"}),
        ("folder", {"ema": 0.5, "schedule": "agd-st", "learning_rate": 0.01}),
    ],
)
def test_stopped_and_resumed_ends_where_it_would_have(pictures, tmp_path, monkeypatch, cache, kind, settings):
    student = generator(tmp_path, 0)
    teacher = {
        "network": lambda: generator(tmp_path, 1),
        "folder": lambda: FolderTeacher(pictures, tmp_path / "made", FORMAT),
    }[kind]
    options = DistilOptions(steps=4, batch=2, samples=2, **settings)
    whole = distil(student, teacher(), pictures, tmp_path / "whole", options)
    held = {path.name: path.read_bytes() for path in cache.rglob("*.npy")}
    with monkeypatch.context() as context:
        _kill_after(context, 2)
        with pytest.raises(Killed):
            distil(student, teacher(), pictures, tmp_path / "part", options)
    part = distil(student, teacher(), pictures, tmp_path / "part", options, resume=True)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert part.document == whole.document
    assert whole.document["schedule"] == settings["schedule"]
    assert bool(held) == (kind != "folder")
    assert held == {path.name: path.read_bytes() for path in cache.rglob("*.npy")}  # shared, not made anew


def test_a_student_comes_nearer_to_a_folder_of_outputs(pictures, tmp_path):
    teacher = FolderTeacher(pictures, tmp_path / "made", FORMAT)
    options = DistilOptions(steps=25, batch=2, samples=0)
    document = distil(generator(tmp_path, 0), teacher, pictures, tmp_path / "out", options).document
    assert document["loss_last"] < 0.9 * document["loss_first"]


def test_the_average_is_what_is_saved(pictures, tmp_path):
    """One step: the average has kept a tenth of the start, which no result of plain training has."""
    student, teacher = generator(tmp_path, 0), generator(tmp_path, 1)
    plain = distil(student, teacher, pictures, tmp_path / "plain", DistilOptions(steps=1, samples=0))
    averaged = distil(
        student, teacher, pictures, tmp_path / "ema", DistilOptions(steps=1, samples=0, ema=0.99)
    )
    assert averaged.document["loss_last"] == plain.document["loss_last"]
    start, end, kept = (made.module.state_dict() for made in (student, plain.generator, averaged.generator))
    for name, value in start.items():
        assert torch.allclose(kept[name], value + 0.9 * (end[name] - value), atol=1e-6)


def test_the_average_in_closed_form():
    layer = nn.BatchNorm2d(1)
    average = Average(layer, 0.5)
    expected = layer.weight.item()
    for count, value in enumerate((3.0, 5.0, -1.0, 2.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0)):
        nn.init.constant_(layer.weight, value)
        layer.num_batches_tracked.fill_(count)
        average.update(layer)
        keep = min(0.5, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * value
        assert average.values["weight"].item() == pytest.approx(expected)
    assert average.values["num_batches_tracked"].item() == 9
    again = Average(nn.BatchNorm2d(1), 0.5)
    again.load_state_dict(average.state_dict())
    assert again.count == average.count and torch.equal(again.values["weight"], average.values["weight"])


def rates(name: str, steps: int, peak: float | None = None) -> list[float]:
    schedule = Schedule(name, steps, peak)
    return [schedule.rate(step) for step in range(steps)]


def test_published_schedules_scaled_to_the_steps():
    st = rates("agd-st", 400)  # one step an epoch
    assert st[:101] == [0.1] * 101
    assert st[250] == pytest.approx(0.05) and st[399] == pytest.approx(0.1 / 300)
    for name, first in (("agd-sr-a", 2e-4), ("agd-sr-b", 1e-4)):
        found = rates(name, 100)
        assert found == [first] * 25 + [first / 2] * 25 + [first / 4] * 25 + [first / 8] * 25
    sgd = Schedule("agd-st", 10).optimiser([nn.Parameter(torch.zeros(1))])
    (group,) = sgd.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.5, 5e-4)


def test_one_cycle_is_torchs():
    """Rates and momenta equal torch.optim.lr_scheduler.OneCycleLR's."""
    steps, parameter = 40, nn.Parameter(torch.zeros(1))
    schedule = Schedule("one-cycle", steps, 0.01)
    ours = schedule.optimiser([parameter])
    theirs = torch.optim.Adam([parameter], 0.01)
    judge = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.01, total_steps=steps)
    for step in range(steps):
        schedule.set(ours, step)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6)
        assert ours.param_groups[0]["betas"][0] == pytest.approx(theirs.param_groups[0]["betas"][0])
        theirs.step()
        if step < steps - 1:
            judge.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_every_schedule_is_positive_and_never_above_its_peak(name, steps):
    found = rates(name, steps, 0.3)
    assert all(0 < rate <= 0.3 + 1e-12 for rate in found)
    assert max(found) > 0.01


def test_only_the_published_ones_clip():
    for name in SCHEDULES:
        parameter = nn.Parameter(torch.zeros(4))
        parameter.grad = torch.full((4,), 100.0)
        schedule = Schedule(name, 10)
        schedule.set(schedule.optimiser([parameter]), 0)
        assert parameter.grad.norm().item() == pytest.approx(5.0 if name.startswith("agd") else 200.0)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"schedule": "cosin"}, "schedule"),
        ({"loss": "style"}, "vgg16"),
        ({"loss": "l2"}, "loss"),
        ({"ema": 1.0}, "ema"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, word):
    with pytest.raises(UsageError, match=word):
        DistilOptions(**settings)


def test_a_teacher_of_another_scale_is_refused(pictures, tmp_path):
    teacher = open_teacher(onnx_file(tmp_path / "up.onnx", upscale=True))
    with pytest.raises(PocketganError, match="scale"):
        distil(generator(tmp_path, 0), teacher, pictures, tmp_path / "out", DistilOptions(steps=1))


def call(*arguments: object) -> tuple[int, dict[str, object]]:
    found = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    return found.exit_code, json.loads(found.stdout)


def test_the_command_takes_each_kind(pictures, tmp_path):
    student = generator(tmp_path, 0)
    onnx_file(tmp_path / "teacher.onnx")
    common = ("--images", tmp_path / "pictures", "--factory", FACTORY, "--size", "32x32", "--multiple", "4")
    common = (*common, "--steps", "2", "--samples", "0")
    for number, teacher in enumerate(
        (
            ("--teacher", tmp_path / "teacher.onnx", "--schedule", "one-cycle", "--ema", "0.9"),
            ("--teacher-outputs", tmp_path / "made"),
            ("--teacher", FACTORY),
            ("--teacher", student.path, "--cached"),
        )
    ):
        out = tmp_path / f"out{number}"
        code, document = call("distill", student.path, *teacher, *common, "--output-dir", out)
        assert code == 0, document
        assert (out / "weights.safetensors").exists()
        assert bool(document["notes"]) == (number in (0, 2))  # their ranges are assumed
    for teacher in ((), ("--teacher", student.path, "--teacher-outputs", tmp_path / "made")):
        code, document = call("distill", student.path, *teacher, *common, "--output-dir", tmp_path / "none")
        assert code == 2 and "one teacher" in str(document["error"])


def test_the_factory_is_the_teachers_where_the_student_needs_none(pictures, tmp_path):
    """As after a search: a student of a family we know learns from a network of the user's own."""
    spec = GeneratorSpec("resnet", {"width": 4, "blocks": 1}, FORMAT)
    save(spec, spec.build(), tmp_path / "student", {})
    teacher = generator(tmp_path, 0).path
    common = ("--images", tmp_path / "pictures", "--factory", FACTORY, "--size", "32x32", "--multiple", "4")
    line = ("distill", tmp_path / "student", "--teacher", teacher, *common, "--output-dir", tmp_path / "out")
    code, document = call(*line, "--steps", "2", "--samples", "0")
    assert code == 0, document
    code, document = call("eval", tmp_path / "out", "--teacher", teacher, *common)
    assert code == 0, document
    code, document = call("eval", tmp_path / "out", *common, "--reference", tmp_path / "pictures")
    assert code == 2 and "needs no factory" in str(document["error"])
