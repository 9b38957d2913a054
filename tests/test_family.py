"""A family of networks from one run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from networks import Small
from tiny import write_generator, write_pictures

from compressor.budget import Budget
from compressor.coronet.family import member_name, prune_family
from compressor.coronet.prune import prune
from compressor.cost import count
from compressor.errors import UsageError
from compressor.generators import load
from compressor.options import PruneOptions
from pocketgan.cli import main
from pocketgan.recipe import Data, Recipe
from pocketgan.source import GeneratorSource

QUICK = PruneOptions(steps=4, batch=1, device="cpu")


def chunked() -> torch.nn.Module:
    """A network whose splits are written as chunk, which pruning turns into unequal splits."""

    class Chunked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = Small(channels=24, norm="none")
            self.more = torch.nn.Conv2d(3, 16, 3, padding=1)
            self.last = torch.nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.chunk(self.more(self.inside(x)), 2, dim=1)
            return self.last(torch.cat([right, left], 1))

    torch.manual_seed(0)
    return Chunked()


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("macs=75%,50%,25%,10%", ["macs=75%", "macs=50%", "macs=25%", "macs=10%"]),
        ("params = 400k , 200k", ["params=400k", "params=200k"]),
        ("macs=12.5%,10%", ["macs=12.5%", "macs=10%"]),
        ("macs=50%,params=40%", ["macs=50%,params=40%"]),
        ("macs=50%", ["macs=50%"]),
    ],
)
def test_families_are_told_from_budgets_that_all_hold(text, members):
    assert [budget.text for budget in Budget.parse_family(text)] == members


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs=50%,75%", "must fall"),
        ("macs=50%,50%", "must fall"),
        ("macs=2G,50%", "must fall"),
        ("macs=75%,50%,params=40%", "one metric"),
        ("50%,25%", "cannot be read"),
        ("macs=75%,0%", "cannot be read"),
        ("macs=75%,", "cannot be read"),
    ],
)
def test_impossible_families_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        Budget.parse_family(text)


def test_a_recipe_has_one_budget():
    with pytest.raises(UsageError, match="one network"):
        Recipe(GeneratorSource(Path("x")), Data(Path("y")), "macs=75%,50%")


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_generator(folder / "tiny.pth")
    write_pictures(folder / "pictures")
    return folder


def call(job: Path, out: Path, *words: str) -> Result:
    line = ["prune", str(job / "tiny.pth"), "--images", str(job / "pictures"), "--size", "32x32"]
    return CliRunner().invoke(main, [*line, "--output-dir", str(out), "--json", *words])


def test_the_command_makes_a_family_of_shares_of_the_original(job, tmp_path):
    out = tmp_path / "out"
    result = call(job, out, "--budget", "macs=75%,50%,30%", "--steps", "4", "--round", "2")
    assert result.exit_code == 0, result.output
    whole = count(load(job / "tiny.pth").module, (1, 3, 32, 32)).macs
    documents = json.loads(result.stdout)["family"]
    record = json.loads((out / "family.json").read_text())
    assert record["complete"] and [m["folder"] for m in record["members"]] == [
        "macs-75",
        "macs-50",
        "macs-30",
    ]
    sources = []
    for share, document, member in zip((0.75, 0.5, 0.3), documents, record["members"], strict=True):
        small = load(out / member["folder"])
        macs = count(small.module, (1, 3, 32, 32)).macs
        assert document["original"]["macs"] == whole
        assert 0.97 * share * whole <= macs <= share * whole  # 8 channels are coarse
        assert document["share"] == macs / whole == member["share"]
        assert json.loads((out / member["folder"] / "prune.json").read_text())["share"] == macs / whole
        sources.append(json.loads((out / member["folder"] / "provenance.json").read_text())["source_sha256"])
    assert sources[1:] == [load(out / name).sha256 for name in ("macs-75", "macs-50")]

    before = {path: path.stat().st_mtime_ns for path in out.rglob("weights.safetensors")}
    shutil.rmtree(out / "macs-30")
    again = call(job, out, "--budget", "macs=75%,50%,30%", "--steps", "4", "--round", "2", "--resume")
    assert json.loads(again.stdout)["family"] == documents
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if "macs-30" not in str(path))


def test_an_unreachable_last_member_is_known_before_training(job, tmp_path):
    result = call(job, tmp_path / "out", "--budget", "macs=75%,0.1%", "--steps", "1000000")
    assert result.exit_code == 2 and "cannot be reached" in result.output + (result.stderr or "")
    assert not (tmp_path / "out").exists()


def test_members_continue_where_a_kill_stopped_them(job, tmp_path):
    """Killed within the second member and resumed, the family ends in the same weights."""
    generator = load(job / "tiny.pth", image=None)
    pictures = sorted((job / "pictures").iterdir())
    budgets = Budget.parse_family("macs=75%,50%")

    def family(out: Path, steps: int = 4, resume: bool = False):
        def one(budget, folder, earlier):
            options = PruneOptions(steps=steps if earlier else 4, batch=1, crop=32, device="cpu")
            start = earlier[0] if earlier else generator
            teacher = generator if earlier else None
            return [prune(start, pictures, budget, folder, options, teacher=teacher, resume=True)]

        return prune_family([generator], budgets, out, one, resume=resume)

    whole = family(tmp_path / "whole")
    with pytest.raises(UsageError, match="steps"):
        family(tmp_path / "cut", steps=0)  # dies before the second member
    cut = family(tmp_path / "cut", resume=True)
    assert [r[0].generator.sha256 for r in cut] == [r[0].generator.sha256 for r in whole]


def test_the_original_teaches_every_member(job, tmp_path, monkeypatch):
    from compressor.coronet import prune as module

    taught = []
    inside = module._Search.__init__

    def spy(self, supernet, images, options):
        inside(self, supernet, images, options)
        taught.append((supernet.original.sha256, self.teacher is self.start))

    monkeypatch.setattr(module._Search, "__init__", spy)
    result = call(job, tmp_path / "out", "--budget", "macs=75%,50%", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert taught == [(load(job / "tiny.pth").sha256, True), (load(job / "tiny.pth").sha256, False)]


def test_networks_with_chunks_can_be_pruned_again():
    """The names of resized splits are those of the untouched network, so widths still fit."""
    from compressor.coronet.landing import cost_model, land
    from compressor.coronet.materialise import shrink_spec, shrink_state
    from compressor.generators.spec import GeneratorSpec, ImageFormat
    from compressor.graph import trace
    from compressor.surgery import resize

    spec = GeneratorSpec("custom", {}, ImageFormat(size=(16, 16)))
    module = chunked().eval()
    whole = cost_model(trace(module, (1, 3, 16, 16)), module, "macs")(
        np.ones(trace(module, (1, 3, 16, 16)).classes)
    )
    for share in (0.7, 0.5):
        graph = trace(module, (1, 3, 16, 16))
        cost = cost_model(graph, module, "macs")
        keep = land(np.random.default_rng(0).random(graph.classes), graph, cost, int(share * whole))
        spec = shrink_spec(spec, graph, keep)
        small = resize(chunked(), spec.widths, spec.splits).eval()
        small.load_state_dict(shrink_state(module.state_dict(), module, graph, keep))
        assert count(small, (1, 3, 16, 16)).macs == cost(keep)
        module = small
    assert spec.splits and torch.isfinite(module(torch.rand(1, 3, 16, 16))).all()


def test_folder_names_say_the_budget():
    assert [member_name(b) for b in Budget.parse_family("macs=12.5%,10%")] == ["macs-12.5", "macs-10"]
    assert member_name(Budget.parse("macs=2.5G")) == "macs-2.5G"
