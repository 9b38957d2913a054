"""Generators from the checkpoints their users have: recognised, and computing what upstream computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import upstream_layouts as up
from safetensors.torch import save_file

from compressor.errors import PocketganError, UsageError
from compressor.generators import load
from compressor.generators.families import FAMILIES, construct

Case = tuple[up.State, Callable[[up.State, torch.Tensor], torch.Tensor], str, dict[str, Any], int]

CASES: dict[str, Case] = {
    "resnet, no dropout": (
        up.resnet(6, 2),
        lambda s, x: up.run_resnet(s, x, 2),
        "resnet",
        {"width": 6, "blocks": 2, "norm": "instance", "dropout_slot": False, "upsampling": "transposed"},
        32,
    ),
    "resnet, dropout": (
        up.resnet(4, 3, second=6),
        lambda s, x: up.run_resnet(s, x, 3, second=6),
        "resnet",
        {"width": 4, "blocks": 3, "dropout_slot": True, "padding": "reflect"},
        32,
    ),
    "resnet, batch norm": (
        up.resnet(4, 2, norm="batch"),
        lambda s, x: up.run_resnet(s, x, 2, training=True),
        "resnet",
        {"norm": "batch", "bias": False, "statistics": "image", "dropout_slot": False},
        32,
    ),
    "resnet, batch norm and dropout": (
        up.resnet(4, 2, second=6, norm="batch"),
        lambda s, x: up.run_resnet(s, x, 2, second=6),
        "resnet",
        {"norm": "batch", "dropout_slot": True},
        32,
    ),
    "resnet, resizing fork": (
        up.resnet(4, 2, fork=True),
        lambda s, x: up.run_resnet(s, x, 2, fork=True),
        "resnet",
        {"upsampling": "resize-pad", "resize_mode": "bilinear"},
        32,
    ),
    "unet, batch norm": (
        up.unet(4, 5),
        lambda s, x: up.run_unet(s, x, 5, training=True),
        "unet",
        {"width": 4, "depth": 5, "norm": "batch", "bias": False},
        64,
    ),
    "unet, instance norm": (
        up.unet(4, 6, norm="instance"),
        lambda s, x: up.run_unet(s, x, 6),
        "unet",
        {"width": 4, "depth": 6, "norm": "instance", "bias": True},
        128,
    ),
    "mobile resnet": (
        up.mobile_resnet((5, 6, 8), (3, 7, 8), (4, 3)),
        lambda s, x: up.run_mobile_resnet(s, x, 3),
        "mobile_resnet",
        {"down": [5, 6, 8], "inner": [3, 7, 8], "up": [4, 3], "dropout_slot": True},
        32,
    ),
    **{
        f"rrdbnet, {layout} layout": (
            up.rrdbnet(layout, 6, 4, 2),
            lambda s, x, layout=layout: up.run_rrdbnet(s, x, layout, 2),  # type: ignore[misc]
            "rrdbnet",
            {"features": 6, "growth": 4, "blocks": 2, "upsamplings": 2, "unshuffle": 1},
            12,
        )
        for layout in up.RRDB_LAYOUTS
    },
    "rrdbnet x2": (
        up.rrdbnet("basicsr", 6, 4, 1, inputs=12),
        lambda s, x: up.run_rrdbnet(s, x, "basicsr", 1, unshuffle=2),
        "rrdbnet",
        {"input_channels": 3, "unshuffle": 2},
        12,
    ),
    "rrdbnet x1": (
        up.rrdbnet("basicsr", 6, 4, 1, inputs=48),
        lambda s, x: up.run_rrdbnet(s, x, "basicsr", 1, unshuffle=4),
        "rrdbnet",
        {"input_channels": 3, "unshuffle": 4},
        12,
    ),
    "srvgg": (
        up.srvgg(6, 3, 4),
        lambda s, x: up.run_srvgg(s, x, 3, 4),
        "srvgg",
        {"features": 6, "convolutions": 3, "scale": 4, "activation": "prelu"},
        12,
    ),
    **{
        f"srresnet x{scale}": (
            up.srresnet(6, 2, scale),
            lambda s, x, scale=scale: up.run_srresnet(s, x, 2, scale),  # type: ignore[misc]
            "srresnet",
            {"features": 6, "blocks": 2, "scale": scale},
            12,
        )
        for scale in (2, 3, 4)
    },
    "srresnet, mmsr names": (
        up.srresnet(6, 2, 4, body="recon_trunk", high="HRconv"),
        lambda s, x: up.run_srresnet(s, x, 2, 4),
        "srresnet",
        {"blocks": 2, "scale": 4},
        12,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_computes_what_upstream_computes(name: str, tmp_path: Path) -> None:
    state, run, family, arguments, side = CASES[name]
    torch.save(state, tmp_path / "latest_net_G.pth")
    found = load(tmp_path / "latest_net_G.pth")
    assert found.spec.family == family
    assert arguments.items() <= found.spec.arguments.items()
    assert not found.module.training
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = run(state, x)
        assert torch.allclose(found.module(x), expected, atol=1e-5)
        assert torch.allclose(torch.fx.symbolic_trace(found.module)(x), expected, atol=1e-5)
    image = found.spec.image
    assert image.scale == expected.shape[2] // side
    assert side % image.multiple == 0
    ranged = (-1.0, 1.0) if family in ("resnet", "unet", "mobile_resnet") else (0.0, 1.0)
    assert image.input_range == image.output_range == ranged


def test_batch_norm_on_running_statistics_when_asked(tmp_path: Path) -> None:
    state = up.unet(4, 5)
    torch.save(state, tmp_path / "g.pth")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = load(tmp_path / "g.pth", arguments={"statistics": "running"})
    with torch.no_grad():
        running, image = found.module(x), load(tmp_path / "g.pth").module(x)
        assert torch.allclose(running, up.run_unet(state, x, 5, training=False), atol=1e-5)
    assert (running - image).abs().max() > 0.01


def test_batch_norm_without_batch_counters(tmp_path: Path) -> None:
    """PyTorch before 0.4.1 stored none."""
    state = {k: v for k, v in up.unet(4, 5).items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "g.pth")
    assert load(tmp_path / "g.pth", arguments={"statistics": "running"}).spec.family == "unet"


def test_unet_gives_the_same_result_twice_even_in_train_mode(tmp_path: Path) -> None:
    torch.save(up.unet(4, 5), tmp_path / "g.pth")
    module = load(tmp_path / "g.pth").module
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(module(x), module.train()(x))


def test_batch_statistics_are_each_images_own(tmp_path: Path) -> None:
    """A batch gives what its images give alone."""
    torch.save(up.resnet(4, 1, norm="batch"), tmp_path / "g.pth")
    module = load(tmp_path / "g.pth").module
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(module(x), torch.cat([module(x[:1]), module(x[1:])]), atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"params": {k: v + 1 for k, v in s.items()}, "params_ema": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}, "optimizer": {"lr": 1e-4}},
        lambda s: {"state_dict": {f"netG.{k}": v for k, v in s.items()} | {"netD.0.weight": torch.ones(1)}},
        lambda s: {"netG": s, "netD": {"model.0.weight": torch.ones(3)}},
        lambda s: {f"mine.inner.{k}": v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {"anything": s},
        lambda s: s | {"model.2.running_mean": torch.ones(4), "model.2.running_var": torch.ones(4)},
        lambda s: {k: v.double() for k, v in s.items()},
    ],
    ids=[
        "state_dict", "params_ema", "module", "model", "lightning", "netG", "common", "compiled",
        "lone", "old-instance-norm", "double",
    ],
)  # fmt: skip
def test_wrappings_are_taken_off(wrap: Callable[[up.State], Any], tmp_path: Path) -> None:
    state = up.resnet(4, 1)
    torch.save(wrap(state), tmp_path / "g.pt")
    module = load(tmp_path / "g.pt").module
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_half_precision_safetensors(tmp_path: Path) -> None:
    state = up.srvgg(4, 1, 2)
    save_file({key: value.bfloat16() for key, value in state.items()}, tmp_path / "g.safetensors")
    module = load(tmp_path / "g.safetensors").module
    for key, value in module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].bfloat16().float())


def test_the_nearest_family_and_the_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = up.resnet(4, 2)
    state["model.11.conv_block.5.weight"] = torch.ones(16, 15, 3, 3)
    del state["model.15.bias"]
    state["model.99.extra"] = torch.ones(2)
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(PocketganError, match="the nearest is resnet") as caught:
        load(tmp_path / "g.pth")
    got = str(caught.value)
    assert "1 missing (model.15.bias)" in got
    assert "1 unexpected (model.99.extra)" in got
    assert "model.11.conv_block.5.weight: 16x15x3x3 in the checkpoint, 16x16x3x3 in the network" in got
    assert "--factory" in got


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.ones(3, 3), "decoder.weight": torch.ones(3)}, tmp_path / "g.pth")
    with pytest.raises(PocketganError, match="fits no generator we know") as caught:
        load(tmp_path / "g.pth")
    assert "encoder.weight" in str(caught.value)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    state = up.resnet(4, 1)
    state["model.4.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "g.pth")
    with pytest.raises(PocketganError, match=r"model\.4\.weight"):
        load(tmp_path / "g.pth")


def test_unknown_argument(tmp_path: Path) -> None:
    torch.save(up.resnet(4, 1), tmp_path / "g.pth")
    with pytest.raises(UsageError, match="no such argument"):
        load(tmp_path / "g.pth", arguments={"statistic": "running"})


def test_two_generators_in_one_file(tmp_path: Path) -> None:
    torch.save({"netG_A": up.resnet(4, 1), "netG_B": up.resnet(4, 1)}, tmp_path / "g.pth")
    with pytest.raises(PocketganError, match="several state dicts") as caught:
        load(tmp_path / "g.pth")
    assert "netG_B" in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_built_by_name_and_traced(family: str) -> None:
    with torch.device("meta"):
        module = construct(family, {})
    assert len(list(torch.fx.symbolic_trace(module).graph.nodes)) > 5


@pytest.mark.parametrize(
    ("family", "arguments"),
    [("nonesuch", {}), ("resnet", {"wide": 3}), ("resnet", {"norm": "layer"}), ("srresnet", {"scale": 5}),
     ("unet", {"depth": 1}), ("resnet", {"width": -4}), ("rrdbnet", {"unshuffle": 3})],
)  # fmt: skip
def test_what_cannot_be_built(family: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(PocketganError):
        construct(family, arguments)


def test_fast_style_uses_tensorflow_padding() -> None:
    """SAME puts the odd row below; the transposed convolution is the gradient of the strided one."""
    from benchmarks.networks.fast_style import NormalisedConv, NormalisedUpConv

    x = torch.randn(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    strided = F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, stride=2)
    down = NormalisedConv(2, 4, 3, 2).double()
    down.load_state_dict({"weight": weight, "scale": torch.ones(4), "shift": torch.zeros(4)})
    normed = (strided - strided.mean((2, 3), True)) / (strided.var((2, 3), False, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(down(x), normed)
    y = torch.randn_like(strided)
    (gradient,) = torch.autograd.grad(strided, x, y)
    up_conv = NormalisedUpConv(4, 2).double()
    up_conv.load_state_dict({"weight": weight, "scale": torch.full((2,), 2.0), "shift": torch.ones(2)})
    variance = gradient.var((2, 3), False, keepdim=True)
    assert torch.allclose(
        up_conv(y), 1 + 2 * (gradient - gradient.mean((2, 3), True)) / (variance + 1e-3).sqrt()
    )
