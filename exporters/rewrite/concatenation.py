"""Concatenations of many channels as several of few: XNNPACK leaves those of more than five inputs to LiteRT.

The converter merges a concatenation of concatenations, so each is flattened before the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from exporters import graph as g

_MOST = 4


def concatenate_channels(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Equal to `torch.cat(tensors, 1)` of (N, C_i, H, W), no more than four at a time."""
    count, _, height, width = tensors[0].shape
    forms = ((count, height, width, -1), (count, height * width, -1))
    rest = [each.permute(0, 2, 3, 1) for each in tensors]  # as LiteRT has them
    for turn in itertools.count(1):
        rest = [torch.cat(rest[:_MOST], -1), *rest[_MOST:]]
        if len(rest) == 1:
            return rest[0].reshape(forms[0]).permute(0, 3, 1, 2)
        rest = [each.reshape(forms[turn % 2]) for each in rest]
    raise AssertionError


def rewrite(graph: fx.GraphModule) -> int:
    """Replace every concatenation of more than five pictures' channels in the graph; returns how many."""
    count = 0
    for node in g.calls(graph, torch.ops.aten.cat.default):
        tensors: Any = node.args[0]
        if len(tensors) > 5 and len(g.shape(node)) == 4 and g.argument(node, 1, 0) in (1, -3):
            g.replace(node, concatenate_channels, tensors)
            count += 1
    return count
