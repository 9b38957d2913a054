"""The generators we can build by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import PocketganError, UsageError
from compressor.generators import agd, mobile_resnet, resnet, rrdbnet, srresnet, srvgg, unet

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet.ResnetGenerator,
    "unet": unet.UnetGenerator,
    "mobile_resnet": mobile_resnet.MobileResnetGenerator,
    "rrdbnet": rrdbnet.RRDBNet,
    "srvgg": srvgg.SRVGGNetCompact,
    "srresnet": srresnet.MSRResNet,
    "agd": agd.AgdGenerator,
}


_COUNTS = ("blocks", "convolutions", "depth", "upsamplings")  # arguments that say how often something stands
_MOST = 1000  # of these; a damaged or hostile number would build for hours


def construct(family: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A family's module with fresh weights; "custom" calls the user's `arguments["factory"]`.

    Raises:
        PocketganError: the family, an argument or the factory is not known, or a value does not fit.
    """
    if family == "custom":
        return call_factory(arguments.get("factory"))
    if family not in FAMILIES:
        raise PocketganError(
            "no such family of generators",
            got=family,
            allowed=", ".join([*FAMILIES, "custom"]),
            fix="pip install --upgrade pocketgan, if a newer version wrote this",
        )
    for name in _COUNTS:
        if isinstance(count := arguments.get(name), int) and not 0 <= count <= _MOST:
            raise PocketganError(f"a {family} generator with such {name}", got=count, allowed=f"0 to {_MOST}")
    try:
        return FAMILIES[family](**arguments)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError, ArithmeticError) as error:
        raise PocketganError(f"these arguments do not make a {family} generator", got=error) from error


def resolve_factory(factory: object) -> Callable[[], nn.Module]:
    """The callable that "module:callable" names; modules of the current folder are found too.

    Raises:
        UsageError: the text is malformed, or the module or the callable is not there.
    """
    module_name, _, name = factory.partition(":") if isinstance(factory, str) else ("", "", "")
    if not module_name or not name:
        raise UsageError(
            "a factory is named module:callable",
            got=factory,
            allowed="for example mynetwork:make_generator, where mynetwork.py lies in the current folder",
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's module may raise anything when imported
        raise UsageError(
            f"cannot import {factory}",
            got=f"{type(error).__name__}: {error}",
            fix=f"run from the folder that holds the module; try: python -c 'import {module_name}'",
        ) from error
    if not callable(found):
        raise UsageError(f"{factory} cannot be called", got=type(found).__name__)
    return found


def call_factory(factory: object) -> nn.Module:
    """The module that the user's factory makes, called without arguments.

    Raises:
        UsageError: it cannot be found, fails, or gives something other than a torch.nn.Module.
    """
    make = resolve_factory(factory)
    try:
        module = make()
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{factory}() failed", got=f"{type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"{factory}() does not give a torch.nn.Module", got=type(module).__name__)
    return module
