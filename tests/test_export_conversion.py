"""TFLite's converter after our rewrites: transposed convolutions, and what the delegate takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from exporters import graph as g
from exporters import tflite
from exporters.rewrite import rewrite_for
from exporters.runtime import delegation, open_tflite


def test_every_kind_of_transposed_convolution_converts_rightly():
    """The kinds that litert_torch refuses or, worse, converts to something else."""
    torch.manual_seed(0)
    cases = [
        (3, 2, 1, 1),
        (4, 2, 1, 1),
        (4, 2, 1, 0),
        (3, 2, 0, 0),
        (5, 2, 2, 1),
        (2, 2, 0, 0),
        (5, 3, 1, 2),
        (3, 1, 1, 0),
    ]

    class All(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ModuleList(nn.ConvTranspose2d(3, 4, k, s, p, op) for k, s, p, op in cases)

        def forward(self, x):
            ups = [up(x) for up in self.up]
            size = max(u.shape[2] for u in ups)
            return torch.cat(
                [nn.functional.pad(u, (0, size - u.shape[3], 0, size - u.shape[2])) for u in ups], 1
            )

    module = All().eval().requires_grad_(False)
    x = torch.randn(1, 3, 6, 6)
    graph = g.capture(module, x)
    rewrite_for("litert", graph)
    found = open_tflite(tflite.convert(graph, x))(x.numpy())
    np.testing.assert_allclose(found, module(x).numpy(), atol=1e-4)


def test_large_transposed_convolutions_keep_constant_kernels():
    """The converter folds nothing into large constants: to change the kernel there cost the delegate."""
    module = nn.ConvTranspose2d(256, 96, 3, 2, 1, 1).eval().requires_grad_(False)
    x = torch.randn(1, 256, 4, 4)
    graph = g.capture(module, x)
    rewrite_for("litert", graph)
    model = tflite.convert(graph, x)
    found = delegation(model)
    assert (found.delegated, found.partitions) == (found.nodes, 1)
    operators = tflite.read(model).subgraphs[0].operators
    assert "TRANSPOSE_CONV" not in {tflite.operation(tflite.read(model), each) for each in operators}
    np.testing.assert_allclose(open_tflite(model)(x.numpy()), module(x).numpy(), atol=1e-4)


def test_delegation_counts_what_stays_out():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReflectionPad2d(2), nn.Conv2d(4, 3, 3)).eval()
    x = torch.randn(1, 3, 16, 16)
    found = delegation(tflite.convert(g.capture(module, x), x))  # without the rewrites
    assert found.partitions == 2 and found.delegated == found.nodes - 1
