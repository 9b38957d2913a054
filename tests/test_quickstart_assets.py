"""The quickstart's generator, its photographs and the painting it learnt."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

import pocketgan.quickstart as quickstart
from compressor.data.images import read_image, to_pixels, to_tensor
from compressor.metrics.fidelity import psnr, ssim
from pocketgan.quickstart.gather import FREE, _copyrights
from pocketgan.quickstart.painting import INK, TONES, ink, paint, tones, washes
from pocketgan.quickstart.photographs import HELD_OUT, SIDE, TRAIN, cut, write_photographs

torch = pytest.importorskip("torch")

FOLDER = Path(quickstart.__file__).parent
GENERATOR = FOLDER / "generator"
SQUARES = {name: HELD_OUT[name] for name in ("cat", "coffee_cup")}


@pytest.fixture(scope="module")
def generator():
    from compressor.generators import load

    return load(GENERATOR)


def draw(generator, photograph: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return to_pixels(generator.module(to_tensor(photograph, (-1.0, 1.0))), (-1.0, 1.0))


def best_colour_table(photograph: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The nearest to `target` that any map from colour to colour (16 levels a channel) can come."""
    cells = np.ravel_multi_index(tuple(np.moveaxis((photograph * 15.99).astype(int), 2, 0)), (16, 16, 16))
    count = np.maximum(np.bincount(cells.ravel(), minlength=4096), 1)
    means = [
        np.bincount(cells.ravel(), target[..., c].ravel(), 4096)[cells.ravel()] / count[cells.ravel()]
        for c in range(3)
    ]
    return np.stack(means, axis=1).reshape(target.shape)


def test_weights_are_small_and_halves() -> None:
    from safetensors import safe_open

    assert (GENERATOR / "weights.safetensors").stat().st_size < 3_000_000
    with safe_open(GENERATOR / "weights.safetensors", "pt") as file:
        assert {str(file.get_tensor(key).dtype) for key in file.keys()} == {"torch.float16"}  # noqa: SIM118


def test_compute_is_worth_compressing(generator) -> None:
    from compressor.cost import count

    cost = count(generator.module, generator.spec.image.input_shape)
    assert 2e9 < cost.macs < 5e9
    assert not cost.uncounted


@pytest.mark.parametrize("name", SQUARES)
def test_generator_paints_held_out_photographs(generator, name: str) -> None:
    photograph = cut(*SQUARES[name])
    target, output = paint(photograph), draw(generator, photograph)
    assert psnr(output, target) > 27.0  # 31.1 and 27.6 dB when trained
    assert ssim(output, target) > 0.88
    assert psnr(output, photograph) < 20.0  # plainly another picture
    # The best table of colours made from the answer itself stays behind: lines and washes need neighbours.
    assert psnr(output, target) > psnr(best_colour_table(photograph, target), target) + 2.0


def test_generator_takes_other_sizes(generator) -> None:
    photograph = cut(*SQUARES["cat"])[:200, :252]
    assert psnr(draw(generator, photograph), paint(photograph)) > 27.0


def test_photographs_are_always_the_same(tmp_path: Path) -> None:
    first, second = (write_photographs(tmp_path / name) for name in "ab")
    hashes = [[hashlib.sha256(p.read_bytes()).digest() for p in (*t, *h)] for t, h in (first, second)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(TRAIN) + len(HELD_OUT)
    train, held_out = first
    assert (len(train), len(held_out)) == (22, 4)
    assert train == sorted((tmp_path / "a" / "train").iterdir())
    assert {read_image(path).shape for path in (*train, *held_out)} == {(SIDE, SIDE, 3)}


def test_held_out_photographs_are_no_one_s_training() -> None:
    held_out = {source for source, *_ in HELD_OUT.values()}
    assert not held_out & {source for source, *_ in TRAIN.values()}
    with (FOLDER / "training_photographs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 82
    assert not held_out & {row["name"] for row in rows}
    assert all(FREE.match(row["licence"]) and row["author"] for row in rows)


def test_squares_lie_inside_their_photographs() -> None:
    import skimage.data

    for source, left, top, side, _ in (*TRAIN.values(), *HELD_OUT.values()):
        height, width = getattr(skimage.data, source)().shape[:2]
        assert side >= 256
        assert left >= 0 <= top
        assert left + side <= width
        assert top + side <= height


def test_cut_is_the_photograph_itself_where_nothing_is_scaled() -> None:
    import skimage.data

    expected = skimage.data.coffee()[90:346, 250:506] / 255.0
    np.testing.assert_allclose(cut("coffee", 250, 90, 256, False), expected, atol=1e-6)
    np.testing.assert_allclose(cut("coffee", 250, 90, 256, True), expected[:, ::-1], atol=1e-6)


def test_washes_keep_flat_colour_and_straight_edges() -> None:
    flat = np.full((40, 40, 3), (0.2, 0.5, 0.7), np.float32)
    np.testing.assert_allclose(washes(flat), flat, atol=1e-4)
    edge = np.where(np.arange(40)[None, :, None] < 20, 0.1, 0.9) * np.ones((40, 1, 3))
    assert np.abs(washes(edge.astype(np.float32))[..., 0] - edge[..., 0]).max() < 0.12


def test_tones_are_a_rising_staircase_on_greys() -> None:
    ramp = np.linspace(0, 1, 512, dtype=np.float32)[None, :, None] * np.ones((1, 1, 3), np.float32)
    grey = tones(ramp)[0, :, 1]
    assert (np.diff(grey) > -1e-4).all()
    slope = np.diff(grey)
    rises = (slope[1:-1] > slope[:-2]) & (slope[1:-1] >= slope[2:]) & (slope[1:-1] > 1.5 * slope.mean())
    assert rises.sum() == TONES


def test_ink_draws_the_dark_side_of_an_edge_only() -> None:
    grey = np.where(np.arange(40)[None, :] < 20, 0.4, 0.9) * np.ones((40, 1))
    line = ink(grey.astype(np.float32))
    assert line[20, 18] < 0.2
    np.testing.assert_allclose(line[:, :10], 1.0, atol=1e-6)
    np.testing.assert_allclose(line[:, 24:], 1.0, atol=1e-6)


def test_painting_turns_with_the_photograph() -> None:
    photograph = cut(*SQUARES["coffee_cup"])[64:192, 64:192]
    np.testing.assert_allclose(paint(np.rot90(photograph)), np.rot90(paint(photograph)), atol=2e-3)
    painted = paint(photograph)
    assert painted.min() >= INK.min() - 0.12
    assert painted.max() <= 1.0


def test_copyright_file_gives_free_licences_only() -> None:
    text = """Files: src/activities/a/resource/fishes/one.jpg
 src/activities/a/resource/fishes/two.jpg
Copyright: 2018, Ann Author
License: CC-BY-SA-3.0
Comment: https://example.org/one

Files: 16.04/three.jpg
Copyright: Bob, 2018
License: GPL-3+

Files: 16.04/four.jpg
Copyright: 2019. Carl
License: CC-BY-NC-4.0
"""
    credit = ("Ann Author", "CC-BY-SA-3.0", "https://example.org/one")
    assert _copyrights(text) == {("fishes", "one"): credit, ("fishes", "two"): credit}


def test_training_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    from pocketgan.quickstart import train as module

    photos, _ = write_photographs(tmp_path / "photos")
    options = module.Options(steps=4, width=4, blocks=1, variants=1)
    monkeypatch.setattr(module, "KEEP_EVERY", 2)
    module.train(photos[:2], tmp_path / "whole", options)

    learn, calls = module._batch, iter(range(9))

    def stop_in_third_step(pairs, rng):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return learn(pairs, rng)

    monkeypatch.setattr(module, "_batch", stop_in_third_step)
    with pytest.raises(KeyboardInterrupt):
        module.train(photos[:2], tmp_path / "stopped", options)
    monkeypatch.setattr(module, "_batch", learn)
    module.train(photos[:2], tmp_path / "stopped", options)

    whole, stopped = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    for key, value in whole.items():
        torch.testing.assert_close(stopped[key], value, rtol=0, atol=0)
