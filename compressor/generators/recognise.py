"""A generator from its checkpoint alone: which family, which widths, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from compressor.errors import PocketganError, UsageError
from compressor.files import sha256
from compressor.generators import Generator, agd, mobile_resnet, resnet, rrdbnet, srresnet, srvgg, unet
from compressor.generators.families import call_factory, construct, resolve_factory
from compressor.generators.misfit import Misfit, compare
from compressor.generators.spec import GeneratorSpec, ImageFormat
from compressor.generators.states import (
    State,
    load_strictly,
    read_state,
    settle_statistics,
    shapes_of,
    stripped,
)

# Each module has `infer(shapes) -> arguments | None` and `image_format(arguments)`; those whose networks were
# published under several names have `translate(state) -> state`, those that must assume something `notes`.
MODULES: dict[str, ModuleType] = {
    "resnet": resnet,
    "unet": unet,
    "mobile_resnet": mobile_resnet,
    "rrdbnet": rrdbnet,
    "srvgg": srvgg,
    "srresnet": srresnet,
    "agd": agd,
}


@dataclass(frozen=True)
class Match:
    """How a state dict compares with the nearest network of one family."""

    family: str
    arguments: dict[str, Any]
    state: State
    misfit: Misfit


def load_checkpoint(
    path: Path, *, factory: str | None, image: ImageFormat | None, arguments: Mapping[str, Any]
) -> Generator:
    """See `compressor.generators.load`."""
    state = read_state(path)
    if factory is not None:
        if arguments:
            raise UsageError("a factory takes no arguments", got=", ".join(arguments))
        return _load_custom(path, state, factory, image)
    match = recognise(state, path, arguments)
    module = MODULES[match.family]
    spec = GeneratorSpec(match.family, match.arguments, image or module.image_format(match.arguments))
    network = spec.build()
    load_strictly(network, match.state, f"{path} does not fit a {match.family} generator")
    notes = module.notes(match.arguments) if hasattr(module, "notes") else ()
    return Generator(spec, network, path, sha256(path), tuple(notes))


def recognise(state: State, path: Path, arguments: Mapping[str, Any] | None = None) -> Match:
    """The family and arguments whose state dict has exactly these names and shapes.

    Raises:
        PocketganError: none fits; the nearest family is named, with the keys that did not fit.
        UsageError: `arguments` names something the family does not have.
    """
    tried = [
        match
        for form in stripped(state)
        for family in MODULES
        if (match := _try_family(family, form, arguments or {}))
    ]
    fitting = [match for match in tried if not match.misfit]
    if fitting:
        return fitting[0]
    fix = "for a network of your own, give the code that makes it: --factory module:callable"
    if not tried:
        raise PocketganError(
            f"{path} fits no generator we know",
            got=f"{len(state)} tensors: {', '.join(list(state)[:4])}, ...",
            allowed=", ".join(MODULES),
            fix=fix,
        )
    nearest = max(tried, key=lambda match: match.misfit.share)
    raise PocketganError(
        f"{path} fits no generator we know; the nearest is {nearest.family}",
        got=nearest.misfit.describe(),
        allowed=", ".join(MODULES),
        fix=fix,
    )


def _try_family(family: str, state: State, overrides: Mapping[str, Any]) -> Match | None:
    """Hold the state dict against the family's network of the widths it seems to have."""
    module = MODULES[family]
    try:
        if hasattr(module, "translate"):
            state = module.translate(state)
        inferred = module.infer(shapes_of(state))
    except (LookupError, ArithmeticError, ValueError):  # names of this family on shapes that it never has
        return None
    if inferred is None:
        return None
    if unknown := sorted(set(overrides) - set(inferred)):
        raise UsageError(
            f"a {family} generator has no such argument", got=", ".join(unknown), allowed=", ".join(inferred)
        )
    arguments = {**inferred, **overrides}
    try:
        with torch.device("meta"):
            network = construct(family, arguments)
    except PocketganError:
        if overrides:
            raise
        return None  # widths that make no network: this is not the family
    expected = shapes_of(network.state_dict())
    state = settle_statistics(state, expected)
    return Match(family, arguments, state, compare(expected, shapes_of(state)))


def _load_custom(path: Path, state: State, factory: str, image: ImageFormat | None) -> Generator:
    """The user's own network, made by their code, with the checkpoint's weights."""
    network = call_factory(factory)
    stated = getattr(resolve_factory(factory), "image", None)
    notes: tuple[str, ...] = ()
    if image is None and not isinstance(stated, ImageFormat):
        notes = (
            f"{factory} does not state its pictures' ranges: [-1, 1] and 256x256 are assumed; give the "
            "factory an attribute image = ImageFormat(...)",
        )
    if image is None:
        image = stated if isinstance(stated, ImageFormat) else ImageFormat()
    own = shapes_of(network.state_dict())
    best = max(stripped(state), key=lambda form: compare(own, shapes_of(form)).share)
    load_strictly(network, best, f"{path} does not fit what {factory}() makes")
    spec = GeneratorSpec("custom", {"factory": factory}, image)
    return Generator(spec, network.float().eval(), path, sha256(path), notes)
