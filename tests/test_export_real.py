"""The six files of real generators on real pictures (acceptance; needs the shared data)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.data.images import list_images, split_held_out
from compressor.generators import Generator, GeneratorSpec, ImageFormat, load
from compressor.generators.families import construct
from exporters.export import export

REAL = {
    "gan_compression_horse2zebra.pth": (None, "horse2zebra/testA_real"),
    "fast_style_la_muse.safetensors": ("benchmarks.networks.fast_style:fast_style", "horse2zebra/testA_real"),
    "realesr-animevideov3.pth": (None, "sr/Set14_x4"),
    "IMDN_x4.pth": ("benchmarks.networks.imdn:imdn_x4", "sr/Set14_x4"),
}


@pytest.mark.acceptance
@pytest.mark.parametrize("name", REAL)
def test_real_generators_give_six_files_near_pytorch(name, shared_data, tmp_path):
    factory, pictures = REAL[name]
    generator = load(shared_data / "weights" / name, factory=factory)
    found = [path for path in list_images(shared_data / pictures) if not path.stem.endswith("_HR")]
    calibrate, compare = split_held_out(found)
    result = export(generator, calibrate, tmp_path, images_held_out=compare, calibration=8)
    for file in result.files:
        assert file.passed, file
        if file.precision != "int8":
            assert file.parity.psnr_min >= 70
        if file.runtime == "litert":
            assert file.delegation.partitions == 1, file
            assert all(each.operator == "TRANSPOSE" and each.why for each in file.departures), file
    assert len(result.files) == 6


def started(module: nn.Module) -> nn.Module:
    """CycleGAN's and Pix2Pix's initial weights: normal, 0.02; norms that are not the identity."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d) and part.weight is not None:
            nn.init.normal_(part.weight, 1.0, 0.2)
            nn.init.normal_(part.bias, 0.0, 0.2)
    return module.eval().requires_grad_(False)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "family, arguments",
    [("resnet", {"width": 64, "blocks": 9}), ("unet", {"width": 64})],
)
def test_cyclegan_and_pix2pix_shapes_give_six_files(family, arguments, shared_data, tmp_path):
    module = started(construct(family, arguments))
    generator = Generator(GeneratorSpec(family, arguments, ImageFormat()), module, tmp_path, "0" * 64)
    pictures = list_images(shared_data / "horse2zebra" / "testA_real")
    result = export(generator, pictures[:4], tmp_path / "out", images_held_out=pictures[-2:])
    assert len(result.files) == 6 and result.passed
