"""Exact rewrites of a captured graph, one a file, chosen by what the target runs well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import fx

Target = Literal["onnxruntime", "litert"]


def rewrite_for(target: Target, graph: fx.GraphModule) -> dict[str, int]:
    """Apply a target's rewrites to the graph in place; returns how often each was used.

    onnxruntime has one kernel each for instance norm, reflection padding, pixel shuffle, nearest
    resizing and every transposed convolution, so it keeps them; LiteRT does not.
    """
    from exporters.rewrite import (
        batch_norm,
        batch_statistics,
        concatenation,
        instance_norm,
        nearest_upsampling,
        pixel_shuffle,
        reflection_pad,
        transposed_convolution,
    )

    # Batch statistics first: they become instance norms, which LiteRT then gets written out.
    passes = {"batch_statistics": batch_statistics.rewrite, "batch_norm": batch_norm.rewrite}
    if target == "litert":
        passes |= {
            "concatenation": concatenation.rewrite,
            "instance_norm": instance_norm.rewrite,
            "nearest_upsampling": nearest_upsampling.rewrite,
            "pixel_shuffle": pixel_shuffle.rewrite,
            "reflection_pad": reflection_pad.rewrite,
            "transposed_convolution": transposed_convolution.rewrite,
        }
    used = {name: apply(graph) for name, apply in passes.items()}
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return used
