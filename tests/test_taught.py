"""What a student is shown: crops with the teacher's outputs, and the cache of these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from teaching import FORMAT, UPSCALING, onnx_file, upscaler, write_pictures
from torch import nn

from compressor.agd.teachers import OutputCache, TaughtPictures, open_teacher
from compressor.agd.teachers.cache import key_of
from compressor.agd.teachers.taught import _spread
from compressor.data.images import read_image, to_tensor, write_image
from compressor.errors import PocketganError
from compressor.generators import ImageFormat


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_batches_depend_on_seed_and_step_alone(pictures, tmp_path):
    def taught(folder: Path | None, seed: int = 1) -> TaughtPictures:
        return TaughtPictures(pictures, upscaler(), crop=16, batch=3, seed=seed, cache=OutputCache(folder))

    first, second = taught(tmp_path), taught(None)
    second.pair(7), second.pair(2)
    for ours, theirs in zip(first.pair(5), second.pair(5), strict=True):
        assert torch.equal(ours, theirs)
    again = taught(tmp_path)
    assert torch.equal(again.pair(5)[1], first.pair(5)[1])  # from the disk, bit by bit
    assert again.teacher.module.calls == 0
    assert not torch.equal(first(5), first(6)) and not torch.equal(first(5), taught(None, 2)(5))


def test_wanted_is_what_the_teacher_makes_with_the_surroundings_known(tmp_path):
    """A 3x3 upscaler: away from the picture's end, the inner part of a crop's own output is the wanted one;
    turned crops too, once turned back."""
    pixels = np.random.default_rng(2).random((70, 60, 3))
    write_image(tmp_path / "a.png", pixels)
    teacher = upscaler()
    taught = TaughtPictures(
        [tmp_path / "a.png"], teacher, crop=16, batch=6, cache=OutputCache(None), flip=False, turn=False
    )
    inputs, wanted = taught.pair(0)
    assert taught.frame == 2 and taught.inner(wanted).shape == (6, 3, 24, 24)
    made = teacher(inputs)
    assert torch.allclose(taught.inner(made), taught.inner(wanted), atol=1e-6)
    assert (made - wanted).abs().max() > 1e-3  # the frame is where they differ
    turning = TaughtPictures([tmp_path / "a.png"], teacher, crop=16, batch=6, cache=OutputCache(None))
    whole = to_tensor(read_image(tmp_path / "a.png"), (0.0, 1.0))
    large = teacher(whole)
    seen = set()
    for inputs, wanted in (turning.pair(step) for step in range(3)):
        for small, big in zip(inputs, wanted, strict=True):
            name, (top, left) = _find(whole[0], small)
            back = _undo(big, name)
            assert torch.equal(back, large[0, :, 2 * top : 2 * top + 32, 2 * left : 2 * left + 32])
            assert 16 <= top <= 70 - 32 and 16 <= left <= 60 - 32
            seen.add(name)
    assert len(seen) >= 5  # of 8 ways to lie


def _undo(values: torch.Tensor, name: tuple[int, bool]) -> torch.Tensor:
    turns, mirrored = name
    back = torch.rot90(values, -turns, (1, 2))
    return back.flip(2) if mirrored else back


def _find(whole: torch.Tensor, crop: torch.Tensor) -> tuple[tuple[int, bool], tuple[int, int]]:
    """How a crop was turned, and where it lies."""
    windows = whole.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1)
    for turns in range(4):
        for mirrored in (False, True):
            back = _undo(crop, (turns, mirrored))
            hits = (windows == back[:, None, None]).all(dim=(0, 3, 4)).nonzero()
            if len(hits):
                return (turns, mirrored), (int(hits[0, 0]), int(hits[0, 1]))
    raise AssertionError("no such crop in the picture")


def test_an_upscaler_of_fixed_size_is_shown_tiles(tmp_path):
    """Its outputs are each pixel four times, wherever the tile lies, whatever the picture's size."""
    path = onnx_file(tmp_path / "up.onnx", upscale=True, size=(24, 32))
    stated = {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)}
    teacher = open_teacher(path, stated=stated)
    assert teacher.fixed == (24, 32) and teacher.image.size == (24, 32)
    for index, size in enumerate([(70, 90), (24, 32), (9, 50)]):
        write_image(tmp_path / f"{index}.png", np.random.default_rng(index).random((*size, 3)))
    paths = sorted(tmp_path.glob("?.png"))
    taught = TaughtPictures(paths, teacher, UPSCALING, crop=16, batch=8, cache=OutputCache(None))
    for step in range(4):
        inputs, wanted = taught.pair(step)
        assert torch.equal(wanted, inputs.repeat_interleave(2, 2).repeat_interleave(2, 3))
    with pytest.raises(PocketganError, match="crop"):
        TaughtPictures(paths, teacher, UPSCALING, crop=28)


@pytest.mark.parametrize("have", [50, 256, 257, 300, 700, 1500])
def test_tiles_reach_every_crop(have):
    starts = _spread(have, 256, 64 + 32)
    assert starts[0] == 0 and starts[-1] == max(0, have - 256)
    for left in range(16, max(17, have - 64 - 16)):  # with 16 on both sides
        assert have <= 256 or any(s + 16 <= left and left + 64 + 16 <= s + 256 for s in starts)


def test_true_pictures_come_with_the_teachers(tmp_path):
    write_image(tmp_path / "a.png", np.random.default_rng(2).random((80, 70, 3)))
    taught = TaughtPictures([tmp_path / "a.png"], upscaler(), crop=16, cache=OutputCache(None), truth=True)
    inputs, wanted, true = taught.lesson(0)
    assert inputs.shape == (2, 3, 16, 16) and wanted.shape == true.shape == (2, 3, 32, 32)
    averaged = nn.functional.avg_pool2d(true, 2)
    assert (averaged - inputs).abs().mean() < 0.15 < (averaged.flip(3) - inputs).abs().mean()


def test_ranges_of_student_and_teacher_may_differ(pictures):
    student = ImageFormat((-1.0, 1.0), (0.0, 255.0), size=(16, 16), scale=2)
    ours = TaughtPictures(pictures, upscaler(), student, cache=OutputCache(None))
    theirs = TaughtPictures(pictures, upscaler(), cache=OutputCache(None))
    assert torch.allclose(ours.pair(3)[0], theirs.pair(3)[0] * 2 - 1, atol=1e-6)
    assert torch.allclose(ours.pair(3)[1], theirs.pair(3)[1] * 255, atol=1e-3)
    with pytest.raises(PocketganError, match="scale"):
        TaughtPictures(pictures, upscaler(), FORMAT)


def test_the_cache_is_exact_bounded_and_survives_damage(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {f"{index:02x}key": draw.standard_normal((3, 8, 8)).astype(np.float32) for index in range(6)}
    size = 3 * 8 * 8 * 4 + 128  # numpy's header
    cache = OutputCache(tmp_path, memory=2 * 768, disk=4 * size)
    for key, values in arrays.items():
        assert np.array_equal(cache.get(key, lambda values=values: values), values)
    files = sorted(tmp_path.glob("??/*.npy"))
    assert len(files) == 4  # what is in use is not thrown out for more of it
    later = OutputCache(tmp_path, disk=4 * size)
    assert np.array_equal(later.get("00key", lambda: pytest.fail("was kept")), arrays["00key"])
    later.get("ffkey", lambda: arrays["05key"])
    kept = {path.stem for path in tmp_path.glob("??/*.npy")}
    assert len(kept) == 4 and {"00key", "ffkey"} <= kept
    path = tmp_path / "00" / "00key.npy"
    path.write_bytes(path.read_bytes()[:-5])  # a disk that lost its end
    assert np.array_equal(OutputCache(tmp_path).get("00key", lambda: arrays["00key"]), arrays["00key"])
    assert np.array_equal(np.load(path), arrays["00key"])
    with pytest.raises(PocketganError, match="not numbers"):
        cache.get("new", lambda: np.full((1, 2, 2), np.nan))


def test_keys_tell_teachers_sizes_and_single_bits_apart():
    picture = np.zeros((1, 3, 4, 6), np.float32)
    changed = picture.copy()
    changed[0, 0, 0, 0] = np.nextafter(np.float32(0), np.float32(1))
    keys = {
        key_of("a", picture),
        key_of("b", picture),
        key_of("a", picture.reshape(1, 3, 6, 4)),
        key_of("a", changed),
    }
    assert len(keys) == 4
