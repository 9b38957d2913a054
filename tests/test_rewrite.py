"""Every rewrite equals what it replaces: as a function over shapes, and applied to a captured network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Small
from torch import fx, nn
from torch.nn import functional as F

from compressor.errors import PocketganError
from exporters import graph as g
from exporters.equalise import equalise
from exporters.rewrite import (
    batch_norm,
    batch_statistics,
    edges,
    narrow_convolution,
    rewrite_for,
    subpixel_convolution,
)
from exporters.rewrite.concatenation import concatenate_channels
from exporters.rewrite.edges import cut, pad
from exporters.rewrite.instance_norm import instance_norm
from exporters.rewrite.interleave import interleave
from exporters.rewrite.nearest_upsampling import upsample_nearest
from exporters.rewrite.pixel_shuffle import pixel_shuffle
from exporters.rewrite.reflection_pad import reflection_pad
from exporters.rewrite.transposed_convolution import transposed_convolution

few = settings(max_examples=25, deadline=None)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16])
sides = st.integers(1, 9)
pads = st.integers(0, 9)


def picture(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


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
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.booleans(),
)
def test_transposed_convolution_is_equal(size, kernel, stride, padding, extra, has_bias):
    extra = [min(e, s - 1) for e, s in zip(extra, stride, strict=True)]
    out = [
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip(size, stride, padding, kernel, extra, strict=True)
    ]
    x, weight = picture(2, 3, *size, dtype=torch.float64), picture(3, 4, *kernel, dtype=torch.float64)
    bias = picture(4, dtype=torch.float64) if has_bias else None
    if min(out) < 1:
        return  # torch itself refuses
    expected = F.conv_transpose2d(x, weight, bias, stride, padding, extra)
    found = transposed_convolution(x, weight, bias, list(stride), list(padding), extra)
    torch.testing.assert_close(found, expected)


@few
@given(sides, sides, st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), dtypes)
def test_interleaving_is_pixel_shuffle_of_channels_in_another_order(
    height, width, rows, columns, channels, dtype
):
    x = picture(2, rows * columns * channels, height, width, dtype=dtype)
    found = interleave(x, rows, columns)
    places = x.reshape(2, rows, columns, channels, height, width).permute(0, 3, 4, 1, 5, 2)
    assert torch.equal(found, places.reshape(2, channels, height * rows, width * columns))
    if rows == columns:
        by_channel = x.reshape(2, rows * columns, channels, height, width).transpose(1, 2).flatten(1, 2)
        assert torch.equal(found, F.pixel_shuffle(by_channel, rows))


@few
@given(sides, sides, st.tuples(*[st.integers(-4, 4)] * 4), st.sampled_from([0.0, -1.5]), dtypes)
def test_constants_around_are_bitwise_equal(height, width, padding, value, dtype):
    if (
        height + min(padding[2], 0) + min(padding[3], 0) < 1
        or width + min(padding[0], 0) + min(padding[1], 0) < 1
    ):
        return  # nothing is left
    x = picture(2, 3, height, width, dtype=dtype)
    assert torch.equal(pad(x, list(padding), value), F.pad(x, padding, value=value))


@few
@given(sides, sides, st.sampled_from([2, 3]), st.integers(-9, 9), st.none() | st.integers(-9, 9))
def test_cuts_are_bitwise_equal(height, width, axis, start, end):
    x = picture(2, 3, height, width)
    for step in (1, 2):
        expected = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
        assert torch.equal(cut(x, axis, start, end, step), expected)


def rewritten(module: nn.Module, x: torch.Tensor, rewrite) -> tuple[fx.GraphModule, int]:
    """A network's graph after one rewrite, and how often that was used; the network keeps its weights."""
    module = module.double().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    graph = g.capture(module, x)
    count = rewrite(graph)
    graph.recompile()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.testing.assert_close(graph(x), module(x))
    return graph, count


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.booleans(),
)
def test_transposed_convolutions_equal_convolutions_over_cells(
    size, kernel, stride, padding, extra, has_bias
):
    extra = tuple(min(e, s - 1) for e, s in zip(extra, stride, strict=True))
    out = [
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip(size, stride, padding, kernel, extra, strict=True)
    ]
    if min(out) < 1:
        return  # torch itself refuses
    torch.manual_seed(0)
    module = nn.ConvTranspose2d(3, 4, kernel, stride, padding, extra, bias=has_bias)
    _, count = rewritten(module, picture(2, 3, *size, dtype=torch.float64), subpixel_convolution.rewrite)
    assert count == (stride[0] <= 4)


@pytest.mark.parametrize(
    ("kernel", "padding", "extra", "taps", "crop"), [(3, 1, 1, 2, 0), (4, 1, 0, 2, 1), (2, 0, 0, 1, 0)]
)
def test_a_cell_reads_no_more_than_it_must(kernel, padding, extra, taps, crop):
    axis = subpixel_convolution.Axis.of(64, kernel, 2, padding, extra)
    assert (axis.taps, axis.crop, axis.size) == (taps, crop, 128)


def test_what_is_no_plain_transposed_convolution_stays():
    grouped = nn.ConvTranspose2d(4, 4, 3, 2, groups=2)
    dilated = nn.ConvTranspose2d(4, 4, 3, 2, dilation=2)
    x = picture(1, 4, 5, 5, dtype=torch.float64)
    assert [rewritten(m, x, subpixel_convolution.rewrite)[1] for m in (grouped, dilated)] == [0, 0]


@few
@given(
    st.integers(1, 6),
    st.tuples(st.integers(1, 5), st.integers(2, 9)),
    st.tuples(st.integers(5, 9), st.integers(9, 24)),
    st.integers(1, 3),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.booleans(),
)
def test_narrow_convolutions_equal_several_columns_at_once(channels, kernel, size, stride, padding, has_bias):
    torch.manual_seed(0)
    module = nn.Conv2d(3, channels, kernel, (stride, 1), padding, bias=has_bias)
    x = picture(2, 3, *size, dtype=torch.float64)
    columns = narrow_convolution.columns_at_once(channels, kernel[1], module.double()(x).shape[3])
    graph, count = rewritten(module, x, narrow_convolution.rewrite)
    assert count == (columns > 1)
    assert g.shape(next(n for n in graph.graph.nodes if n.target == "weight"))  # under its old name
    assert len(graph.weight) == columns * channels <= 16


@pytest.mark.parametrize(
    ("outputs", "kernel", "width", "columns"),
    [(3, 7, 256, 4), (3, 7, 255, 5), (3, 7, 257, 1), (1, 3, 256, 16), (3, 1, 256, 1), (64, 7, 256, 1)],
)
def test_columns_fill_the_lanes_and_divide_the_width(outputs, kernel, width, columns):
    assert narrow_convolution.columns_at_once(outputs, kernel, width) == columns


def test_wide_strided_and_grouped_convolutions_stay():
    strided, grouped = nn.Conv2d(3, 3, 7, 2), nn.Conv2d(3, 3, 7, groups=3)
    x = picture(1, 3, 18, 18, dtype=torch.float64)
    assert [rewritten(m, x, narrow_convolution.rewrite)[1] for m in (strided, grouped)] == [0, 0]


def test_edges_of_pictures_are_found_and_others_left():
    class Edged(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.pad(F.pad(x, (1, 2)), (0, 1, 2, -1), value=0.5)
            return F.pad(x[:, 1:, :-1, 2:], (1, 1, 1, 1), mode="reflect")

    graph, count = rewritten(Edged(), picture(1, 3, 8, 7, dtype=torch.float64), edges.rewrite)
    assert count == 4
    kept = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert {"aten.slice.Tensor", "aten.pad.default"} <= set(kept)  # of channels; reflecting


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
