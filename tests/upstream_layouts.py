"""State dicts in the key layouts of the programs that publish them, and what they compute.

Both are written out from the layouts, one function call a layer, and share no code with
compressor/generators: the tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


class Maker:
    """Collects random weights under upstream's names."""

    def __init__(self, seed: int = 0):
        self.random = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def conv(self, name: str, outputs: int, inputs: int, kernel: int, bias: bool = True) -> None:
        scale = (inputs * kernel * kernel) ** -0.5
        self.state[f"{name}.weight"] = self._normal(outputs, inputs, kernel, kernel) * scale
        if bias:
            self.state[f"{name}.bias"] = self._normal(outputs) * 0.1

    def up(self, name: str, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        self.conv(name, inputs, outputs, kernel, False)
        if bias:
            self.state[f"{name}.bias"] = self._normal(outputs) * 0.1

    def batch_norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.2 * self._normal(channels)
        self.state[f"{name}.bias"] = 0.2 * self._normal(channels)
        self.state[f"{name}.running_mean"] = self._normal(channels)
        self.state[f"{name}.running_var"] = 0.5 + self._normal(channels).abs()
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def vector(self, name: str, channels: int) -> None:
        self.state[name] = 0.2 + 0.1 * self._normal(channels)

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random)


def instance_norm(x: torch.Tensor) -> torch.Tensor:
    """(x - mean) / sqrt(biased variance + 1e-5) per image and channel."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def batch_norm(state: State, name: str, x: torch.Tensor, training: bool) -> torch.Tensor:
    """PyTorch's own batch norm, on the batch's statistics or the running ones."""
    mean, variance = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
    return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], training)


def norm_of(state: State, training: bool) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Batch norm where a layer has it, else instance norm."""

    def apply(name: str, x: torch.Tensor) -> torch.Tensor:
        return batch_norm(state, name, x, training) if f"{name}.weight" in state else instance_norm(x)

    return apply


def conv(state: State, name: str, x: torch.Tensor, **settings: object) -> torch.Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), **settings)


def reflect(x: torch.Tensor, margin: int) -> torch.Tensor:
    return F.pad(x, (margin,) * 4, mode="reflect")


def resnet(width: int, blocks: int, second: int = 5, norm: str = "instance", fork: bool = False) -> State:
    """pytorch-CycleGAN-and-pix2pix ResnetGenerator; `second` is the block's second convolution (5 or 6)."""
    make, bias = Maker(), norm == "instance"

    def layer(name: str, channels: int) -> None:
        if norm == "batch":
            make.batch_norm(name, channels)

    make.conv("model.1", width, 3, 7, bias)
    layer("model.2", width)
    make.conv("model.4", 2 * width, width, 3, bias)
    layer("model.5", 2 * width)
    make.conv("model.7", 4 * width, 2 * width, 3, bias)
    layer("model.8", 4 * width)
    for index in range(10, 10 + blocks):
        for position in (1, second):
            make.conv(f"model.{index}.conv_block.{position}", 4 * width, 4 * width, 3, bias)
            layer(f"model.{index}.conv_block.{position + 1}", 4 * width)
    end = 10 + blocks
    if fork:  # Upsample, ReflectionPad, Conv, norm, ReLU, twice
        make.conv(f"model.{end + 2}", 2 * width, 4 * width, 3, bias)
        layer(f"model.{end + 3}", 2 * width)
        make.conv(f"model.{end + 7}", width, 2 * width, 3, bias)
        layer(f"model.{end + 8}", width)
        make.conv(f"model.{end + 11}", 3, width, 7)
    else:
        make.up(f"model.{end}", 4 * width, 2 * width, 3, bias)
        layer(f"model.{end + 1}", 2 * width)
        make.up(f"model.{end + 3}", 2 * width, width, 3, bias)
        layer(f"model.{end + 4}", width)
        make.conv(f"model.{end + 7}", 3, width, 7)
    return make.state


def run_resnet(
    state: State, x: torch.Tensor, blocks: int, second: int = 5, fork: bool = False, training: bool = True
) -> torch.Tensor:
    norm, end = norm_of(state, training), 10 + blocks
    x = F.relu(norm("model.2", conv(state, "model.1", reflect(x, 3))))
    x = F.relu(norm("model.5", conv(state, "model.4", x, stride=2, padding=1)))
    x = F.relu(norm("model.8", conv(state, "model.7", x, stride=2, padding=1)))
    for index in range(10, end):
        name = f"model.{index}.conv_block"
        y = F.relu(norm(f"{name}.2", conv(state, f"{name}.1", reflect(x, 1))))
        x = x + norm(f"{name}.{second + 1}", conv(state, f"{name}.{second}", reflect(y, 1)))
    for step in range(2):
        if fork:
            at = end + 5 * step + 2
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = conv(state, f"model.{at}", reflect(x, 1))
        else:
            at = end + 3 * step
            weight, bias = state[f"model.{at}.weight"], state.get(f"model.{at}.bias")
            x = F.conv_transpose2d(x, weight, bias, 2, padding=1, output_padding=1)
        x = F.relu(norm(f"model.{at + 1}", x))
    return torch.tanh(conv(state, f"model.{end + (11 if fork else 7)}", reflect(x, 3)))


def unet(width: int, depth: int, norm: str = "batch") -> State:
    """pytorch-CycleGAN-and-pix2pix UnetGenerator, nested names."""
    make, bias = Maker(), norm == "instance"
    widths = [width * min(2**level, 8) for level in range(depth)]
    make.conv("model.model.0", widths[0], 3, 4, bias)
    prefix = "model.model.1.model."
    for level in range(1, depth):
        innermost = level == depth - 1
        up, after = ("3", "4") if innermost else ("5", "6")
        make.conv(f"{prefix}1", widths[level], widths[level - 1], 4, bias)
        if not innermost and norm == "batch":
            make.batch_norm(f"{prefix}2", widths[level])
        make.up(f"{prefix}{up}", widths[level] * (1 if innermost else 2), widths[level - 1], 4, bias)
        if norm == "batch":
            make.batch_norm(f"{prefix}{after}", widths[level - 1])
        prefix += "3.model."
    make.up("model.model.3", 2 * widths[0], 3, 4)
    return make.state


def run_unet(state: State, x: torch.Tensor, depth: int, training: bool = True) -> torch.Tensor:
    """Encoder, then decoder, without the nesting; dropout off."""
    norm = norm_of(state, training)
    skips, prefix, prefixes = (
        [conv(state, "model.model.0", x, stride=2, padding=1)],
        "model.model.1.model.",
        [],
    )
    for level in range(1, depth):
        y = conv(state, f"{prefix}1", F.leaky_relu(skips[-1], 0.2), stride=2, padding=1)
        skips.append(norm(f"{prefix}2", y) if level < depth - 1 else y)
        prefixes.append(prefix)
        prefix += "3.model."
    y = skips.pop()
    for level in range(depth - 1, 0, -1):
        prefix = prefixes[level - 1]
        up, after = ("3", "4") if level == depth - 1 else ("5", "6")
        weight, bias = state[f"{prefix}{up}.weight"], state.get(f"{prefix}{up}.bias")
        y = norm(f"{prefix}{after}", F.conv_transpose2d(F.relu(y), weight, bias, 2, padding=1))
        y = torch.cat([skips.pop(), y], 1)
    weight, bias = state["model.model.3.weight"], state["model.model.3.bias"]
    return torch.tanh(F.conv_transpose2d(F.relu(y), weight, bias, 2, padding=1))


def mobile_resnet(down: tuple[int, ...], inner: tuple[int, ...], up: tuple[int, ...]) -> State:
    """gan-compression's SubMobileResnetGenerator with instance norm."""
    make, before = Maker(), 3
    for index, width, kernel in zip((1, 4, 7), down, (7, 3, 3), strict=True):
        make.conv(f"model.{index}", width, before, kernel)
        before = width
    for index, width in enumerate(inner, 10):
        for position, inputs, outputs in ((1, before, width), (6, width, before)):
            make.conv(f"model.{index}.conv_block.{position}.conv.0", inputs, 1, 3)
            make.conv(f"model.{index}.conv_block.{position}.conv.2", outputs, inputs, 1)
    end = 10 + len(inner)
    make.up(f"model.{end}", before, up[0], 3)
    make.up(f"model.{end + 3}", up[0], up[1], 3)
    make.conv(f"model.{end + 7}", 3, up[1], 7)
    return make.state


def run_mobile_resnet(state: State, x: torch.Tensor, blocks: int) -> torch.Tensor:
    norm, end = instance_norm, 10 + blocks
    x = F.relu(norm(conv(state, "model.1", reflect(x, 3))))
    x = F.relu(norm(conv(state, "model.4", x, stride=2, padding=1)))
    x = F.relu(norm(conv(state, "model.7", x, stride=2, padding=1)))
    for index in range(10, end):
        y = x
        for position in (1, 6):
            name = f"model.{index}.conv_block.{position}.conv"
            y = norm(conv(state, f"{name}.0", reflect(y, 1), groups=y.shape[1]))
            y = norm(conv(state, f"{name}.2", y))
            y = F.relu(y) if position == 1 else y
        x = x + y
    for at in (end, end + 3):
        weight, bias = state[f"model.{at}.weight"], state[f"model.{at}.bias"]
        x = F.relu(norm(F.conv_transpose2d(x, weight, bias, 2, padding=1, output_padding=1)))
    return torch.tanh(conv(state, f"model.{end + 7}", reflect(x, 3)))


# RRDBNet's three layouts: block name, convolution suffix, then the names of the other convolutions.
RRDB_LAYOUTS = {
    "first": ("model.1.sub.{}.RDB{}.conv{}.0", "model.0 model.1.sub.{} model.3 model.6 model.8 model.10"),
    "second": ("RRDB_trunk.{}.RDB{}.conv{}", "conv_first trunk_conv upconv1 upconv2 HRconv conv_last"),
    "basicsr": ("body.{}.rdb{}.conv{}", "conv_first conv_body conv_up1 conv_up2 conv_hr conv_last"),
}


def rrdb_names(layout: str, blocks: int) -> tuple[str, list[str]]:
    block, others = RRDB_LAYOUTS[layout]
    return block, [name.format(blocks) for name in others.split()]


def rrdbnet(layout: str, features: int, growth: int, blocks: int, inputs: int = 3) -> State:
    """ESRGAN's generator, x4."""
    make = Maker()
    block, (first, trunk, up1, up2, high, last) = rrdb_names(layout, blocks)
    make.conv(first, features, inputs, 3)
    for b in range(blocks):
        for r in (1, 2, 3):
            for c in (1, 2, 3, 4, 5):
                outputs = features if c == 5 else growth
                make.conv(block.format(b, r, c), outputs, features + (c - 1) * growth, 3)
    for name in (trunk, up1, up2, high):
        make.conv(name, features, features, 3)
    make.conv(last, 3, features, 3)
    return make.state


def run_rrdbnet(state: State, x: torch.Tensor, layout: str, blocks: int, unshuffle: int = 1) -> torch.Tensor:
    block, (first, trunk, up1, up2, high, last) = rrdb_names(layout, blocks)

    def same(name: str, x: torch.Tensor) -> torch.Tensor:
        return conv(state, name, x, padding=1)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    n, c, h, w = x.shape
    s = unshuffle
    x = x.reshape(n, c, h // s, s, w // s, s).permute(0, 1, 3, 5, 2, 4).reshape(n, c * s * s, h // s, w // s)
    x = begin = same(first, x)
    for b in range(blocks):
        entry = x
        for r in (1, 2, 3):
            known = [x]
            for c in (1, 2, 3, 4):
                known.append(F.leaky_relu(same(block.format(b, r, c), torch.cat(known, 1)), 0.2))
            x = x + 0.2 * same(block.format(b, r, 5), torch.cat(known, 1))
        x = entry + 0.2 * x
    x = begin + same(trunk, x)
    x = F.leaky_relu(same(up1, doubled(x)), 0.2)
    x = F.leaky_relu(same(up2, doubled(x)), 0.2)
    return same(last, F.leaky_relu(same(high, x), 0.2))


def srvgg(features: int, convolutions: int, scale: int) -> State:
    """Real-ESRGAN's SRVGGNetCompact with PReLU."""
    make = Maker()
    for index in range(convolutions + 1):
        make.conv(f"body.{2 * index}", features, features if index else 3, 3)
        make.vector(f"body.{2 * index + 1}.weight", features)
    make.conv(f"body.{2 * convolutions + 2}", 3 * scale**2, features, 3)
    return make.state


def run_srvgg(state: State, x: torch.Tensor, convolutions: int, scale: int) -> torch.Tensor:
    y = x
    for index in range(convolutions + 1):
        y = conv(state, f"body.{2 * index}", y, padding=1)
        y = torch.where(y > 0, y, y * state[f"body.{2 * index + 1}.weight"][None, :, None, None])
    y = shuffled(conv(state, f"body.{2 * convolutions + 2}", y, padding=1), scale)
    return y + x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def shuffled(x: torch.Tensor, scale: int) -> torch.Tensor:
    """Pixel shuffle: channel c s^2 + i s + j becomes row i, column j of channel c's s x s cell."""
    n, c, h, w = x.shape
    x = x.reshape(n, c // scale**2, scale, scale, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // scale**2, h * scale, w * scale)


def srresnet(features: int, blocks: int, scale: int, body: str = "body", high: str = "conv_hr") -> State:
    """BasicSR's MSRResNet; mmsr calls the trunk recon_trunk and conv_hr HRconv."""
    make = Maker()
    make.conv("conv_first", features, 3, 3)
    for index in range(blocks):
        make.conv(f"{body}.{index}.conv1", features, features, 3)
        make.conv(f"{body}.{index}.conv2", features, features, 3)
    for step in (1, 2) if scale == 4 else (1,):
        make.conv(f"upconv{step}", features * (4 if scale == 4 else scale**2), features, 3)
    make.conv(high, features, features, 3)
    make.conv("conv_last", 3, features, 3)
    return make.state


def run_srresnet(state: State, x: torch.Tensor, blocks: int, scale: int) -> torch.Tensor:
    def same(name: str, x: torch.Tensor) -> torch.Tensor:
        return conv(state, name, x, padding=1)

    body, high = ("recon_trunk", "HRconv") if "HRconv.weight" in state else ("body", "conv_hr")
    y = F.leaky_relu(same("conv_first", x), 0.1)
    for index in range(blocks):
        y = y + same(f"{body}.{index}.conv2", F.relu(same(f"{body}.{index}.conv1", y)))
    for step in (1, 2) if scale == 4 else (1,):
        y = F.leaky_relu(shuffled(same(f"upconv{step}", y), 2 if scale == 4 else scale), 0.1)
    y = same("conv_last", F.leaky_relu(same(high, y), 0.1))
    return y + F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
