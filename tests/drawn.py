"""Random small networks, drawn step by step, from everything that channels can meet in a generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Draw = Callable[[int, int], int]  # (lowest, highest) -> a number between them, both included

KINDS = (
    "conv", "depthwise", "grouped", "transposed", "grouped_transposed", "batch", "instance", "instance_stats",
    "group_norm", "prelu", "act", "add", "add_own", "mul", "cat", "cat_twice", "split", "chunk", "front",
    "back", "narrow", "shuffle", "shuffle_function", "shuffle_sizes", "shuffle_numbers", "pixel_shuffle",
    "pixel_shuffle_by_hand", "pixel_unshuffle", "se_conv", "se_linear", "se_flatten", "se_expand",
    "spatial_attention", "scale", "scale_flat", "layer_scale", "buffer", "stack", "interleave", "unbind",
    "flip", "roll", "pad", "shared", "twice_in_sequence", "contrast", "softmax", "tokens", "batch_trick",
    "odd", "glu", "gate", "count_in_arithmetic", "zeros", "weights_read",
)  # fmt: skip


class Drawn(nn.Module):
    """A program of steps over (N, C, H, W) values of one height and width; the picture has 3 channels.

    Each step reads earlier values and adds one.
    """

    def __init__(self, kinds: list[str], draw: Draw):
        super().__init__()
        self.parts = nn.ModuleDict()
        self.owned = nn.ParameterDict()
        self.program: list[tuple[str, str, int, tuple[Any, ...]]] = []
        self.head = nn.Conv2d(3, 2 * draw(2, 6), 3, padding=1)
        self.widths = [self.head.out_channels]
        for number, kind in enumerate(kinds):
            self._add(kind, str(number), draw)
        first = draw(0, len(self.widths) - 1)
        self.ends = (first, len(self.widths) - 1)
        self.tail = nn.Conv2d(self.widths[first] + self.widths[-1], 3, 3, padding=1)
        self.skip = bool(draw(0, 1))

    def _add(self, kind: str, name: str, draw: Draw) -> None:
        source = draw(max(0, len(self.widths) - 3), len(self.widths) - 1)
        channels = self.widths[source]
        groups = [g for g in range(2, channels) if channels % g == 0]
        group = groups[draw(0, len(groups) - 1)] if groups else 1
        out, more = draw(2, 8), ()
        part: nn.Module | None = None
        match kind:
            case "conv":
                mode = ("zeros", "reflect")[draw(0, 1)]
                part = nn.Conv2d(channels, out, 3, padding=1, bias=bool(draw(0, 1)), padding_mode=mode)
            case "depthwise":
                out = channels * draw(1, 2)
                part = nn.Conv2d(channels, out, 3, padding=1, groups=channels)
            case "grouped":
                out = group * draw(1, 3)
                part = nn.Conv2d(channels, out, 3, padding=1, groups=group)
            case "transposed" | "grouped_transposed":
                over = (channels if draw(0, 1) else group) if kind == "grouped_transposed" else 1
                out = over * draw(1, 3)
                part = nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1, groups=over)
            case "batch":
                part, out = nn.BatchNorm2d(channels), channels
            case "instance":
                part, out = nn.InstanceNorm2d(channels, affine=bool(draw(0, 1))), channels
            case "instance_stats":
                part, out = nn.InstanceNorm2d(channels, affine=True, track_running_stats=True), channels
            case "group_norm":
                part, out = nn.GroupNorm((1, group, channels)[draw(0, 2)], channels), channels
            case "prelu":
                part, out = nn.PReLU((1, channels)[draw(0, 1)]), channels
            case "add" | "mul" | "stack" | "interleave":
                others = [i for i, width in enumerate(self.widths) if width == channels]
                more = (others[draw(0, len(others) - 1)],)
                out = channels * 2 if kind == "interleave" else channels
            case "cat":
                other = draw(0, len(self.widths) - 1)
                out, more = channels + self.widths[other], (other,)
            case "cat_twice":
                out = 2 * channels
            case "split" | "front" | "back" | "narrow":
                at = draw(1, channels - 1) if channels > 1 else 0
                out = {"split": channels, "front": at, "back": channels - at, "narrow": channels - at}[kind]
                more = (at, bool(draw(0, 1)))
                if at == 0:
                    kind, out = "act", channels
            case "chunk":
                out, more = channels, (min(channels, draw(2, 3)),)
            case "glu" | "gate":
                part, out = nn.Conv2d(channels, 2 * out, 1), out
            case "shuffle":
                part, out = nn.ChannelShuffle(group), channels
            case "shuffle_function" | "shuffle_sizes" | "shuffle_numbers" | "unbind":
                out, more = (channels // group if kind == "unbind" else channels), (group, channels // group)
            case "batch_trick":
                out, more = channels, (group, channels // group)
                part = nn.Conv2d(channels // group, channels // group, 1)
            case "pixel_shuffle" | "pixel_shuffle_by_hand":
                part, out = nn.Conv2d(channels, 4 * out, 1), out
                more = (out, bool(draw(0, 1)))
            case "pixel_unshuffle":
                part, out = nn.PixelUnshuffle(2), 4 * channels
            case "se_conv" | "se_linear" | "se_flatten" | "se_expand":
                layer: Any = (lambda a, b: nn.Conv2d(a, b, 1)) if kind == "se_conv" else nn.Linear
                hidden = draw(2, 4)
                part, more = (
                    nn.Sequential(layer(channels, hidden), nn.ReLU(), layer(hidden, channels)),
                    (channels,),
                )
                out = channels
            case "spatial_attention" | "softmax" | "contrast" | "act" | "flip" | "roll" | "pad" | "zeros":
                out, more = channels, (draw(0, 3),)
                if kind == "spatial_attention":
                    part = nn.Conv2d(channels, 1, 3, padding=1)
            case "scale" | "scale_flat" | "layer_scale":
                shape = {
                    "scale": (1, channels, 1, 1),
                    "scale_flat": (channels,),
                    "layer_scale": (channels, 1, 1),
                }
                self.owned[name] = nn.Parameter(torch.randn(shape[kind]))
                out = channels
            case "buffer":
                self.register_buffer(f"mean{name}", torch.randn(channels), persistent=bool(draw(0, 1)))
                self.register_buffer(f"shift{name}", torch.randn(1, channels, 1, 1))
                out = channels
            case "add_own" | "shared":
                part, out = nn.Conv2d(channels, channels, 3, padding=1), channels
            case "twice_in_sequence":
                block = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
                part, out = nn.Sequential(block, block), channels
            case "tokens":
                part = nn.Sequential(nn.Linear(channels, out), nn.GELU(), nn.Linear(out, channels))
                out = channels
            case "weights_read":
                part, out = nn.Conv2d(channels, channels, 1), channels
            case "odd":
                which = draw(0, 3)
                part = (
                    nn.LayerNorm(channels) if which == 0 else nn.LocalResponseNorm(3) if which == 1 else None
                )
                out, more = channels, (which,)
            case _:
                out = channels
        if part is not None:
            self.parts[name] = part
        self.widths.append(out)
        self.program.append((kind, name, source, more))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        values = [self.head(picture)]
        for kind, name, source, more in self.program:
            part = self.parts._modules.get(name)
            values.append(self._step(kind, name, part, values[source], values, more))
        y = self.tail(torch.cat([values[self.ends[0]], values[self.ends[1]]], 1))
        return torch.tanh(y + picture if self.skip else y)

    def _step(self, kind: str, name: str, part: Any, x: Any, values: list[Any], more: tuple[Any, ...]) -> Any:
        match kind:
            case "transposed" | "grouped_transposed":
                return F.avg_pool2d(part(x), 2)
            case "add":
                return x + values[more[0]]
            case "add_own":
                return torch.add(x, F.relu(part(x)))
            case "mul":
                return x * torch.sigmoid(values[more[0]])
            case "cat":
                return torch.cat((values[more[0]], x), dim=1)
            case "cat_twice":
                return torch.cat([x, F.relu(x)], -3)
            case "split":
                left, right = torch.split(x, (more[0], x.size(1) - more[0]), dim=1)
                return torch.cat([right, left.square()] if more[1] else [F.relu(left), right], 1)
            case "chunk":
                return torch.cat(x.chunk(more[0], dim=1)[::-1], 1)
            case "front":
                return x[:, : more[0]] if more[1] else x[:, : more[0], ...].tanh()
            case "back":
                return x[:, more[0] :] if more[1] else x[..., more[0] :, :, :]
            case "narrow":
                return x.narrow(1, more[0], x.shape[1] - more[0])
            case "glu":
                return F.glu(part(x), 1)
            case "gate":
                left, right = part(x).chunk(2, dim=1)
                return left * right
            case "shuffle_function":
                return torch.channel_shuffle(x, more[0])
            case "shuffle_sizes":
                n, c, h, w = x.shape
                y = x.view(n, more[0], c // more[0], h, w).transpose(1, 2).contiguous()
                return y.view(n, -1, h, w)
            case "shuffle_numbers":
                y = torch.reshape(x, (x.size(0), *more, x.size(2), x.size(3))).permute(0, 2, 1, 3, 4)
                return y.reshape(x.size(0), more[0] * more[1], x.size(2), x.size(3))
            case "unbind":
                pieces = x.unflatten(1, (more[0], -1)).unbind(1)
                return pieces[0] + pieces[-1].sigmoid()
            case "batch_trick":
                n, c, h, w = x.size()
                return part(x.reshape(n * more[0], c // more[0], h, w)).view(n, c, h, w)
            case "pixel_shuffle":
                return F.avg_pool2d(F.pixel_shuffle(part(x), 2), 2)
            case "pixel_shuffle_by_hand":
                y = part(x)
                n, c, h, w = y.shape
                y = y.view(n, more[0] if more[1] else c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3)
                return F.max_pool2d(y.reshape(n, c // 4, 2 * h, 2 * w), 2)
            case "pixel_unshuffle":
                return F.interpolate(part(x), scale_factor=2, mode="nearest")
            case "se_conv":
                return x * torch.sigmoid(part(F.adaptive_avg_pool2d(x, 1)))
            case "se_linear":
                return x * torch.sigmoid(part(x.mean((2, 3))))[:, :, None, None]
            case "se_flatten":
                y = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
                return x * part(y).sigmoid().view(-1, more[0], 1, 1)
            case "se_expand":
                n, c, _, _ = x.size()
                y = torch.sigmoid(part(F.adaptive_avg_pool2d(x, 1).view(n, c))).view(n, c, 1, 1)
                return x * y.expand_as(x)
            case "spatial_attention":
                return x * torch.sigmoid(part(x))
            case "contrast":
                mean = x.mean(dim=(2, 3), keepdim=True)
                return x + ((x - mean) ** 2).mean((2, 3), keepdim=True).sqrt() + mean
            case "softmax":
                return x * torch.softmax(x.flatten(2), -1).reshape(x.shape)
            case "scale":
                return x * self.owned[name] + 1.0
            case "scale_flat":
                return x + self.owned[name].view(1, -1, 1, 1)
            case "layer_scale":
                return torch.exp(self.owned[name]) * x
            case "buffer":
                return (x - getattr(self, f"mean{name}")[:, None, None]) * getattr(self, f"shift{name}")
            case "stack":
                return torch.stack([x, values[more[0]]], 0).mean(0)
            case "interleave":
                return torch.stack((x, values[more[0]]), dim=2).flatten(1, 2)
            case "flip":
                return torch.flip(x, [2]) if more[0] % 2 else x.flip(1)
            case "roll":
                return torch.roll(x, (1, 2), dims=(2, 3))
            case "pad":
                return F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1].contiguous()
            case "shared":
                return part(F.relu(part(x)))
            case "tokens":
                n, c, h, w = x.shape
                y = part(x.view(n, c, h * w).transpose(1, 2)) + x.flatten(2).permute(0, 2, 1)
                return y.transpose(1, 2).reshape(n, c, h, w).contiguous()
            case "zeros":
                return torch.cat([x, torch.zeros_like(x)], 1)[:, : x.shape[1]]
            case "count_in_arithmetic":
                return x * x.shape[1] ** -0.5
            case "weights_read":
                return F.conv2d(x, part.weight) + part(x)
            case "odd" if more[0] == 0:
                return part(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "odd" if more[0] == 2:
                return x.roll(1, 1)
            case "odd" if more[0] == 3:
                return x - x.mean(1, keepdim=True)
            case "act":
                return (F.relu, F.gelu, torch.tanh, torch.abs)[more[0]](x)
        return part(x)


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Random weights, affines and running statistics, in double precision and eval mode."""
    draw = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if not value.is_floating_point():
                continue
            fan_in = max(1, value[0].numel()) if value.dim() > 1 else 4
            value.copy_(torch.randn(value.shape, generator=draw, dtype=torch.float64) / fan_in**0.5)
            if "running_var" in name:
                value.abs_().add_(0.5)
    return module
