"""Discriminator, losses, pool, schedule, fresh weights, and pictures in pairs, against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.adversarial.discriminator import PatchDiscriminator, check_size, receptive_field
from compressor.adversarial.fresh import fresh
from compressor.adversarial.initialise import initialise, initialise_hypernetwork
from compressor.adversarial.losses import adversarial, discriminator_loss
from compressor.adversarial.pool import ImagePool
from compressor.adversarial.schedule import linear
from compressor.coronet.hypernet import FORMS, HyperNetwork
from compressor.data.images import write_image
from compressor.data.pairs import Pair, PairedBatches, UnpairedBatches, find_pairs, prepare
from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat
from compressor.graph import trace

FORMAT = ImageFormat(size=(32, 32), multiple=4)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_discriminators_have_their_published_size():
    """Upstream prints 2.769 M for Pix2Pix (6 channels, batch norm) and 2.765 M for CycleGAN."""
    assert parameters(PatchDiscriminator(6)) == 2_768_705
    assert parameters(PatchDiscriminator(3, norm="instance")) == 2_764_737


def test_discriminator_has_upstreams_keys_and_scores():
    module = PatchDiscriminator(6)
    weights = {name for name in module.state_dict() if name.endswith("weight")}
    assert weights == {f"model.{i}.weight" for i in (0, 2, 3, 5, 6, 8, 9, 11)}
    biases = {name for name in module.state_dict() if name.endswith("bias")}
    assert biases == {f"model.{i}.bias" for i in (0, 3, 6, 9, 11)}
    assert module(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_receptive_field_is_where_the_gradient_reaches(layers, side):
    torch.manual_seed(0)
    module = PatchDiscriminator(1, width=2, layers=layers).eval()
    picture = torch.rand(1, 1, 256, 256, requires_grad=True)
    scores = module(picture)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows, columns = picture.grad[0, 0].abs().nonzero().T
    assert int(rows.max() - rows.min()) + 1 == int(columns.max() - columns.min()) + 1 == side
    assert receptive_field(layers) == side


@pytest.mark.parametrize(("side", "layers"), [(16, 2), (32, 3), (64, 4)])
def test_smallest_picture_can_be_scored_and_a_smaller_one_is_refused(side, layers):
    check_size((side, side), layers)
    for norm in ("batch", "instance"):
        assert PatchDiscriminator(3, 4, layers, norm).train()(torch.rand(1, 3, side, side)).isfinite().all()
    with pytest.raises(UsageError, match="too small"):
        check_size((side - 1, side), layers)


def test_adversarial_losses_are_their_closed_forms():
    scores = torch.tensor([-2.0, 0.0, 3.0])
    softplus = [math.log1p(math.exp(x)) for x in (-2.0, 0.0, 3.0)]
    assert adversarial(scores, False, "vanilla").item() == pytest.approx(np.mean(softplus))
    assert adversarial(scores, True, "vanilla").item() == pytest.approx(np.mean(softplus) - 1 / 3)
    assert adversarial(scores, True, "lsgan").item() == pytest.approx((9 + 1 + 4) / 3)
    assert adversarial(scores, False, "lsgan").item() == pytest.approx((4 + 0 + 9) / 3)
    undecided = torch.zeros(4)
    assert discriminator_loss(undecided, undecided, "vanilla").item() == pytest.approx(math.log(2))
    assert discriminator_loss(undecided, undecided, "lsgan").item() == pytest.approx(0.5)


def numbered_picture(number: int) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), float(number))


def test_pool_gives_back_new_pictures_until_full_then_old_ones_half_of_the_time():
    pool = ImagePool(50, seed=3)
    given = [int(pool(numbered_picture(i), i)) for i in range(1050)]
    assert given[:50] == list(range(50))
    old = [i - shown for i, shown in enumerate(given) if shown != i]
    assert all(age > 0 for age in old)
    assert len(old) == pytest.approx(500, abs=60)  # binomial: 4 standard deviations
    assert len(set(given[50:])) == 1000  # a picture taken out was replaced
    assert len(pool.images) == 50


def test_pool_depends_on_its_pictures_seed_and_step_alone():
    whole, first = ImagePool(5, seed=1), ImagePool(5, seed=1)
    expected = [int(whole(numbered_picture(i), i)) for i in range(60)]
    [first(numbered_picture(i), i) for i in range(30)]
    second = ImagePool(5, seed=1)
    second.load_state_dict(first.state_dict())
    assert [int(second(numbered_picture(i), i)) for i in range(30, 60)] == expected[30:]


def test_no_pool_changes_nothing():
    picture = torch.rand(2, 3, 4, 4)
    assert ImagePool(0)(picture, 0) is picture


def test_learning_rate_is_constant_then_falls_linearly():
    rates = [linear(epoch, 100, 100, 2e-4) for epoch in range(200)]
    assert rates[:100] == [2e-4] * 100
    assert rates[100] == pytest.approx(2e-4 * 100 / 101) and rates[199] == pytest.approx(2e-4 / 101)
    assert np.diff(rates[99:]) == pytest.approx(-2e-4 / 101)


def test_fresh_weights_are_drawn_as_published():
    module = initialise(PatchDiscriminator(6), seed=0)
    assert module.model[5].weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert abs(module.model[5].weight.mean().item()) < 1e-4
    assert module.model[9].weight.mean().item() == pytest.approx(1, abs=0.005)
    assert not any(p.any() for name, p in module.named_parameters() if name.endswith("bias"))
    again, other = initialise(PatchDiscriminator(6), seed=0), initialise(PatchDiscriminator(6), seed=1)
    assert torch.equal(again.model[2].weight, module.model[2].weight)
    assert not torch.equal(other.model[2].weight, module.model[2].weight)


@pytest.mark.parametrize("form", FORMS)
def test_published_start_makes_kernels_of_variance_one_over_fan_in(form):
    generator = fresh("resnet", {"width": 32, "blocks": 1})
    graph = trace(generator.module, (1, 3, 32, 32))
    hyper = HyperNetwork(generator.module, graph, np.ones(graph.classes), form)
    initialise_hypernetwork(hyper, graph, seed=0)
    assert hyper.latent.std().item() == pytest.approx(1, abs=0.1)
    with torch.no_grad():
        hyper.latent.fill_(1.0)
        weight = hyper.weights()["model.10.conv_block.1.weight"]  # 128 channels, 3x3
    assert weight.std().item() == pytest.approx((128 * 9) ** -0.5, rel=0.02)
    assert abs(weight.mean().item()) < 1e-3


def test_fresh_generator_says_what_it_is():
    generator = fresh("unet", {"depth": 5, "width": 4})
    assert generator.spec.image.size == (32, 32) and generator.spec.arguments["norm"] == "batch"
    assert fresh("unet", {"depth": 5, "width": 4}).sha256 == generator.sha256
    assert fresh("unet", {"depth": 5, "width": 4}, seed=1).sha256 != generator.sha256
    with pytest.raises(UsageError, match="family"):
        fresh("vae", {})
    with pytest.raises(PocketganError):
        fresh("unet", {"colour": 3})


def picture(seed: int, height: int = 40, width: int = 40) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((height // 8, width // 8, 3))
    return np.kron(coarse, np.ones((8, 8, 1))).astype(np.float32)


@pytest.fixture
def negatives(tmp_path: Path) -> Path:
    """Side-by-side pairs in which B is the negative of A."""
    for index in range(5):
        ours = picture(index)
        write_image(tmp_path / "ab" / f"{index}.png", np.concatenate([ours, 1 - ours], 1))
    return tmp_path / "ab"


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
def test_both_pictures_of_a_pair_are_cut_and_mirrored_alike(negatives, direction):
    draw = prepare(FORMAT, crop=None, load=None, batch=2, seed=0)
    assert draw.load == (36, 36)
    batches = PairedBatches(find_pairs(negatives), FORMAT, draw, direction)
    for step in range(4):
        inputs, targets = batches(step)
        assert inputs.shape == targets.shape == (2, 3, 32, 32)
        assert torch.allclose(inputs, -targets, atol=0.02)
        assert inputs.std() > 0.2


def test_direction_changes_sides(negatives):
    draw = prepare(FORMAT, crop=None, load=None, batch=1, seed=0)
    forth, back = (PairedBatches(find_pairs(negatives), FORMAT, draw, d)(0) for d in ("AtoB", "BtoA"))
    assert torch.equal(forth[0], back[1]) and torch.equal(forth[1], back[0])
    with pytest.raises(UsageError, match="direction"):
        PairedBatches(find_pairs(negatives), FORMAT, draw, "CtoD")


def test_batches_depend_on_seed_and_step_alone(negatives):
    def batch(seed: int, step: int) -> torch.Tensor:
        draw = prepare(FORMAT, crop=None, load=None, batch=1, seed=seed)
        return PairedBatches(find_pairs(negatives), FORMAT, draw)(step)[0]

    assert torch.equal(batch(0, 7), batch(0, 7))
    assert not torch.equal(batch(0, 7), batch(0, 8))
    assert not torch.equal(batch(0, 7), batch(1, 7))


def test_every_epoch_shows_every_pair_once(tmp_path):
    for index in range(6):
        write_image(tmp_path / f"{index}_real_A.png", np.full((16, 16, 3), index / 10))
        write_image(tmp_path / f"{index}_real_B.png", np.zeros((16, 16, 3)))
    draw = prepare(FORMAT, crop=16, load=16, batch=2, seed=0)
    batches = PairedBatches(find_pairs(tmp_path), FORMAT, draw)
    assert batches.epoch == 3
    orders = [
        [round((x.mean().item() + 1) * 5) for i in range(3) for x in batches(3 * e + i)[0]] for e in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(6)) and orders[0] != orders[1]


def test_pairs_by_folder_and_by_mark_are_the_same(tmp_path):
    for index in range(3):
        for side in "AB":
            write_image(tmp_path / "folders" / side / f"{index}.png", picture(index))
            write_image(tmp_path / "marks" / f"{index}_real_{side}.png", picture(index))
    write_image(tmp_path / "marks" / "0_fake_B.png", picture(9))
    pairs = find_pairs(tmp_path / "folders")
    assert pairs == find_pairs(tmp_path / "folders" / "A", tmp_path / "folders" / "B")
    assert [pair.a.stem for pair in pairs] == ["0", "1", "2"]
    marked = find_pairs(tmp_path / "marks")
    assert [(pair.a.stem, pair.b.stem) for pair in marked] == [
        (f"{i}_real_A", f"{i}_real_B") for i in range(3)
    ]


def test_real_pairs_are_found(shared_data):
    pairs = find_pairs(shared_data / "pix2pix" / "facades")
    assert len(pairs) == 40 and all(pair.b is not None for pair in pairs)


@pytest.mark.parametrize("lonely", ["A", "B"])
def test_a_picture_without_its_partner_is_named(tmp_path, lonely):
    for side in "AB":
        write_image(tmp_path / f"1_real_{side}.png", picture(0))
    write_image(tmp_path / f"2_real_{lonely}.png", picture(0))
    with pytest.raises(PocketganError, match=f"2_real_{lonely}.png has no partner"):
        find_pairs(tmp_path)


def test_ordinary_pictures_are_not_taken_for_pairs(tmp_path):
    write_image(tmp_path / "a.png", picture(0))
    with pytest.raises(PocketganError, match="side by side"):
        find_pairs(tmp_path)


def test_sizes_that_do_not_suit_are_refused():
    with pytest.raises(UsageError, match="multiples of 4"):
        prepare(FORMAT, crop=30, load=None, batch=1, seed=0)
    with pytest.raises(UsageError, match="smaller than crop"):
        prepare(FORMAT, crop=32, load=30, batch=1, seed=0)


def test_unpaired_pictures_are_drawn_from_their_own_sets(tmp_path):
    for index in range(3):
        write_image(tmp_path / "a" / f"{index}.png", np.full((16, 16, 3), 0.1))
    for index in range(5):
        write_image(tmp_path / "b" / f"{index}.png", np.full((16, 16, 3), 0.9))
    a, b = (sorted((tmp_path / side).iterdir()) for side in "ab")
    draw = prepare(FORMAT, crop=16, load=None, batch=1, seed=0)
    batches = UnpairedBatches(a, b, (3, 1), (-1, 1), draw)
    assert batches.epoch == 5
    ours, theirs = batches(2)
    assert ours.shape == (1, 3, 16, 16) and theirs.shape == (1, 1, 16, 16)
    assert ours.max() < 0 < theirs.min()
    with pytest.raises(PocketganError, match="no pictures"):
        UnpairedBatches([], b, (3, 3), (-1, 1), draw)


def test_a_pair_is_read_once_for_both_halves(negatives):
    assert find_pairs(negatives)[0] == Pair(negatives / "0.png", None)
