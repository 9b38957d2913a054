"""Exceptions of TFLite files: each TRANSPOSE and operator outside XNNPACK is named with layer and reason."""

from __future__ import annotations

import pytest
import torch
from networks import Small
from torch import nn

from exporters import graph as g
from exporters import tflite
from exporters.departures import Departure, asked_for
from exporters.result import ExportedFile
from exporters.rewrite import rewrite_for
from exporters.runtime import examine, open_tflite


def examined(module: nn.Module, *, rewritten: bool = True, size: int = 16):
    """A network's TFLite file examined; its outputs are PyTorch's."""
    module, x = module.eval().requires_grad_(False), torch.randn(1, 3, size, size)
    graph = g.capture(module, x)
    if rewritten:
        rewrite_for("litert", graph)
    model = tflite.convert(graph, x)
    assert abs(open_tflite(model)(x.numpy()) - module(x).numpy()).max() < 1e-3
    return examine(model, lambda: asked_for(g.capture(module, x)))


class Permuting(nn.Module):
    """Mixes rows in the middle, as a network may that moves its axes itself."""

    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.rows = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.rows(self.head(x).permute(0, 1, 3, 2)).permute(0, 1, 3, 2))


class Joining(nn.Module):
    """Concatenates many convolutions' results."""

    def __init__(self, count: int):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, 2 + n % 3, 3, padding=1) for n in range(count))
        self.last = nn.Conv2d(sum(part.out_channels for part in self.parts), 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([part(x) for part in self.parts], 1))


def test_pixel_shuffle_needs_no_transpose_behind_a_convolution():
    counts, found = examined(Small(norm="none"))
    assert found == () and counts.partitions == 1 and counts.delegated == counts.nodes


def test_pixel_shuffle_elsewhere_is_named_with_its_module_and_the_layer_before():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.fuse, self.shuffle = nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = self.fuse(x)
            return self.shuffle(wide + wide.tanh())

    counts, found = examined(Added())
    assert found == (Departure("TRANSPOSE", True, "fuse", "the network's pixel shuffle in shuffle"),)
    assert counts.partitions == 1 and counts.delegated == counts.nodes
    assert found[0].said == "TRANSPOSE after fuse: the network's pixel shuffle in shuffle"


@pytest.mark.parametrize("kernel", [3, 4])
def test_nothing_of_a_translator_needs_a_transpose(kernel: int):
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.ReLU()),
        nn.ConvTranspose2d(8, 8, kernel, 2, 1, 4 - kernel),
        *(nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.ReflectionPad2d(3), nn.Conv2d(8, 3, 7), nn.Tanh()),
    )
    counts, found = examined(module)
    assert found == () and counts.partitions == 1


def test_paddings_and_cuts_of_a_translator_need_no_transpose():
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, :-1, :-1]

    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1))),
        *(nn.Conv2d(8, 8, 3, 2), nn.InstanceNorm2d(8, affine=True), nn.ReLU()),
        *(
            nn.ConvTranspose2d(8, 8, 3, 2),
            Cut(),
            nn.InstanceNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 9, padding=4),
        ),
    )
    counts, found = examined(module)
    assert found == () and counts.partitions == 1


def test_permutes_of_the_network_are_explained():
    _, found = examined(Permuting())
    assert found and all(each.operator == "TRANSPOSE" for each in found)
    assert all(each.after == "head" and "the network's permute" in str(each.why) for each in found)


def test_what_nothing_asks_for_is_not_explained():
    """Without our rewrite, instance norm brings TRANSPOSEs that the network has no part in."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.Conv2d(8, 3, 3, padding=1))
    _, found = examined(module, rewritten=False)
    assert [each.operator for each in found] == ["TRANSPOSE"] * len(found) != []
    assert all(each.why is None and "not explained" in each.said for each in found)
    counts, found = examined(module)
    assert found == () and counts.partitions == 1


def test_what_xnnpack_leaves_is_named():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReflectionPad2d(2), nn.Conv2d(4, 3, 3))
    _, found = examined(module, rewritten=False)
    (pad,) = (each for each in found if not each.delegated)
    assert (pad.operator, pad.after, pad.why) == ("MIRROR_PAD", "0", "XNNPACK has no reflection padding")


@pytest.mark.parametrize("count", [6, 9, 13])
def test_long_concatenations_stay_in_one_partition(count):
    counts, found = examined(Joining(count), rewritten=False)
    assert counts.partitions == 2 and [each.operator for each in found] == ["CONCATENATION"]
    counts, found = examined(Joining(count))
    assert counts.partitions == 1 and found == ()


def test_exceptions_are_kept_in_the_record():
    found = (Departure("TRANSPOSE", True, "a", "because"), Departure("RSQRT", False, "", None))
    file = ExportedFile("f", "litert", "fp32", "fp32", departures=found)
    assert ExportedFile.from_json(file.as_json()) == file
    assert found[1].said == "RSQRT before any convolution, outside XNNPACK: not explained"
