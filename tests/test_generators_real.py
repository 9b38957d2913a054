"""Real generators, as their users have them, give the figures their authors published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.judging import upscaling_psnr, vdsr_psnr, zebra_rate
from compressor.data.images import read_image, to_pixels, to_tensor
from compressor.generators import load

NETWORKS = "benchmarks.networks"
CLASSIFIER = "mobilenet_v1_075_224.safetensors"


@pytest.mark.acceptance
def test_imdn_on_set5(shared_data: Path) -> None:
    generator = load(shared_data / "weights" / "IMDN_x4.pth", factory=f"{NETWORKS}.imdn:imdn_x4")
    assert sum(p.numel() for p in generator.module.parameters()) == 715_176
    assert upscaling_psnr(generator, shared_data / "sr" / "Set5_x4") == pytest.approx(32.211, abs=0.01)


@pytest.mark.acceptance
def test_realesr_animevideo_on_set5(shared_data: Path) -> None:
    generator = load(shared_data / "weights" / "realesr-animevideov3.pth")
    assert generator.spec.arguments == {
        **{"input_channels": 3, "output_channels": 3, "features": 64},
        **{"convolutions": 16, "scale": 4, "activation": "prelu"},
    }
    assert sum(p.numel() for p in generator.module.parameters()) == 621_424
    assert upscaling_psnr(generator, shared_data / "sr" / "Set5_x4") == pytest.approx(28.232, abs=0.001)


@pytest.mark.acceptance
def test_vdsr_on_set5(shared_data: Path) -> None:
    """On the bicubic-upscaled Y plane, nothing rounded."""
    generator = load(shared_data / "weights" / "vdsr_x4.safetensors", factory=f"{NETWORKS}.vdsr:vdsr")
    assert sum(p.numel() for p in generator.module.parameters()) == 664_704
    assert vdsr_psnr(generator, shared_data / "sr" / "Set5_x4") == pytest.approx(31.44, abs=0.01)


def test_zebras_are_told_from_horses(shared_data: Path) -> None:
    """On 35 of the 50 published horses; on all, the official generator's rate is 0.82."""
    folder, weights = shared_data / "horse2zebra", shared_data / "weights"
    rates = {
        name: zebra_rate(map(read_image, sorted((folder / name).iterdir())), weights / CLASSIFIER)
        for name in ("testA_real", "fake_horse2zebra_pretrained")
    }
    assert rates["testA_real"] == 0
    assert 0.8 <= rates["fake_horse2zebra_pretrained"] <= 0.9


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
