"""Tiles: cut and put together without a trace, and how much context a network is measured to need."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.generators.spec import ImageFormat
from exporters.apply.painter import NotPainted, Painter
from exporters.apply.reach import measure
from exporters.apply.tiles import Seams, Tiling, painted_rows, spans


def blur(radius: int, scale: int = 1) -> Painter:
    """Means of (2 radius + 1)^2 pixels, black around the picture, enlarged by repeating."""

    def run(values: np.ndarray) -> np.ndarray:
        side = 2 * radius + 1
        wide = np.pad(values, [(0, 0), (0, 0), (radius, radius), (radius, radius)])
        sums = np.zeros(values.shape, np.float32)
        for y in range(side):
            for x in range(side):
                sums += wide[:, :, y : y + values.shape[2], x : x + values.shape[3]]
        return (sums / np.float32(side**2)).repeat(scale, 2).repeat(scale, 3)

    return Painter("blur", ImageFormat((0.0, 1.0), (0.0, 1.0), scale=scale), None, "", (), run)


def blocks(side: int) -> Painter:
    """Each block of side x side in its mean: a network of that stride."""

    def run(values: np.ndarray) -> np.ndarray:
        n, c, h, w = values.shape
        means = values.reshape(n, c, h // side, side, w // side, side).mean(axis=(3, 5))
        return means.repeat(side, 2).repeat(side, 3)

    return Painter("blocks", ImageFormat((0.0, 1.0), (0.0, 1.0)), (64, 64), "", (), run)


def centred() -> Painter:
    """Instance norm: every picture gets the same mean and spread."""

    def run(values: np.ndarray) -> np.ndarray:
        mean = values.mean(axis=(2, 3), keepdims=True)
        return np.float32(0.5) + np.float32(0.2) * (values - mean) / (values.std(axis=(2, 3), keepdims=True))

    return Painter("centred", ImageFormat((0.0, 1.0), (0.0, 1.0)), None, "", (), run)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth and rough at once, (H, W, 3) in [0, 1]."""
    ramp = np.linspace(0, 0.5, width, dtype=np.float32)[None, :, None]
    return ramp + np.random.default_rng(seed).random((height, width, 3), np.float32) / 2


def together(painter: Painter, pixels: np.ndarray, tiling: Tiling) -> tuple[np.ndarray, Seams]:
    seams = Seams()
    size = (pixels.shape[0], pixels.shape[1])
    rows = painted_rows(painter, lambda y, x, h, w: pixels[y : y + h, x : x + w], size, tiling, seams)
    return np.concatenate(list(rows)), seams


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(4, 64), st.data())
def test_shares_of_tiles_sum_to_one_and_tiles_overlap_enough(
    length: int, tile: int, data: st.DataObject
) -> None:
    multiple = data.draw(st.sampled_from([m for m in (1, 2, 4) if tile % m == 0 and tile - m >= 2]))
    length = max(tile, length // multiple * multiple)
    overlap = data.draw(st.integers(2, tile - multiple))
    tiling = Tiling((tile, tile), overlap, data.draw(st.integers(0, overlap)), multiple)
    scale = data.draw(st.integers(1, 3))
    found = spans(length, tile, tiling, scale)
    total = np.zeros(length * scale)
    for one in found:
        assert one.start % multiple == 0 and one.start * scale <= one.begin < one.end
        assert one.end <= (one.start + tile) * scale and one.weight.min() >= 0
        total[one.begin : one.end] += one.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert found[0].start == 0 and found[-1].start + tile == length
    for one, other in itertools.pairwise(found):
        assert one.start + tile - other.start >= overlap


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 75), st.integers(20, 75), st.integers(0, 3), st.integers(1, 3))
def test_with_enough_context_tiles_equal_the_whole_bit_by_bit(
    height: int, width: int, radius: int, scale: int
) -> None:
    painter, pixels = blur(radius, scale), noise(height, width)
    made, seams = together(painter, pixels, Tiling((20, 20), max(2, 2 * radius)))
    np.testing.assert_array_equal(made, painter.paint(pixels))
    assert seams.worst < 1e-4 if radius == 0 else True
    more, seams = together(painter, pixels, Tiling((20, 20), 2 * radius + 2))
    np.testing.assert_array_equal(more, painter.paint(pixels))
    assert seams.worst == 0.0  # both neighbours of a cut have it whole


def test_too_little_context_is_told_by_the_seam() -> None:
    painter, pixels = blur(3), noise(68, 68)
    made, seams = together(painter, pixels, Tiling((24, 24), 2))
    off = np.abs(made - painter.paint(pixels)).max() * 255
    assert off > 5 and seams.worst > 5 and seams.tiles == 9


def test_blending_leaves_no_step_where_tiles_disagree() -> None:
    painter = centred()
    pixels = np.linspace(0, 1, 120, dtype=np.float32)[None, :, None].repeat(40, 0).repeat(3, 2)
    hard, _ = together(painter, pixels, Tiling((40, 40), 20, 0))
    soft, seams = together(painter, pixels, Tiling((40, 40), 20, 20))
    assert np.abs(np.diff(hard, axis=1)).max() * 255 > 25 and seams.worst > 25
    assert np.abs(np.diff(soft, axis=1)).max() * 255 < 10


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_the_reach_of_a_convolution_is_its_radius(radius: int) -> None:
    found = measure(blur(radius, 2), noise(200, 150), (64, 64))
    assert (found.multiple, found.context, found.everywhere) == (1, radius, False)
    assert found.tiling((64, 64)) == Tiling((64, 64), max(2, 2 * radius), 0, 1)


def test_a_longer_reach_than_the_tile_allows_is_no_context() -> None:
    found = measure(blur(15), noise(100, 100), (32, 32))
    assert found.context is None and found.settled > 1
    assert not measure(blur(15), noise(300, 300), (128, 128)).everywhere


def test_measuring_converts_pieces_and_never_the_picture() -> None:
    sides: list[int] = []

    def convert(piece: np.ndarray) -> np.ndarray:
        sides.extend(piece.shape[:2])
        return piece.astype(np.float32) / 255

    levels = (noise(900, 700) * 255).astype(np.uint8)
    assert measure(blur(4), levels, (64, 64), convert).context == 4
    assert max(sides) <= 64 + 32


def test_strides_are_found_and_tiles_keep_to_them() -> None:
    found = measure(blocks(4), noise(150, 150), (64, 64))
    assert (found.multiple, found.context) == (4, 0)
    made, seams = together(blocks(4), noise(148, 132), found.tiling((64, 64)))
    np.testing.assert_array_equal(made, blocks(4).paint(noise(148, 132)))
    assert seams.worst == 0.0


def test_a_norm_over_the_picture_is_told_from_a_reach() -> None:
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[:, None, None]
    found = measure(centred(), noise(200, 200) / 2 + ramp / 2, (64, 64))
    assert found.everywhere and found.context is None and found.settled > 1
    assert found.tiling((64, 64)).blend > 0


def test_overlaps_that_cannot_be_are_refused() -> None:
    for overlap in (1, 64, 100):
        with pytest.raises(UsageError, match="2 to 63"):
            Tiling((64, 64), overlap)


def test_memory_does_not_grow_with_the_height() -> None:
    def peak(height: int) -> int:
        pixels = np.zeros((height, 256, 3), np.uint8)
        tracemalloc.start()
        for rows in painted_rows(
            blur(0, 4),
            lambda y, x, h, w: pixels[y : y + h, x : x + w].astype(np.float32),
            (height, 256),
            Tiling((64, 64), 8),
            Seams(),
        ):
            assert len(rows) <= 64 * 4
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(2048) < 1.2 * peak(256)


def test_answers_that_are_no_pictures_are_refused() -> None:
    def painter(run) -> Painter:
        return Painter("net", ImageFormat((0.0, 1.0), (0.0, 1.0)), None, "", (), run)

    with pytest.raises(NotPainted, match="NaN"):
        painter(lambda values: values * np.nan).paint(noise(8, 8))
    with pytest.raises(NotPainted, match="another size"):
        painter(lambda values: values[:, :, 1:]).paint(noise(8, 8))
