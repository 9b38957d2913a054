"""What can be set about pruning and distillation; also sections of a recipe. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.errors import UsageError


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PruneOptions:
    """How CoroNet searches for the channels to keep."""

    steps: int = _setting(400, "optimiser steps until the generator is materialised at its budget")
    batch: int = _setting(2, "pictures in a step")
    crop: int | None = _setting(
        None, "side of the training pictures; the generator's usual size if not given"
    )
    learning_rate: float = _setting(5e-4, "Adam's, for the weights; falls to zero along a cosine")
    latent_learning_rate: float = _setting(1e-3, "Adam's, for the latent entries")
    hypernet: str = _setting(
        "gated", "how latent entries make weights: gated, collapsed or dhp (as published)"
    )
    proximal: str = _setting(
        "targeted",
        "which latent entries shrink: targeted (those that would not survive the landing) or "
        "l1 (all alike, as published)",
    )
    perceptual: Path | None = _setting(None, "VGG19 weights (.safetensors) for an additional feature loss")
    device: str = _setting("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        _at_least("prune", self, steps=1, batch=1, crop=16)
        _positive("prune", self, "learning_rate", "latent_learning_rate")
        _among("prune.hypernet", self.hypernet, ("gated", "collapsed", "dhp"))
        _among("prune.proximal", self.proximal, ("targeted", "l1"))
        _among("prune.device", self.device, ("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class DistilOptions:
    """How the pruned generator is trained against the original."""

    steps: int = _setting(800, "optimiser steps")
    batch: int = _setting(2, "pictures in a step")
    crop: int | None = _setting(
        None, "side of the training pictures; the generator's usual size if not given"
    )
    learning_rate: float = _setting(
        1e-3, "Adam's; rises over the first 5 % of steps, then falls along a cosine"
    )
    perceptual: Path | None = _setting(None, "VGG19 weights (.safetensors) for an additional feature loss")
    device: str = _setting("auto", "auto, cpu or cuda")

    def __post_init__(self) -> None:
        _at_least("distill", self, steps=1, batch=1, crop=16)
        _positive("distill", self, "learning_rate")
        _among("distill.device", self.device, ("auto", "cpu", "cuda"))


def _at_least(section: str, options: object, **smallest: int) -> None:
    for name, least in smallest.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{section}.{name} is too small", got=value, allowed=f"{least} or more")


def _positive(section: str, options: object, *names: str) -> None:
    for name in names:
        if not 0 < getattr(options, name) < float("inf"):
            raise UsageError(f"{section}.{name} must be a positive number", got=getattr(options, name))


def _among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is not one that we know", got=value, allowed=", ".join(allowed))
