"""What adversarial pruning leaves behind: model folders with prune.json, and the discriminators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.coronet.document import describe
from compressor.coronet.prune import PruneResult
from compressor.coronet.supernet import Supernet
from compressor.files import atomic, read_json, write_json
from compressor.generators import Generator, load, save
from compressor.launch import leads
from compressor.options import AdversarialOptions
from compressor.training import ranks

RECORD = "prune.json"


def already_done(generator: Generator, folder: Path) -> PruneResult | None:
    """The result in a folder, if an earlier call finished it."""
    record = folder / RECORD
    if not ranks.on_leader(record.exists):
        return None
    return PruneResult(load(folder, factory=_factory(generator)), folder, read_json(record))


def write_outcome(
    net: Supernet,
    small: Generator,
    folder: Path,
    options: AdversarialOptions,
    facts: Mapping[str, Any],
    trajectory: list[dict[str, Any]],
) -> PruneResult:
    """Write one small generator and its prune.json.

    Args:
        net: the landed supernet.
        small: what became of it, trained.
        folder: its model folder.
        options: how it was pruned.
        facts: more of the run.
        trajectory: of the search and the training after it.
    """
    document = describe(
        net.original,
        small,
        net.budget,
        net.target,
        net.graph,
        latency=net.measured(),
        **facts,
        hypernet=options.hypernet,
        proximal=options.proximal,
        scratch=options.scratch,
        after=options.after,
        steps=net.landed_at,
        trajectory=trajectory,
    )
    provenance = {"made_by": "prune", "source_sha256": net.generator.sha256, **document}

    def write() -> None:
        save(small.spec, small.module, folder, provenance)
        write_json(folder / RECORD, document)

    ranks.on_leader(write)
    made = load(folder, factory=_factory(net.generator)) if leads() else small
    return PruneResult(made, folder, document)


def save_discriminator(module: nn.Module, path: Path) -> None:
    """Write a discriminator's weights in upstream's names, to go on from."""
    from safetensors.torch import save as to_bytes

    if not leads():
        return
    state = {name: value.detach().cpu().clone().contiguous() for name, value in module.state_dict().items()}
    with atomic(path) as file:
        file.write(to_bytes(state, metadata={"format": "pt"}))


def _factory(generator: Generator) -> str | None:
    return generator.spec.arguments.get("factory") if generator.spec.family == "custom" else None
