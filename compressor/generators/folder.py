"""Our own format: a folder with architecture.json, weights.safetensors and provenance.json; no pickle.

quantisation.json lies beside them where the weights were trained with INT8's rounding. weights.safetensors
is written last: a folder that has it is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import PocketganError, UsageError
from compressor.files import atomic, read_json, sha256, write_json
from compressor.generators import Generator
from compressor.generators.misfit import compare
from compressor.generators.spec import GeneratorSpec, ImageFormat
from compressor.generators.states import load_strictly, read_state, shapes_of
from compressor.quantisation.ranges import FILE as QUANTISATION
from compressor.quantisation.ranges import LearnedRanges

ARCHITECTURE, WEIGHTS, PROVENANCE = "architecture.json", "weights.safetensors", "provenance.json"


def save_folder(
    spec: GeneratorSpec,
    module: nn.Module,
    folder: Path,
    provenance: Mapping[str, Any],
    ranges: LearnedRanges | None = None,
) -> None:
    """See `compressor.generators.save`."""
    from safetensors.torch import save as to_bytes

    state = {
        key: value.detach().cpu().clone().contiguous()  # clone: safetensors refuses shared memory
        for key, value in module.state_dict().items()
    }
    write_json(folder / ARCHITECTURE, spec.as_json())
    write_json(folder / PROVENANCE, dict(provenance))
    content = to_bytes(state, metadata={"format": "pt"})
    if ranges is not None:
        write_json(folder / QUANTISATION, ranges.as_json(hashlib.sha256(content).hexdigest()))
    with atomic(folder / WEIGHTS) as file:
        file.write(content)


def load_folder(folder: Path, *, factory: str | None = None, image: ImageFormat | None = None) -> Generator:
    """Read our own format.

    A folder of family "custom" names the code that builds it; that code runs only if the caller gives
    the same `factory`.

    Raises:
        PocketganError: a file is missing, damaged, of a version we do not know, or does not fit.
        UsageError: the folder needs a factory and none, or another one, was given.
    """
    for name in (ARCHITECTURE, WEIGHTS):
        if not (folder / name).is_file():
            raise PocketganError(
                f"{folder} is not a generator of ours: it has no {name}",
                got=", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder",
                allowed=f"a checkpoint file, or a folder with {ARCHITECTURE} and {WEIGHTS}",
            )
    spec = GeneratorSpec.from_json(read_json(folder / ARCHITECTURE))
    if spec.family == "custom":
        _same_factory(spec.arguments.get("factory"), factory, folder)
    elif factory is not None:
        raise UsageError(
            f"{folder} needs no factory: it holds a {spec.family} generator", got=f"--factory {factory}"
        )
    if image is not None:
        spec = GeneratorSpec(spec.family, spec.arguments, image, spec.widths, spec.splits)
    state = read_state(folder / WEIGHTS)
    what = f"{folder / WEIGHTS} does not fit {ARCHITECTURE}"
    if spec.family != "custom":  # compare before a damaged width can ask for all memory
        with torch.device("meta"):
            expected = shapes_of(spec.build().state_dict())
        if misfit := compare(expected, shapes_of(state)):
            raise PocketganError(what, got=misfit.describe())
    module = spec.build()
    load_strictly(module, state, what)
    digest = sha256(folder / WEIGHTS)
    return Generator(spec, module.eval(), folder, digest, ranges=_ranges(folder, module, digest))


def _ranges(folder: Path, module: nn.Module, digest: str) -> LearnedRanges | None:
    """What was learned for INT8, if it was; it must belong to these weights and layers."""
    if not (folder / QUANTISATION).is_file():
        return None
    ranges = LearnedRanges.from_json(read_json(folder / QUANTISATION), digest)
    ranges.check(
        {name: part.out_channels for name, part in module.named_modules() if isinstance(part, nn.Conv2d)}
    )
    return ranges


def _same_factory(recorded: object, given: str | None, folder: Path) -> None:
    if given is None:
        raise UsageError(
            f"{folder} holds a network built by code of your own ({recorded}), which we run only when asked",
            fix=f"if you trust that code, add: --factory {recorded}",
        )
    if given != recorded:
        raise UsageError(
            f"{folder} was made with another factory", got=given, allowed=f"--factory {recorded}"
        )
