"""Super resolution against true pictures: inputs made from them, and training towards them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from compressor.data.images import fit, read_image, write_image
from compressor.errors import PocketganError
from compressor.files import read_json
from compressor.generators import load
from compressor.generators.spec import ImageFormat
from compressor.generators.srvgg import SRVGGNetCompact
from compressor.options import SuperResolutionOptions
from compressor.training.engine import Engine
from compressor.training.lessons import Lessons
from compressor.training.truth import TruePatches
from pocketgan.cli import main as cli

FORMAT = ImageFormat((0.0, 1.0), (-1.0, 1.0), size=(8, 8), scale=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("true")
    rows, columns = np.mgrid[0:90, 0:70] / 90
    for index in range(2):
        waves = np.stack([np.sin(9 * rows + index), np.cos(7 * columns), rows * columns], axis=2)
        write_image(folder / f"{index}.png", waves / 2 + 0.5)
    return sorted(folder.iterdir())


def test_the_input_is_the_truth_made_small(pictures):
    small, true = TruePatches(pictures, FORMAT, None, 3, seed=1).pair(5)
    assert small.shape == (3, 3, 8, 8) and true.shape == (3, 3, 32, 32)
    for one, other in zip(small.numpy(), true.numpy(), strict=True):
        made = fit(np.moveaxis(other / 2 + 0.5, 0, 2), (8, 8))
        inside = np.abs(made - np.moveaxis(one, 0, 2))[2:-2, 2:-2]  # the filter sees no further than the crop
        assert inside.max() < 2.5 / 255


def test_batches_depend_on_seed_and_step_alone(pictures):
    first, second = (TruePatches(pictures, FORMAT, None, 2, seed=3) for _ in range(2))
    second(0)
    assert first.pair(7)[1].equal(second.pair(7)[1])
    assert not first(7).equal(first(8))


def test_translation_has_no_small_pictures(pictures):
    with pytest.raises(PocketganError, match="pix2pix"):
        TruePatches(pictures, ImageFormat(), None, 1, seed=0)


def test_small_pictures_are_those_of_the_benchmarks(shared_data):
    """MATLAB's bicubic, which Set5 was made small with: within one level, but for the border."""
    for path in sorted((shared_data / "sr" / "Set5_x4").glob("*_HR.png")):
        patches = TruePatches([path], FORMAT, None, 1, seed=0)
        small, _ = patches.picture(0)
        published = read_image(path.with_name(path.name.replace("_HR", "_LR")))
        difference = np.abs(small - published)[2:-2, 2:-2] * 255
        assert difference.max() <= 1.01
        assert (difference > 0.5).mean() < 0.02


def test_pictures_smaller_than_a_crop_are_scaled_up(tmp_path):
    Image.new("RGB", (20, 12), (200, 10, 10)).save(tmp_path / "small.png")
    small, true = TruePatches([tmp_path / "small.png"], FORMAT, None, 1, seed=0).pair(0)
    assert small.shape[2:] == (8, 8) and true.shape[2:] == (32, 32)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    """A small SRVGGNetCompact, as a checkpoint in upstream's names."""
    torch.manual_seed(0)
    module = SRVGGNetCompact(features=12, convolutions=2, scale=4)
    path = tmp_path_factory.mktemp("upscaler") / "small.pth"
    torch.save({"params": module.state_dict()}, path)
    return path


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_a_step_is_trained_towards_the_truth(upscaler, pictures, distillation):
    generator = load(upscaler)
    options = SuperResolutionOptions(batch=2, crop=16, distillation=distillation)
    engine = Engine(options, torch.device("cpu"))
    original = engine.forward(generator.module)
    student = spec_like(generator)
    image = generator.spec.image
    lessons = Lessons(pictures, image, options, engine, original, 4, **options.lesson)
    found = lessons.backward(9, lambda: engine.forward(student))
    given, true = TruePatches(pictures, image, 16, 2, 4).pair(9)
    with torch.no_grad():
        made = student(given)
        wanted = (made - true).abs().mean() + distillation * (made - generator.module(given)).abs().mean()
    assert found == pytest.approx(float(wanted), rel=1e-5)
    assert all(parameter.grad is not None for parameter in student.parameters())


def spec_like(generator):
    """The same architecture with weights of its own."""
    torch.manual_seed(1)
    return generator.spec.build()


def test_prune_and_distill_restore_true_pictures(upscaler, pictures, tmp_path):
    run = CliRunner().invoke
    common = ["--images", str(pictures[0].parent), "--seed", "1"]
    search = ["--task", "sr", "--budget", "macs=50%", "--steps", "6", "--batch", "1", "--crop", "16"]
    made = run(cli, ["prune", str(upscaler), *common, *search, "--output-dir", str(tmp_path / "p")])
    assert made.exit_code == 0, made.output
    document = read_json(tmp_path / "p" / "prune.json")
    assert 0.49 <= document["share"] <= 0.5
    train = ["--teacher", str(upscaler), "--truth", "1", "--steps", "6", "--batch", "1", "--crop", "16"]
    made = run(cli, ["distill", str(tmp_path / "p"), *common, *train, "--output-dir", str(tmp_path / "d")])
    assert made.exit_code == 0, made.output


def test_its_options_mean_nothing_to_distillation(upscaler, pictures, tmp_path):
    call = ["prune", str(upscaler), "--images", str(pictures[0].parent), "--budget", "macs=50%"]
    made = CliRunner().invoke(cli, [*call, "--distillation", "1", "--output-dir", str(tmp_path / "p")])
    assert made.exit_code == 2 and "sr or pix2pix or cyclegan" in made.output
    assert not (tmp_path / "p").exists()
