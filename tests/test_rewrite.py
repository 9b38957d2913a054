"""Every rewrite equals what it replaces: as a function over shapes, and applied to a captured network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Small, picture
from torch import fx, nn
from torch.nn import functional as F

from compressor.errors import PocketganError
from exporters import graph as g
from exporters.equalise import equalise
from exporters.rewrite import batch_norm, batch_statistics, factor, rewrite_for
from exporters.rewrite.concatenation import concatenate_channels
from exporters.rewrite.instance_norm import instance_norm
from exporters.rewrite.nearest_upsampling import upsample_nearest
from exporters.rewrite.pixel_shuffle import pixel_shuffle
from exporters.rewrite.reflection_pad import reflection_pad

few = settings(max_examples=25, deadline=None)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16])
sides = st.integers(1, 9)
pads = st.integers(0, 9)


@few
@given(st.integers(10, 14), st.integers(10, 14), pads, pads, pads, pads, dtypes)
def test_reflection_pad_is_bitwise_equal(height, width, left, right, top, bottom, dtype):
    x = picture(2, 3, height, width, dtype=dtype)
    expected = F.pad(x, (left, right, top, bottom), mode="reflect")
    assert torch.equal(reflection_pad(x, [left, right, top, bottom]), expected)


@few
@given(sides, sides, st.integers(1, 4), st.integers(1, 5), dtypes)
def test_pixel_shuffle_is_bitwise_equal(height, width, factor, channels, dtype):
    x = picture(2, channels * factor**2, height, width, dtype=dtype)
    assert torch.equal(pixel_shuffle(x, factor), F.pixel_shuffle(x, factor))


@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=20), sides, sides, dtypes)
def test_concatenation_is_bitwise_equal(channels, height, width, dtype):
    parts = [picture(2, each, height, width, dtype=dtype, seed=n) for n, each in enumerate(channels)]
    assert torch.equal(concatenate_channels(parts), torch.cat(parts, 1))


@few
@given(sides, sides, st.integers(1, 4), st.integers(1, 4), dtypes)
def test_upsample_nearest_is_bitwise_equal(height, width, rows, columns, dtype):
    x = picture(2, 3, height, width, dtype=dtype)
    expected = F.interpolate(x, size=(height * rows, width * columns), mode="nearest")
    assert torch.equal(upsample_nearest(x, rows, columns), expected)


@few
@given(st.integers(2, 9), sides, st.booleans(), st.floats(-50, 50), st.sampled_from([1e-5, 1e-3]))
def test_instance_norm_is_equal_however_far_from_zero(height, width, affine, offset, eps):
    x = picture(2, 5, height, width, dtype=torch.float64) + offset
    weight, bias = (picture(5, dtype=torch.float64, seed=s) if affine else None for s in (1, 2))
    expected = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    torch.testing.assert_close(instance_norm(x, weight, bias, eps), expected, rtol=1e-7, atol=1e-9)


@few
@given(st.booleans(), st.booleans(), st.booleans(), st.floats(1e-4, 1e-1))
def test_folded_batch_norm_is_equal(transposed, has_bias, affine, eps):
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    module = nn.Sequential(kind(3, 5, 3, bias=has_bias), nn.BatchNorm2d(5, eps, affine=affine)).double()
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2)
    if affine:
        nn.init.normal_(module[1].weight)
        nn.init.normal_(module[1].bias)
    module.eval().requires_grad_(False)
    x = picture(1, 3, 8, 7, dtype=torch.float64)
    graph = g.capture(module, x)
    assert batch_norm.rewrite(graph) == 1
    graph.recompile()
    torch.testing.assert_close(graph(x), module(x))


class Functional(nn.Module):
    """What generators write with functions instead of modules."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(picture(4, 4, 3, 3) / 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), torch.cat([self.weight] * 2, 0)[:, :3])
        y = F.relu(F.instance_norm(y), inplace=True)[:, :4]
        y = F.conv_transpose2d(y, self.weight, stride=2, padding=1, output_padding=1)
        y = F.pixel_shuffle(torch.cat([y, y, y], 1), 2)
        return y + F.interpolate(y, scale_factor=2, mode="nearest")[..., : y.shape[2], : y.shape[3]]


def nets() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    stock = nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, 6, 7),
        nn.InstanceNorm2d(6, affine=True),
        nn.ReLU(True),
        nn.Conv2d(6, 5, 4, 2, 1),
        nn.BatchNorm2d(5, track_running_stats=False),
        nn.LeakyReLU(0.2, True),
        nn.ConvTranspose2d(5, 8, 3, 2, 1, 1),
        nn.PixelShuffle(2),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Conv2d(2, 3, 1),
    )
    return {"modules": stock, "functions": Functional(), "mixed": Small()}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("name", ["modules", "functions", "mixed"])
def test_a_rewritten_network_computes_the_same(name, traced):
    module = nets()[name].eval().requires_grad_(False)
    x = picture(1, 3, 24, 16)
    expected = module(x)
    source = fx.symbolic_trace(module) if traced and name != "functions" else module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    for target in ("onnxruntime", "litert"):
        graph = g.capture(source, x)
        used = rewrite_for(target, graph)
        torch.testing.assert_close(graph(x), expected, rtol=1e-4, atol=1e-5)
        operations = {str(node.target) for node in graph.graph.nodes}
        assert "aten.batch_norm.default" not in operations
        if target == "litert":
            assert sum(used.values()) > 3
            left = {"aten.pad.default", "aten.pixel_shuffle.default", "aten.instance_norm.default"}
            assert not left & operations
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), "rewriting a graph must not touch the module"


def test_batch_statistics_equal_pytorch_in_training_mode():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    module = module.requires_grad_(False).eval()
    x = picture(1, 3, 12, 12)
    graph = g.capture(module, x)
    assert batch_statistics.rewrite(graph) == 1
    graph.recompile()
    training = F.batch_norm(module[0](x), None, None, module[1].weight, module[1].bias, training=True)
    torch.testing.assert_close(graph(x), training)


# Where a channel's variance is near eps (the smallest scale here: 3e-5 beside 1e-5), eps is made up for at
# the calibration pictures' mean variance only, and a single picture's may differ.
@pytest.mark.parametrize(("smallest", "decibels"), [(-1, 60), (-2, 50)])
def test_equalised_network_is_the_same_and_its_channels_alike(smallest, decibels):
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.InstanceNorm2d(16, affine=True),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 3, 2),
        nn.InstanceNorm2d(8, eps=1e-3),
        nn.Conv2d(8, 3, 1),
    )
    with torch.no_grad():
        module[0].weight *= torch.logspace(smallest, 2, 16).reshape(-1, 1, 1, 1)  # decades apart
    module.eval().requires_grad_(False)
    pictures = [picture(1, 3, 20, 20, seed=s) for s in range(4)]
    graph = g.capture(module, pictures[0])
    assert equalise(graph, pictures) == 2
    for x in pictures:
        error = (graph(x) - module(x)).square().mean() / module(x).square().mean()
        assert -10 * torch.log10(error) > decibels
    first = next(g.calls(graph, torch.ops.aten.conv2d.default))
    weight = g.constant(graph, first.args[1])
    reach = F.conv2d(pictures[0], weight).abs().amax((0, 2, 3))
    assert reach.max() / reach.min() < 5


def test_networks_that_cannot_be_exported_say_why():
    class TwoOutputs(nn.Module):
        def forward(self, x):
            return x, x + 1

    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.mean() > 0 else x - 1

    for module, words in ((TwoOutputs(), "return one"), (Branching(), "cannot be traced")):
        with pytest.raises(PocketganError, match=words):
            g.capture(module, picture(1, 3, 8, 8))


class Scaled(nn.Module):
    """Convolutions with a factor behind: before or after it, read twice, a tensor, a transposed one."""

    def __init__(self, number: float, bias: bool):
        super().__init__()
        self.plain, self.turned = (nn.Conv2d(4, 4, 3, 1, 1, bias=bias) for _ in range(2))
        self.up = nn.ConvTranspose2d(4, 4, 2, 2, bias=bias)
        self.twice, self.by_tensor = (nn.Conv2d(4, 4, 1, bias=bias) for _ in range(2))
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.plain(x) * self.number + x
        x = self.up(self.number * self.turned(x)) * self.number
        y = self.twice(x)
        return y * self.number + y + self.by_tensor(y) * x


@settings(max_examples=8, deadline=None)
@given(st.floats(-3, 3), st.booleans(), sides, sides)
def test_a_factor_is_folded_into_the_convolution_that_it_alone_scales(number, bias, height, width):
    torch.manual_seed(0)
    module = Scaled(number, bias).eval().requires_grad_(False)
    x = picture(1, 4, height, width)
    graph = g.capture(module, x)
    assert factor.rewrite(graph) == 3
    left = g.calls(graph, torch.ops.aten.mul.Tensor, torch.ops.aten.mul.Scalar)
    assert len(list(left)) == 2  # read twice, and by a tensor
    torch.testing.assert_close(graph(x), module(x), rtol=1e-4, atol=1e-5)
    convolutions = g.calls(graph, torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input)
    assert {g.layer_name(node) for node in convolutions} == {"plain", "turned", "up", "twice", "by_tensor"}
