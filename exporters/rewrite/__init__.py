"""Exact rewrites of a captured graph, one a file, chosen by what the target runs well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import fx

Target = Literal["onnxruntime", "litert"]


def normalise(graph: fx.GraphModule) -> dict[str, int]:
    """Fold and rename norms in place, so that INT8 is planned on what all targets run; returns how often."""
    from exporters.rewrite import batch_norm, batch_statistics

    # Batch statistics first: they become instance norms, which LiteRT then gets written out.
    passes = {"batch_statistics": batch_statistics.rewrite, "batch_norm": batch_norm.rewrite}
    return _applied(graph, passes)


def rewrite_for(target: Target, graph: fx.GraphModule) -> dict[str, int]:
    """Normalise the graph and apply a target's rewrites in place; returns how often each was used.

    onnxruntime has one kernel each for instance norm, reflection padding, pixel shuffle, nearest
    resizing and every transposed convolution, so it keeps them; LiteRT does not.
    """
    from exporters.rewrite import (
        concatenation,
        edges,
        instance_norm,
        narrow_convolution,
        nearest_upsampling,
        pixel_shuffle,
        reflection_pad,
        subpixel_convolution,
        transposed_convolution,
    )

    passes = {}
    if target == "litert":
        passes = {
            "concatenation": concatenation.rewrite,
            "edges": edges.rewrite,
            "instance_norm": instance_norm.rewrite,
            "nearest_upsampling": nearest_upsampling.rewrite,
            "pixel_shuffle": pixel_shuffle.rewrite,
            "reflection_pad": reflection_pad.rewrite,
            "subpixel_convolution": subpixel_convolution.rewrite,
            "transposed_convolution": transposed_convolution.rewrite,  # those that are left
        }
    # Last: pixel shuffle reorders the channels of a convolution that it still finds.
    passes["narrow_convolution"] = narrow_convolution.rewrite
    return normalise(graph) | _applied(graph, passes)


def _applied(graph: fx.GraphModule, passes: Mapping[str, Callable[[fx.GraphModule], int]]) -> dict[str, int]:
    used = {name: apply(graph) for name, apply in passes.items()}
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return used
