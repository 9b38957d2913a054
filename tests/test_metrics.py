"""Metrics against published tables, closed forms, brute force and other people's implementations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from compressor.data.bicubic import imresize
from compressor.data.images import read_image
from compressor.errors import PocketganError, UsageError
from compressor.metrics.inception import _BLOCKS, _HALVING, Inception
from compressor.metrics.sets import frechet_distance, kernel_distance
from compressor.metrics.upscaling import reported
from pocketgan.cli import main

COUNTS = {"Set5": 5, "Set14": 14, "BSD100": 100}
PUBLISHED = {"Set5": (28.418, 0.8101), "Set14": (26.087, 0.7041), "BSD100": (25.957, 0.6672)}
GREY = ("Set14", 3)  # of which the table judges the raw grey value, not Y: 1.318 dB lower


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Bicubic


def levels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


def bicubic_rows(data: Path, name: str, count: int) -> list[tuple[float, float]]:
    """PSNR and SSIM of MATLAB's bicubic on the first pictures of a set; small ones must come out exactly."""
    rows = []
    for number in range(1, count + 1):
        large = data / "sr" / f"{name}_x4" / f"img_{number:03d}_SRF_4_HR.png"
        small = levels(large.with_name(large.name.replace("_HR", "_LR")))
        np.testing.assert_array_equal(imresize(levels(large), 1 / 4), small)
        enlarged = imresize(small, 4) / 255
        colour = enlarged if enlarged.ndim == 3 else np.repeat(enlarged[..., None], 3, 2)
        rows.append(reported(colour, read_image(large), rounded=True))
    return rows


def agrees_with_the_table(data: Path, name: str, rows: list[tuple[float, float]]) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    tables = scipy_io.loadmat(data / "sr" / "reference_tables" / f"result_{name}_SRF_4.mat")
    for number, (psnr, ssim) in enumerate(rows, 1):
        wanted = float(tables["PSNR_table"][number - 1, 0])
        if (name, number) == GREY:
            assert psnr - wanted == pytest.approx(1.318, abs=1e-3)
            continue
        assert psnr == pytest.approx(wanted, abs=1e-3), f"{name} {number}"
        assert ssim == pytest.approx(float(tables["SSIM_table"][number - 1, 0]), abs=1e-3), f"{name} {number}"


@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_bicubic_gives_the_published_figures_of_every_picture(name: str, shared_data: Path) -> None:
    rows = bicubic_rows(shared_data, name, COUNTS[name])
    agrees_with_the_table(shared_data, name, rows)
    psnr, ssim = np.mean(rows, axis=0)
    assert psnr == pytest.approx(PUBLISHED[name][0], abs=6e-4)
    assert ssim == pytest.approx(PUBLISHED[name][1], abs=6e-5)


@pytest.mark.acceptance
def test_bicubic_gives_the_published_figures_of_bsd100(shared_data: Path) -> None:
    rows = bicubic_rows(shared_data, "BSD100", COUNTS["BSD100"])
    agrees_with_the_table(shared_data, "BSD100", rows)
    assert np.mean(rows, axis=0) == pytest.approx(PUBLISHED["BSD100"], abs=6e-4)


def test_bicubic_keeps_flat_and_straight_pictures() -> None:
    """Keys' kernel reproduces polynomials of degree 2 away from the edges, and constants everywhere."""
    flat = np.full((9, 7, 3), 93, np.uint8)
    for scale in (0.25, 0.5, 1.7, 4):
        assert (imresize(flat, scale) == 93).all()
    x = np.arange(20.0)
    parabola = np.tile(0.1 * x**2 - x + 3, (5, 1))
    at = (np.arange(60) + 0.5) / 3 - 0.5
    made = imresize(parabola, 3)[7]
    inner = (at > 2) & (at < 17)
    np.testing.assert_allclose(made[inner], (0.1 * at**2 - at + 3)[inner], atol=1e-9)
    assert imresize(np.zeros((5, 6)), 0.5).shape == (3, 3)
    picture = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    np.testing.assert_array_equal(imresize(picture, 1), picture)
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(UsageError):
            imresize(flat, wrong)
    with pytest.raises(UsageError):
        imresize(flat.astype(np.int32), 2)


# Sets


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    """Features whose means and covariances are exact: for commuting ones tr (root C1 - root C2)^2."""
    rng = np.random.default_rng(0)
    one = whitened(rng, 400, 8) * np.arange(1, 9)
    for count in (9, 60, 500):  # fewer and more pictures than features
        two = whitened(rng, count, 8) * np.linspace(0.5, 3, 8) + 0.7
        wanted = 8 * 0.7**2 + np.square(np.arange(1, 9) - np.linspace(0.5, 3, 8)).sum()
        assert frechet_distance(one, two) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(one, one[::-1]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_a_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=(90, 12)) @ rng.normal(size=(12, 12)), rng.normal(0.4, 2, size=(70, 12))
    root = linalg.sqrtm(np.cov(one, rowvar=False) @ np.cov(two, rowvar=False)).real
    traces = np.trace(np.cov(one, rowvar=False)) + np.trace(np.cov(two, rowvar=False)) - 2 * np.trace(root)
    wanted = np.square(one.mean(0) - two.mean(0)).sum() + traces
    assert frechet_distance(one, two) == pytest.approx(wanted, rel=1e-9)


def test_few_pictures_with_many_features_have_a_distance() -> None:
    """Where covariances are singular and a matrix root is unsure: rank 1 in 2048 dimensions."""
    one, two = np.zeros((2, 2048)), np.zeros((2, 2048))
    one[:, 0], two[:, 1] = (-1, 1), (-2, 2)  # variances 2 and 8 in directions at right angles
    assert frechet_distance(one, two) == pytest.approx(10)
    two[:, :2] = np.array([[-2, 0], [2, 0]])
    assert frechet_distance(one, two) == pytest.approx((np.sqrt(8) - np.sqrt(2)) ** 2)


def whitened(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Values of mean 0 and covariance 1, exactly."""
    values = rng.normal(size=(count, width))
    values -= values.mean(0)
    return np.linalg.qr(values)[0] * np.sqrt(count - 1)


def test_kernel_distance_is_the_double_sum() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(7, 5)), rng.normal(0.5, 1, size=(9, 5))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    wanted = 0.0
    for values in (one, two):
        pairs = [(i, j) for i in range(len(values)) for j in range(len(values)) if i != j]
        wanted += sum(kernel(values[i], values[j]) for i, j in pairs) / len(pairs)
    wanted -= 2 * sum(kernel(x, y) for x in one for y in two) / (len(one) * len(two))
    assert kernel_distance(one, two) == pytest.approx(wanted, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Over many pairs of small sets from one distribution its mean is 0, within four standard errors."""
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.normal(size=(6, 4)), rng.normal(size=(6, 4))) for _ in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))


def test_sets_that_cannot_be_compared_are_refused() -> None:
    for one, two in ((np.zeros((1, 4)), np.zeros((5, 4))), (np.zeros((5, 3)), np.zeros((5, 4)))):
        for distance in (frechet_distance, kernel_distance):
            with pytest.raises(PocketganError, match="cannot be compared"):
                distance(one, two)


# Networks


def thin_inception(path: Path, classes: int = 1008) -> Path:
    """A network of Inception's layers with an eighth of its channels, at random."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, before: int, height: int, width: int, out: int) -> int:
        state[f"{name}.conv.weight"] = (
            torch.randn(out, before, height, width) / (before * height * width) ** 0.5
        )
        facts = {
            "weight": torch.ones,
            "bias": torch.zeros,
            "running_mean": torch.zeros,
            "running_var": torch.ones,
        }
        state.update({f"{name}.bn.{fact}": made(out) for fact, made in facts.items()})
        return out

    width = 3
    for name, out in (("1a_3x3", 4), ("2a_3x3", 4), ("2b_3x3", 8), ("3b_1x1", 10), ("4a_3x3", 24)):
        side = int(name[-1])
        width = layer(f"Conv2d_{name}", width, side, side, out)
    for block, paths in _BLOCKS.items():
        joined = 0
        for steps in paths:
            inside = width
            for step in steps:
                names = step if isinstance(step, tuple) else (step,)
                if names[0] in ("halve", "average", "greatest"):
                    continue
                inside = sum(layer(f"{block}.{each}", inside, *kernel(block, each), 16) for each in names)
            joined += inside
        width = joined
    state["fc.weight"] = torch.zeros(classes, 2048)
    torch.save(state, path)
    return path


def kernel(block: str, name: str) -> tuple[int, int]:
    if "7x7" in name and block != "Mixed_7a":
        tall = {"7x7_2": False, "7x7_3": True, "dbl_2": True, "dbl_3": False, "dbl_4": True, "dbl_5": False}
        found = next((value for key, value in tall.items() if name.endswith(key)), None)
        return (1, 1) if found is None else (7, 1) if found else (1, 7)
    if name in ("branch7x7x3_2", "branch7x7x3_3"):
        return (1, 7) if name.endswith("2") else (7, 1)
    if name.endswith(("_2a", "_3a")):
        return (1, 3)
    if name.endswith(("_2b", "_3b")):
        return (3, 1)
    if name == "branch5x5_2":
        return (5, 5)
    three = f"{block}.{name}" in _HALVING or (name.startswith("branch3x3dbl") and not name.endswith("_1"))
    return (3, 3) if three else (1, 1)


def test_inception_is_the_one_of_torch_fidelity(tmp_path: Path) -> None:
    """With random weights, on a picture that needs no resizing; there 255 levels are (x - 128) / 128."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Theirs
    except Exception as error:  # its torchvision needs a torch built as it was itself
        pytest.skip(f"torch-fidelity does not start here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {}
        )
        patch.setattr(Theirs, "load_state_dict", lambda self, state: None)
        theirs = Theirs("inception", ["2048"])
    torch.save(theirs.state_dict(), tmp_path / "random.pth")
    picture = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8)
    torch.testing.assert_close(Inception(tmp_path / "random.pth")(picture / 256), theirs(picture)[0])


def test_other_networks_are_not_taken_for_fids(tmp_path: Path) -> None:
    with pytest.raises(PocketganError, match=r"(?s)not the Inception network.*data fetch inception"):
        Inception(thin_inception(tmp_path / "torchvision.pth", classes=1000))
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "empty.pth")
    with pytest.raises(PocketganError, match="lacks a layer"):
        Inception(tmp_path / "empty.pth")(torch.zeros(1, 3, 8, 8))


def lpips_files(folder: Path) -> tuple[Path, Path, nn.Sequential, list[torch.Tensor]]:
    """Random files of LPIPS' weights and of a VGG16, and the latter as torchvision builds it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 3
    for out in (64, 8, 0, 12, 12, 0, 16, 16, 16, 0, 20, 20, 20, 0, 24, 24, 24, 0):  # narrower, as deep
        layers += [nn.Conv2d(before, out, 3, padding=1), nn.ReLU()] if out else [nn.MaxPool2d(2)]
        before = out or before
    network = nn.Sequential(*layers).requires_grad_(False)
    torch.save(
        {f"features.{name}": value for name, value in network.state_dict().items()}, folder / "vgg16.pth"
    )
    linear = [torch.rand(1, width, 1, 1) for width in (8, 12, 16, 20, 24)]
    torch.save({f"lin{n}.model.1.weight": value for n, value in enumerate(linear)}, folder / "lpips.pth")
    return folder / "lpips.pth", folder / "vgg16.pth", network, linear


def test_lpips_is_its_formula(tmp_path: Path) -> None:
    from compressor.metrics.lpips import Lpips

    linear_file, backbone_file, network, linear = lpips_files(tmp_path)
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 32, 32, 3)).astype(np.float32)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    taps: list[list[torch.Tensor]] = []
    for picture in (one, two):  # published: for pictures in [-1, 1]
        value = ((torch.from_numpy(picture) * 2 - 1 - shift) / scale).permute(2, 0, 1)[None]
        taps.append([])
        for index, layer in enumerate(network):
            value = layer(value)
            if index in (3, 8, 15, 22, 29):
                taps[-1].append(value / (value.norm(dim=1, keepdim=True) + 1e-10))
    wanted = sum(((a - b) ** 2 * w).sum(1).mean() for a, b, w in zip(*taps, linear, strict=True))
    lpips = Lpips(linear_file, backbone_file)
    assert lpips(one, two) == pytest.approx(float(wanted), rel=1e-4)
    assert lpips(one, one) == 0
    with pytest.raises(PocketganError, match="linear layers"):
        Lpips(backbone_file, backbone_file)
    state = torch.load(backbone_file)
    torch.save({name: value for name, value in state.items() if "features.28" not in name}, backbone_file)
    with pytest.raises(PocketganError, match="not the VGG16"):
        Lpips(linear_file, backbone_file)


# The command


def test_the_command_says_what_it_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for folder, low in (("made", 0), ("test", 60), ("train", 60), ("wanted", 0)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            pixels = rng.integers(low, 190 + low, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    weights = thin_inception(tmp_path / "weights.pth")
    line = ("metrics", tmp_path / "made", "--real", tmp_path / "test", "--real", tmp_path / "train")
    shown = call(*line, "--fid-weights", weights)
    assert shown.exit_code == 0, shown.output
    assert "NOT FID" in shown.stdout and "3 of" in shown.stdout and "299x299" in shown.stdout
    kept = sorted((tmp_path / "cache" / "inception").iterdir())
    document = json.loads(call(*line, "--fid-weights", weights, "--json").stdout)["sets"]
    assert sorted((tmp_path / "cache" / "inception").iterdir()) == kept  # the second call computes nothing
    assert "fid" not in document and [each["pictures"] for each in document["real"]] == [3, 3]
    assert document["frechet_distance"] > 0
    same = ("metrics", tmp_path / "made", "--real", tmp_path / "made", "--fid-weights", weights, "--json")
    assert json.loads(call(*same).stdout)["sets"]["frechet_distance"] == pytest.approx(0, abs=1e-6)
    pairs = ("metrics", tmp_path / "made", "--reference", tmp_path / "wanted", "--border", 4)
    shown = call(*pairs)
    assert shown.exit_code == 0 and "PSNR-Y" in shown.stdout, shown.output
    document = json.loads(call(*pairs, "--json").stdout)["pairs"]
    one, two = (read_image(tmp_path / folder / "1.png") for folder in ("made", "wanted"))
    assert document["images"][1]["l1"] == pytest.approx(float(np.abs(one - two).mean()))
    assert document["images"][1]["psnr_y"] == pytest.approx(reported(one, two)[0])
    assert call("metrics", tmp_path / "made").exit_code == 2
    assert call("metrics", tmp_path / "made", "--real", tmp_path / "test").exit_code == 2
    assert call(*pairs, "--lpips-weights", weights).exit_code == 2
    (tmp_path / "wanted" / "2.png").unlink()
    assert "lacks 1 of 3" in call(*pairs).output
