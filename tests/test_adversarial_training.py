"""CoroNet on Pix2Pix and CycleGAN from end to end, on small pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import Killed, _kill_after

from compressor.adversarial.discriminator import PatchDiscriminator
from compressor.adversarial.fresh import fresh
from compressor.budget import Budget
from compressor.coronet.cyclegan import CycleGANResult, prune_cyclegan
from compressor.coronet.phases import Small, _start
from compressor.coronet.pix2pix import prune_pix2pix
from compressor.coronet.prune import PruneResult
from compressor.coronet.supernet import Supernet
from compressor.data.images import write_image
from compressor.data.pairs import Pair
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, load, save
from compressor.options import AdversarialOptions

# 4 pictures: 12 steps of search, 20 in all.
OPTIONS = AdversarialOptions(
    epochs=3,
    epochs_decay=2,
    search_epochs=3,
    scratch=True,
    discriminator_width=4,
    discriminator_layers=2,
    check_every=1,
    pool=3,
)
HALF = Budget.parse("macs=50%")


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    draw = np.random.default_rng(0)
    for index in range(4):
        ours = np.kron(draw.random((4, 4, 3)), np.ones((8, 8, 1))).astype(np.float32)
        write_image(tmp_path / "A" / f"{index}.png", ours)
        write_image(tmp_path / "B" / f"{index}.png", 1 - ours)
    return [Pair(tmp_path / "A" / f"{i}.png", tmp_path / "B" / f"{i}.png") for i in range(4)]


def resnet(seed: int = 0) -> Generator:
    return fresh("resnet", {"width": 8, "blocks": 2}, seed=seed, size=(32, 32))


def pix2pix(pairs: list[Pair], output: Path, options: AdversarialOptions = OPTIONS, **more) -> PruneResult:
    return prune_pix2pix(
        more.pop("generator", resnet()), pairs, more.pop("budget", HALF), output, options, **more
    )


def cyclegan(
    pairs: list[Pair], output: Path, options: AdversarialOptions = OPTIONS, **more
) -> CycleGANResult:
    a, b = [pair.a for pair in pairs], [pair.b for pair in pairs]
    return prune_cyclegan(resnet(0), resnet(1), a, b, more.pop("budget", HALF), output, options, **more)


@pytest.mark.parametrize("text", ["macs=50%", "macs=25%", "params=40%", "params=50%,macs=50%"])
def test_pix2pix_from_scratch_lands_and_gives_a_model_folder(pairs, tmp_path, text):
    document = pix2pix(pairs, tmp_path / "out", budget=Budget.parse(text)).document
    assert document["budget"]["asked"] == text
    asked = document["budget"]
    targets = asked.get("targets", {asked["metric"]: asked["target"]})
    assert len(targets) == text.count("=")
    assert 0.97 <= max(document["reached"][metric] / most for metric, most in targets.items()) <= 1
    assert [point["phase"] for point in document["trajectory"]] == ["search"] * 12 + ["train"] * 8
    again = load(tmp_path / "out")
    assert sum(p.numel() for p in again.module.parameters()) == document["reached"]["parameters"]
    assert again.module(torch.rand(1, 3, 32, 32)).isfinite().all()
    from safetensors.torch import load_file

    PatchDiscriminator(6, 4, 2).load_state_dict(load_file(tmp_path / "out" / "discriminator.safetensors"))


@pytest.mark.parametrize("hypernet", ["gated", "collapsed", "dhp"])
@pytest.mark.parametrize("proximal", ["targeted", "l1"])
def test_every_form_prunes_a_unet(pairs, tmp_path, hypernet, proximal):
    generator = fresh("unet", {"depth": 4, "width": 6}, size=(32, 32))
    start = "dhp" if proximal == "l1" else "plain"
    options = replace(OPTIONS, hypernet=hypernet, proximal=proximal, start=start, gan="lsgan")
    document = pix2pix(pairs, tmp_path / "out", options, generator=generator).document
    assert 0.45 < document["share"] <= 0.5
    assert np.isfinite([point["loss"] for point in document["trajectory"]]).all()


def test_pix2pix_learns_a_negative(pairs, tmp_path):
    """The L1 distance to the wanted pictures falls far below that of grey."""
    options = replace(
        OPTIONS, epochs=40, epochs_decay=20, search_epochs=20, learning_rate=2e-3, crop=32, load=32
    )
    trajectory = pix2pix(pairs, tmp_path / "out", options).document["trajectory"]
    grey = 0.5  # mean |x| of x uniform in [-1, 1]
    assert np.mean([point["l1"] for point in trajectory[-10:]]) < 0.5 * grey


def test_a_plain_start_makes_the_networks_own_weights(pairs, tmp_path):
    """The search's first pictures are those of the fresh generator; the published start's are not."""
    picture = torch.rand(1, 3, 32, 32)
    for start in ("plain", "dhp"):
        net = Supernet(
            resnet(), HALF, replace(OPTIONS, start=start).search(4), seed=0, device=torch.device("cpu")
        )
        _start(net, "generator", None, None, replace(OPTIONS, start=start), 0)
        with torch.no_grad():
            same_picture = torch.allclose(net.ready()(picture), resnet().module(picture), atol=1e-5)
        assert same_picture == (start == "plain")
        assert net.scores().std() > 0.2
    document = pix2pix(pairs, tmp_path / "out", replace(OPTIONS, start="plain")).document
    assert 0.48 < document["share"] <= 0.5


def test_the_whole_schedule_again_after_pruning(pairs, tmp_path):
    document = pix2pix(pairs, tmp_path / "out", replace(OPTIONS, after="full")).document
    assert document["steps"] == 12 and document["steps_in_all"] == 32
    assert pix2pix(pairs, tmp_path / "two").document["steps_in_all"] == 20


def test_trained_generator_starts_where_it_was(pairs, tmp_path):
    """With a checkpoint, the first step paints what the original paints: distillation is nothing then."""
    first = pix2pix(pairs, tmp_path / "first").generator
    save(first.spec, first.module, tmp_path / "trained", {})
    options = replace(OPTIONS, scratch=False, distillation=1e4, l1=0.0)
    loaded = load(tmp_path / "trained")
    document = pix2pix(
        pairs, tmp_path / "out", options, generator=loaded, budget=Budget.parse("macs=70%")
    ).document
    losses = [point["loss"] for point in document["trajectory"]]
    assert losses[0] < 5 < max(losses)  # the adversarial loss alone is about log 2
    assert document["share"] <= 0.7


def test_cyclegan_from_scratch_prunes_both(pairs, tmp_path):
    result = cyclegan(pairs, tmp_path / "out", budget=Budget.parse("macs=25%"), budget_back=HALF)
    assert 0.24 < result.forth.document["share"] <= 0.25
    assert 0.48 < result.back.document["share"] <= 0.5
    for name in ("A_to_B", "B_to_A"):
        assert load(tmp_path / "out" / name).module(torch.rand(1, 3, 32, 32)).isfinite().all()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "A_to_B", "B_to_A", "discriminator_A.safetensors", "discriminator_B.safetensors",
    }  # fmt: skip


def test_masks_are_frozen_while_the_other_lags(pairs, tmp_path, monkeypatch):
    seen: dict[int, list[tuple[int, np.ndarray | None, float]]] = {}
    shrink = Supernet.shrink

    def watched(self, step):
        share = shrink(self, step)
        seen.setdefault(id(self), []).append((step, None if self.keep is None else self.keep.copy(), share))
        return share

    monkeypatch.setattr(Supernet, "shrink", watched)
    options = replace(OPTIONS, proximal="l1", shrink=0.08, epochs=20, search_epochs=10)
    result = cyclegan(pairs, tmp_path / "out", options, budget=Budget.parse("macs=80%"), budget_back=HALF)
    first, last = result.forth.document["steps"], result.back.document["steps"]
    assert 0 < first < last < 40  # both stopped on their own, one well before the other
    watched_forth = next(iter(seen.values()))
    frozen = [(keep, share) for step, keep, share in watched_forth if step >= first]
    assert len(frozen) == last - first
    assert all(np.array_equal(keep, frozen[0][0]) for keep, _ in frozen)
    assert {share for _, share in frozen} == {result.forth.document["share"]}
    assert all(keep is None for step, keep, _ in watched_forth if step < first)


def test_materialising_changes_nothing_that_is_painted(pairs, tmp_path, monkeypatch):
    """A landed supernet and the small network made of it paint the same."""
    apart = []
    take = Small.take

    def compared(self, trajectory):
        before = {}
        picture = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            before = {name: net.ready()(picture) for name, net in self.supernets.items()}
            take(self, trajectory)
            apart.extend(
                float((module(picture) - before[n]).abs().max()) for n, module in self.modules.items()
            )

    monkeypatch.setattr(Small, "take", compared)
    cyclegan(pairs, tmp_path / "out")
    assert len(apart) == 2 and max(apart) < 1e-5


def same(ours: Path, theirs: Path) -> bool:
    a, b = load(ours).module.state_dict(), load(theirs).module.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("step", [5, 12, 13, 20])  # in the search, at both ends of it, at the very end
@pytest.mark.parametrize("after", ["remaining", "full"])
def test_pix2pix_stopped_and_resumed_ends_where_it_would_have(pairs, tmp_path, monkeypatch, step, after):
    options, log = replace(OPTIONS, after=after), tmp_path / "metrics.jsonl"
    whole = pix2pix(pairs, tmp_path / "whole", options)
    with monkeypatch.context() as context:
        _kill_after(context, step)
        with pytest.raises(Killed):
            pix2pix(pairs, tmp_path / "part", options, log=log)
    again = pix2pix(pairs, tmp_path / "part", options, resume=True, log=log)
    assert again.document == whole.document
    assert same(tmp_path / "whole", tmp_path / "part")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == list(range(1, whole.document["steps_in_all"] + 1))
    assert not list(tmp_path.glob("part/*.pt"))
    assert pix2pix(pairs, tmp_path / "part", options, resume=True).document == whole.document


@pytest.mark.parametrize("step", [7, 16])
def test_cyclegan_stopped_and_resumed_ends_where_it_would_have(pairs, tmp_path, monkeypatch, step):
    cyclegan(pairs, tmp_path / "whole")
    with monkeypatch.context() as context:
        _kill_after(context, step)
        with pytest.raises(Killed):
            cyclegan(pairs, tmp_path / "part")
    cyclegan(pairs, tmp_path / "part", resume=True)
    for name in ("A_to_B", "B_to_A"):
        assert same(tmp_path / "whole" / name, tmp_path / "part" / name)


def test_widths_are_multiples_where_asked(pairs, tmp_path):
    generator = fresh("resnet", {"width": 16, "blocks": 2}, size=(32, 32))
    document = pix2pix(pairs, tmp_path / "out", replace(OPTIONS, round=4), generator=generator).document
    assert 0.99 <= document["share"] / 0.5 <= 1
    assert all(layer["out"] % 4 == 0 or layer["out"] == layer["out_before"] for layer in document["layers"])


def test_what_contradicts_itself_is_refused(pairs, tmp_path):
    with pytest.raises(UsageError, match="search_epochs"):
        AdversarialOptions(epochs=2, epochs_decay=1, search_epochs=3)
    with pytest.raises(UsageError, match="distillation"):
        AdversarialOptions(scratch=True, distillation=1.0)
    with pytest.raises(UsageError, match="too small"):
        pix2pix(pairs, tmp_path / "out", replace(OPTIONS, crop=16, discriminator_layers=3))
    with pytest.raises(UsageError, match="at least"):
        cyclegan(pairs, tmp_path / "out", budget_back=Budget.parse("macs=1%"))
    a, b = [pair.a for pair in pairs], [pair.b for pair in pairs]
    grey = fresh("resnet", {"width": 8, "blocks": 1, "output_channels": 1}, size=(32, 32))
    with pytest.raises(UsageError, match="second generator"):
        prune_cyclegan(grey, resnet(), a, b, HALF, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_resume_with_other_settings_is_refused(pairs, tmp_path, monkeypatch):
    _kill_after(monkeypatch, 16)
    with pytest.raises(Killed):
        pix2pix(pairs, tmp_path / "out")
    with pytest.raises(PocketganError, match="l1"):
        pix2pix(pairs, tmp_path / "out", replace(OPTIONS, l1=10.0), resume=True)
