"""The benchmarks of what training costs: that they train what they say, and their figures in closed form."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.omgd import OnlineDistillation, gram, structural_similarity, total_variation
from benchmarks.omgd_cost import _CoroNet, _Plain, totals
from benchmarks.side_by_side import WARM_UP, in_turns, ratio
from compressor.adversarial.fresh import fresh
from compressor.budget import Budget
from compressor.coronet.pix2pix import Pix2PixGame, prune_pix2pix
from compressor.data.images import write_image
from compressor.data.pairs import Pair
from compressor.generators import Generator
from compressor.metrics.fidelity import ssim
from compressor.options import AdversarialOptions

CPU = torch.device("cpu")
OPTIONS = AdversarialOptions(
    epochs=3, epochs_decay=0, search_epochs=2, scratch=True, discriminator_width=4, discriminator_layers=2
)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    draw = np.random.default_rng(0)
    for index in range(2):
        ours = np.kron(draw.random((4, 4, 3)), np.ones((8, 8, 1))).astype(np.float32)
        write_image(tmp_path / "A" / f"{index}.png", ours)
        write_image(tmp_path / "B" / f"{index}.png", 1 - ours)
    return [Pair(tmp_path / "A" / f"{i}.png", tmp_path / "B" / f"{i}.png") for i in range(2)]


def network(width: int = 8) -> Generator:
    return fresh("resnet", {"width": width, "blocks": 1}, size=(32, 32))


def game(pairs: list[Pair]) -> Pix2PixGame:
    return Pix2PixGame(network(), pairs, OPTIONS, "AtoB", 0, CPU)


def equal(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    state = theirs.state_dict()
    return all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())


def test_the_measured_search_ends_in_what_pruning_gives(pairs, tmp_path):
    """4 steps of search and 2 after, as `prune_pix2pix` takes them."""
    result = prune_pix2pix(network(), pairs, Budget.parse("macs=50%"), tmp_path / "out", OPTIONS)
    measured = _CoroNet(game(pairs), network(), "macs=50%", OPTIONS, 4, 0, CPU)
    for step in range(6):
        measured.step(step)
    assert measured.landed == 4
    assert equal(measured.module.eval(), result.generator.module)


def test_online_distillation_trains_its_teacher_as_if_alone(pairs, tmp_path):
    widths = {"block1": (3, 64, 64), "block2": (64, 128, 128), "block3": (128, 256, 256, 256, 256)}
    vgg = {}
    torch.manual_seed(0)
    for block, sizes in widths.items():
        for index, (before, after) in enumerate(pairwise(sizes), 1):
            vgg[f"{block}_conv{index}.weight"] = torch.randn(after, before, 3, 3) / (3 * before**0.5)
            vgg[f"{block}_conv{index}.bias"] = torch.zeros(after)
    save_file(vgg, tmp_path / "vgg.safetensors")
    student = network(4)
    both = OnlineDistillation(
        game(pairs), network(), student, tmp_path / "vgg.safetensors", OPTIONS.learning_rate, CPU
    )
    alone = _Plain(game(pairs), network(), OPTIONS, CPU)
    losses = []
    for _ in range(3):  # always on the same picture; the teacher moves too
        losses.append(both.step(0)["student"])
        alone.step(0)
    assert equal(both.teacher, alone.module)
    assert losses[-1] < losses[0]
    fresh_student = dict(network(4).module.named_parameters())
    moved = [name for name, p in both.student.named_parameters() if not torch.equal(p, fresh_student[name])]
    assert moved == list(fresh_student)


def test_ssim_is_that_of_the_fidelity_metric():
    draw = np.random.default_rng(1)
    a = draw.random((24, 20, 3)).astype(np.float32)
    b = np.clip(a + 0.2 * draw.standard_normal(a.shape), 0, 1).astype(np.float32)
    ours = structural_similarity(*(torch.from_numpy(p.transpose(2, 0, 1))[None] for p in (a, b)))
    assert float(ours) == pytest.approx(ssim(a, b), abs=1e-4)


def test_gram_and_variation_of_known_pictures():
    features = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    assert torch.allclose(gram(features), torch.tensor([[[4.0, 6.0], [6.0, 9.0]]]) / 2)
    ramp = torch.arange(5.0).expand(2, 3, 4, 5)  # rises by 1 at 4 places of each of 4 lines and 3 channels
    assert float(total_variation(ramp)) == 4 * 4 * 3


def test_ways_take_their_steps_in_turns():
    order: list[tuple[str, int]] = []
    ways = {name: lambda step, name=name: order.append((name, step)) for name in "ab"}
    seconds = in_turns(ways, 3, CPU)
    assert order == [(name, step) for step in range(WARM_UP + 3) for name in "ab"]
    assert all(len(s.clock) == len(s.processor) == 3 for s in seconds.values())


def test_ratios_of_known_times():
    plain = [1.0, 1.1, 0.9, 1.0, 5.0]  # the last round was disturbed
    found = ratio([2 * second for second in plain], plain)
    assert [found[key] for key in ("value", "low", "high", "of_means")] == pytest.approx([2.0] * 4)
    both = totals([4.0] * 10, [4.0] * 2 + [1.0] * 8, landed=2)
    assert [both[key] for key in ("value", "low", "high")] == pytest.approx([2.5] * 3)
