"""Precision, memory layout, micro-batches and compiling: the same training, run in other ways."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import two_processes
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

from compressor.options import AdversarialOptions, DistilOptions, PruneOptions
from compressor.training.engine import Engine
from pocketgan.cli import main
from pocketgan.recipe import read_recipe

CPU = torch.device("cpu")
WAYS = {
    "accumulate": {"accumulate": 2},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16"},
    "all": {"accumulate": 2, "channels_last": True, "precision": "bf16"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a generator, as in tests/test_processes.py, and what is made of them in the usual way."""
    folder = tmp_path_factory.mktemp("engine")
    two_processes.write_inputs(folder)
    (folder / "student").symlink_to(folder / "usual" / "prune")
    with pytest.MonkeyPatch.context() as patched:
        two_processes.calm(patched.setattr)
        for name, job in two_processes.JOBS.items():
            job(folder, folder / "usual" / name)
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job", ["prune", "distil", "pix2pix"])
def test_other_ways_lead_to_the_same_weights(data, tmp_path, monkeypatch, way, job):
    two_processes.calm(monkeypatch.setattr)
    for name in ("PRUNE", "DISTIL", "GAME"):
        monkeypatch.setattr(two_processes, name, replace(getattr(two_processes, name), **WAYS[way]))
    two_processes.JOBS[job](data, tmp_path / "out")
    theirs = load_file(data / "usual" / job / "weights.safetensors")
    ours = load_file(tmp_path / "out" / "weights.safetensors")
    assert ours.keys() == theirs.keys()
    apart = max(
        float((ours[name] - theirs[name]).abs().max())
        for name in ours
        if ours[name].shape == theirs[name].shape
    )
    if job == "pix2pix" and "accumulate" in WAYS[way]:  # its discriminator's batch norm sees micro-batches
        assert apart < 5e-3
    elif "precision" in WAYS[way]:
        assert 0 < apart < 2e-2  # bfloat16 keeps 8 bits, and another channel may stay
    else:
        assert apart < 1e-5


def test_cyclegan_in_micro_batches_plays_the_same_game(data, tmp_path, monkeypatch):
    """Its first steps, before its L1 distances have blown up rounding errors; the pool sees whole batches."""
    two_processes.calm(monkeypatch.setattr)
    monkeypatch.setattr(two_processes, "GAME", replace(two_processes.GAME, accumulate=2))
    two_processes.job_cyclegan(data, tmp_path / "out")
    theirs, ours = (
        json.loads((folder / "A_to_B" / "prune.json").read_text())["trajectory"][:4]
        for folder in (data / "usual" / "cyclegan", tmp_path / "out")
    )
    for here, there in zip(ours, theirs, strict=True):
        assert here.pop("phase") == there.pop("phase")
        assert here == pytest.approx(there, rel=1e-4, abs=1e-5)


def test_bf16_convolves_in_bf16_and_keeps_weights_in_fp32():
    seen = []

    class Watched(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = super().forward(x)
            seen.append(made.dtype)
            return made

    module = Watched(3, 3, 3)
    output = Engine(PruneOptions(precision="bf16"), CPU).forward(module)(torch.rand(1, 3, 8, 8))
    output.sum().backward()
    assert seen == [torch.bfloat16]
    assert output.dtype == module.weight.dtype == module.weight.grad.dtype == torch.float32


def test_channels_last_reaches_pictures_and_made_weights():
    seen = []

    class Watched(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.extend(t.is_contiguous(memory_format=torch.channels_last) for t in (x, self.weight))
            return super().forward(x)

    module = Watched(8, 8, 3)
    engine = Engine(PruneOptions(channels_last=True), CPU)
    engine.forward(module, lambda: {"weight": module.weight.detach() * 2})(
        engine.parts(torch.rand(2, 8, 8, 8))[0][0]
    )
    engine.forward(engine.arrange(module))(engine.parts(torch.rand(2, 8, 8, 8))[0][0])
    assert seen == [True] * 4


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.only(x))


def test_compiling_changes_neither_pictures_nor_gradients_nor_names(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    module, picture = Tiny(), torch.rand(1, 3, 8, 8)

    def made() -> dict[str, torch.Tensor]:
        return {"only.weight": module.only.weight * 2}

    gradients = []
    for compiled in (False, True):
        forward = Engine(PruneOptions(compile=compiled), CPU).forward(module, made)
        output = forward(picture)
        (gradient,) = torch.autograd.grad(output.sum(), module.only.weight)
        gradients.append((output, gradient))
    assert forward._run.fast is not None
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-5)
    assert list(module.state_dict()) == ["only.weight", "only.bias"]


def test_without_a_compiler_training_goes_on_with_a_note(data, tmp_path, monkeypatch, capsys):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(tmp_path / "no_such_compiler")))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    module, picture = Tiny(), torch.rand(1, 3, 8, 8)
    torch._dynamo.reset()
    forward = Engine(PruneOptions(compile=True), CPU).forward(module)
    assert torch.equal(forward(picture), module(picture)) and torch.equal(forward(picture), module(picture))
    assert capsys.readouterr().err.count("torch.compile cannot be used here; training goes on without") == 1


def test_commands_and_recipes_know_the_settings(data, tmp_path):
    words = ["--accumulate", "2", "--channels-last", "--precision", "bf16", "--compile"]
    for command in ("prune", "distill"):
        told = CliRunner().invoke(main, [command, "--help"]).output
        assert all(word in told for word in words if word.startswith("--"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "generator:\n  checkpoint: a.pth\ndata:\n  images: b\nbudget: macs=50%\n"
        "prune:\n  precision: bf16\n  channels_last: true\ndistill:\n  accumulate: 2\n"
    )
    read = read_recipe(recipe)
    assert read.prune == PruneOptions(precision="bf16", channels_last=True)
    assert read.distill == DistilOptions(accumulate=2)
    search = AdversarialOptions(batch=2, accumulate=2, precision="bf16", channels_last=True).search(10)
    assert (search.accumulate, search.precision, search.channels_last) == (2, "bf16", True)
