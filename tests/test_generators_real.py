"""Real generators, as their users have them, give the figures their authors published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.data.images import read_image, to_pixels, to_tensor
from compressor.generators import Generator, load

NETWORKS = "benchmarks.networks"


def luma(pixels: np.ndarray) -> np.ndarray:
    """Y of BT.601, 16..235, from (H, W, 3) levels 0..255; not rounded."""
    return 16 + pixels.astype(np.float64) @ (65.481, 128.553, 24.966) / 255


def psnr_y(picture: np.ndarray, reference: np.ndarray) -> float:
    """dB between two Y planes, 4 pixels shaved."""
    error = (picture - reference)[4:-4, 4:-4]
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    return [(p, p.with_name(p.name.replace("_HR", "_LR"))) for p in sorted(folder.glob("*_HR.png"))]


def set5(generator: Generator, folder: Path) -> float:
    """Mean PSNR-Y of outputs clamped and rounded to 8 bit."""
    image, found = generator.spec.image, []
    for high, low in pairs(folder / "sr" / "Set5_x4"):
        with torch.inference_mode():
            output = generator.module(to_tensor(read_image(low), image.input_range))
        levels = np.rint(to_pixels(output, image.output_range) * 255)
        found.append(psnr_y(luma(levels), luma(np.rint(read_image(high) * 255))))
    return float(np.mean(found))


@pytest.mark.acceptance
def test_imdn_on_set5(shared_data: Path) -> None:
    generator = load(shared_data / "weights" / "IMDN_x4.pth", factory=f"{NETWORKS}.imdn:imdn_x4")
    assert sum(p.numel() for p in generator.module.parameters()) == 715_176
    assert set5(generator, shared_data) == pytest.approx(32.211, abs=0.01)


@pytest.mark.acceptance
def test_realesr_animevideo_on_set5(shared_data: Path) -> None:
    generator = load(shared_data / "weights" / "realesr-animevideov3.pth")
    assert generator.spec.arguments == {
        **{"input_channels": 3, "output_channels": 3, "features": 64},
        **{"convolutions": 16, "scale": 4, "activation": "prelu"},
    }
    assert sum(p.numel() for p in generator.module.parameters()) == 621_424
    assert set5(generator, shared_data) == pytest.approx(28.232, abs=0.001)


@pytest.mark.acceptance
def test_vdsr_on_set5(shared_data: Path) -> None:
    """On the bicubic-upscaled Y plane, nothing rounded."""
    generator = load(shared_data / "weights" / "vdsr_x4.safetensors", factory=f"{NETWORKS}.vdsr:vdsr")
    assert sum(p.numel() for p in generator.module.parameters()) == 664_704
    found = []
    for high, low in pairs(shared_data / "sr" / "Set5_x4"):
        wanted = luma(np.rint(read_image(high) * 255))
        small = Image.fromarray(luma(np.rint(read_image(low) * 255)).astype(np.float32))
        upscaled = np.asarray(small.resize(wanted.shape[::-1], Image.Resampling.BICUBIC))
        with torch.inference_mode():
            output = generator.module(to_tensor(upscaled[..., None] / 255, (0.0, 1.0)))
        found.append(psnr_y(to_pixels(output, (0.0, 1.0))[..., 0] * 255, wanted))
    assert np.mean(found) == pytest.approx(31.44, abs=0.01)


def test_gan_compression_generator(shared_data: Path) -> None:
    generator = load(shared_data / "weights" / "gan_compression_horse2zebra.pth")
    assert generator.spec.family == "mobile_resnet"
    assert generator.spec.arguments["down"] == [16, 32, 128]
    assert generator.spec.arguments["inner"] == [64] * 3 + [128] * 6
    assert generator.spec.arguments["up"] == [32, 16]
    assert sum(p.numel() for p in generator.module.parameters()) == 356_867


@pytest.mark.acceptance
def test_gan_compression_generator_agrees_with_the_official_one(shared_data: Path) -> None:
    """On most horses its picture is nearer to the official CycleGAN's zebra than the horse itself is."""
    generator = load(shared_data / "weights" / "gan_compression_horse2zebra.pth")
    nearer = []
    for horse in sorted((shared_data / "horse2zebra" / "testA_real").iterdir())[:12]:
        name = horse.name.replace("_real", "_fake")
        zebra = horse.parent.parent / "fake_horse2zebra_pretrained" / name
        x = to_tensor(read_image(horse), (-1.0, 1.0))
        with torch.inference_mode():
            ours = to_pixels(generator.module(x), (-1.0, 1.0))
        official = read_image(zebra)
        nearer.append(np.square(ours - official).mean() < np.square(read_image(horse) - official).mean())
    assert np.mean(nearer) > 0.5


@pytest.mark.parametrize("name", ["la_muse", "wave"])
def test_fast_style(shared_data: Path, name: str) -> None:
    path = shared_data / "weights" / f"fast_style_{name}.safetensors"
    generator = load(path, factory=f"{NETWORKS}.fast_style:fast_style")
    assert sum(p.numel() for p in generator.module.parameters()) == 1_677_638
    assert generator.spec.image.input_range == (0.0, 255.0)
    horse = sorted((shared_data / "horse2zebra" / "testA_real").iterdir())[0]
    with torch.inference_mode():
        output = generator.module(to_tensor(read_image(horse), (0.0, 255.0)))
    assert output.shape == (1, 3, 256, 256)
    assert output.min() >= -22.5
    assert output.max() <= 277.5
    picture = to_pixels(output, (0.0, 255.0))
    structure = np.corrcoef(picture.mean(2).ravel(), read_image(horse).mean(2).ravel())[0, 1]
    assert structure > 0.2  # the style changes colours, the scene stays
