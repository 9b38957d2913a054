"""Quality against teachers that only answer with pictures: the same figures as against the network itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.agd.teachers import FolderTeacher, NetworkTeacher, Teacher
from compressor.data.images import write_image
from compressor.evaluate import evaluate
from compressor.generators import Generator
from compressor.generators.spec import GeneratorSpec, ImageFormat
from pocketgan.source import GeneratorSource


class _Enlarge(nn.Module):
    """Each pixel becomes scale x scale, times a factor."""

    def __init__(self, scale: int, gain: float = 1.0):
        super().__init__()
        self.scale, self.gain = scale, nn.Parameter(torch.tensor(gain))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


def generator(scale: int, gain: float = 1.0, size: tuple[int, int] = (16, 16)) -> Generator:
    image = ImageFormat((0.0, 1.0), (0.0, 1.0), size, scale)
    spec = GeneratorSpec("custom", {"factory": "none:none"}, image)
    return Generator(spec, _Enlarge(scale, gain).eval(), Path("enlarge"), f"{gain}" * 16)


def pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    draw = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        levels = draw.integers(0, 255, (*size, 3)) / 255  # exact in 8 bits
        write_image(folder / f"p{number}_lr.png", levels.astype(np.float32))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("scale", [1, 2])
def test_a_network_that_only_answers_gives_the_networks_figures(tmp_path: Path, scale: int) -> None:
    paths = pictures(tmp_path / "in", (40, 24), (31, 64))
    student, teacher = generator(scale, 0.9), generator(scale)
    own = evaluate(student, paths, tmp_path / "a", teacher=teacher).document
    asked = evaluate(student, paths, tmp_path / "b", teacher=NetworkTeacher(teacher)).document
    assert own == asked and 10 < own["psnr_median"] < 40


def test_a_folder_of_large_outputs_is_cut_as_its_inputs_are(tmp_path: Path) -> None:
    """530 rows are cut to 512 at the input; a student like the teacher must be found equal to the pixel."""
    paths = pictures(tmp_path / "in", (530, 24), (20, 33))
    for path in paths:
        from compressor.data.images import read_image

        large = read_image(path, 3).repeat(2, axis=0).repeat(2, axis=1)
        write_image(tmp_path / "out" / path.name.replace("_lr", "_sr"), large)
    teacher = FolderTeacher(paths, tmp_path / "out", generator(2).spec.image)
    found = evaluate(generator(2), paths, tmp_path / "eval", teacher=teacher).document
    assert [row["psnr"] for row in found["images"]] == [None, None]  # infinite: no error at all


def test_a_teacher_of_one_size_is_asked_for_that_size(tmp_path: Path) -> None:
    class Fixed(NetworkTeacher):
        fixed = (16, 24)

        def __call__(self, given: torch.Tensor) -> torch.Tensor:
            assert given.shape[2:] == self.fixed
            return super().__call__(given)

    paths = pictures(tmp_path / "in", (40, 40), (8, 8))  # cut, and enlarged
    teacher: Teacher = Fixed(generator(2))
    found = evaluate(generator(2), paths, tmp_path / "eval", teacher=teacher).document
    assert [row["psnr"] for row in found["images"]] == [None, None]


def made() -> nn.Module:
    """A network with its weights, as MODULE:CALLABLE gives them."""
    return _Enlarge(1, 0.25)


def test_code_alone_is_a_source_with_weights() -> None:
    source = GeneratorSource(factory="test_eval_teachers:made", size=(24, 16))
    assert source.is_network and source.named == "test_eval_teachers:made"
    generator = source.load()
    assert generator.spec.image.size == (24, 16)
    x = torch.rand(1, 3, 24, 16)
    assert torch.equal(generator.module(x), 0.25 * x)
    assert torch.equal(source.teacher([])(x), 0.25 * x)
