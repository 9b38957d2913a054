"""Rewrites of convolutions and of edges: as functions over shapes, and applied to captured networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import picture
from torch import fx, nn
from torch.nn import functional as F

from exporters import graph as g
from exporters.rewrite import edges, narrow_convolution, subpixel_convolution
from exporters.rewrite.edges import cut, pad
from exporters.rewrite.interleave import interleave
from exporters.rewrite.transposed_convolution import transposed_convolution

few = settings(max_examples=25, deadline=None)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16])
sides = st.integers(1, 9)


def assume_possible(size, kernel, stride, padding, extra) -> None:
    """Leave out transposed convolutions that torch itself refuses, since nothing comes out."""
    sides = zip(size, stride, padding, kernel, extra, strict=True)
    assume(all((n - 1) * s - 2 * p + k + e >= 1 for n, s, p, k, e in sides))


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


def test_edges_of_pictures_are_found_and_others_left():
    class Edged(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.pad(F.pad(x, (1, 2)), (0, 1, 2, -1), value=0.5)
            return F.pad(x[:, 1:, :-1, 2:], (1, 1, 1, 1), mode="reflect")

    graph, count = rewritten(Edged(), picture(1, 3, 8, 7, dtype=torch.float64), edges.rewrite)
    assert count == 4
    kept = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert {"aten.slice.Tensor", "aten.pad.default"} <= set(kept)  # of channels; reflecting


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(least, most), st.integers(least, most))


@few
@given(pairs(1, 6), pairs(1, 5), pairs(1, 4), pairs(0, 2), pairs(0, 3), st.booleans())
def test_transposed_convolution_is_equal(size, kernel, stride, padding, extra, has_bias):
    extra = [min(e, s - 1) for e, s in zip(extra, stride, strict=True)]
    assume_possible(size, kernel, stride, padding, extra)
    x, weight = picture(2, 3, *size, dtype=torch.float64), picture(3, 4, *kernel, dtype=torch.float64)
    bias = picture(4, dtype=torch.float64) if has_bias else None
    expected = F.conv_transpose2d(x, weight, bias, stride, padding, extra)
    found = transposed_convolution(x, weight, bias, list(stride), list(padding), extra)
    torch.testing.assert_close(found, expected)


@settings(max_examples=60, deadline=None)
@given(pairs(1, 6), pairs(1, 7), pairs(1, 5), pairs(0, 3), pairs(0, 4), st.booleans())
def test_transposed_convolutions_equal_convolutions_over_cells(
    size, kernel, stride, padding, extra, has_bias
):
    extra = tuple(min(e, s - 1) for e, s in zip(extra, stride, strict=True))
    assume_possible(size, kernel, stride, padding, extra)
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
