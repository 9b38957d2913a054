"""prune.json: what was asked of a pruning run and what came of it."""

from __future__ import annotations

from typing import Any

from compressor import cost as costs
from compressor.budget import Budget
from compressor.coronet.memory import peak_memory
from compressor.generators import Generator
from compressor.graph import ChannelGraph


def describe(
    generator: Generator,
    small: Generator,
    budget: Budget,
    target: int,
    graph: ChannelGraph,
    *,
    latency: dict[str, Any] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """prune.json, from costs counted anew on the materialised network.

    Args:
        generator, small: the original and what was made of it.
        budget, target: what was asked, in words and as a number.
        graph: the original's channel classes.
        latency: what was measured of the landing (`Supernet.measured`), where latency was asked for.
        facts: of the run: steps, seed, trajectory and others.
    """
    shape = generator.spec.image.input_shape
    before, after = costs.count(generator.module, shape), costs.count(small.module, shape)
    original, reached = _totals(generator, before), _totals(small, after)
    if latency is not None:
        original["latency"], reached["latency"] = latency["original"], latency["measured"]
    targets = {part.metric: part.limit(original[part.metric]) for part in budget.parts()}
    for metric, most in {budget.metric: target, **targets}.items():
        if reached[metric] > most and metric != "latency":  # that is measured: `latency` says how it went
            raise AssertionError(f"landed on {reached[metric]} {metric}, over the target of {most}")
    shrunk = {layer.name: layer for layer in after.layers}
    return {
        "budget": {
            "asked": budget.text,
            "metric": budget.metric,
            "target": targets["latency"] if budget.metric == "latency" else target,
            **({"targets": targets} if budget.also else {}),
        },
        "original": original,
        "reached": reached,
        "share": reached[budget.metric] / original[budget.metric],
        **({"latency": latency} if latency is not None else {}),
        **{name: value for name, value in facts.items() if name != "trajectory"},
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "macs_before": layer.macs,
                "macs": shrunk[layer.name].macs,
                "out_before": layer.output_shape[1],
                "out": shrunk[layer.name].output_shape[1],
            }
            for layer in before.layers
            if layer.macs and layer.name in shrunk  # rewritten forwards do their own sums in "(network)"
        ],
        "kept_whole": [{"name": name, "reason": reason} for name, reason in graph.kept_whole],
        "trajectory": facts.get("trajectory", []),
    }


def _totals(generator: Generator, cost: costs.Cost) -> dict[str, int]:
    totals = {name: getattr(cost, name) for name in ("macs", "literature_macs", "parameters", "bytes")}
    return {**totals, "memory": peak_memory(generator.module, generator.spec.image.input_shape)}
