"""INT8 for a generator that was trained with its rounding: nothing is measured, searched or left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from compressor.quantisation.captured import capture
from compressor.quantisation.fake import FakeQuantised
from compressor.quantisation.layers import layers, sites
from compressor.quantisation.ranges import LearnedRanges
from exporters.int8 import Picture, Plan
from exporters.parity import compare


@dataclass(frozen=True)
class Learned:
    """What files are made by, and held to.

    Attributes:
        plan: the learned ranges as a plan.
        references: (name, input, output) of the pictures to compare on, as the trained network computes them
            with its rounding.
        network: that network.
    """

    plan: Plan
    references: list[Picture]
    network: nn.Module


def learned(
    module: nn.Module,
    ranges: LearnedRanges,
    example: torch.Tensor,
    references: Callable[[nn.Module], list[Picture]],
    plain: list[Picture],
    output_range: tuple[float, float],
) -> Learned:
    """Check that ranges fit a network, and run it with them.

    Args:
        module: the network, with the weights that were trained.
        ranges: learned with them.
        example: an input (1, C, H, W) of the size to export for.
        references: runs a network on the pictures to compare on.
        plain: what it gives for the network in float.
        output_range: values of black and white at the output.

    Raises:
        PocketganError: the ranges do not fit the network's graph.
    """
    graph = capture(module, example)
    chosen, kept = layers(graph)
    network = FakeQuantised.of(copy.deepcopy(module), sites(module, graph), ranges).eval()
    made = references(network)
    lowest = min(
        compare(name, output, expected, output_range).psnr
        for (name, _, output), (_, _, expected) in zip(made, plain, strict=True)
    )
    floated = [layer.name for layer in chosen if layer.name not in ranges.bounds]
    note = (
        "ranges learned in training, and compared with the network as it was trained, with its rounding; "
        f"that network is {lowest:.1f} dB from its weights in float at the lowest"
    )
    return Learned(Plan(ranges.bounds, (*kept, *floated), "learned", lowest, (note,)), made, network)
