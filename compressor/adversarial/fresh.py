"""A generator of a known family with fresh weights, to be trained from nothing."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.adversarial.initialise import initialise
from compressor.errors import UsageError
from compressor.generators import Generator
from compressor.generators.families import FAMILIES
from compressor.generators.recognise import MODULES
from compressor.generators.spec import GeneratorSpec


def fresh(
    family: str, arguments: Mapping[str, Any], *, seed: int = 0, size: tuple[int, int] | None = None
) -> Generator:
    """A generator with weights N(0, 0.02).

    Args:
        family: a name in `compressor.generators.families.FAMILIES`.
        arguments: its constructor's; what is left out takes the constructor's default.
        seed: of the weights.
        size: usual input (H, W), where it is not what the family trains at.

    Raises:
        UsageError: no such family.
        PocketganError: the arguments do not make one.
    """
    if family not in FAMILIES:
        raise UsageError("no such family of generators", got=family, allowed=", ".join(FAMILIES))
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(FAMILIES[family]).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    complete = {**defaults, **arguments}
    spec = GeneratorSpec(family, complete)
    spec.build()  # refuses arguments that do not fit
    image = MODULES[family].image_format(complete)
    spec = replace(spec, image=replace(image, size=size) if size else image)
    text = json.dumps([spec.as_json(), seed], sort_keys=True)
    return Generator(spec, anew(spec, seed), Path(family), hashlib.sha256(text.encode()).hexdigest())


def anew(spec: GeneratorSpec, seed: int) -> nn.Module:
    """The module of an architecture with fresh weights; what has no published start takes PyTorch's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = spec.build()
    return initialise(module, seed)
