"""What `pocketgan inspect` tells: the family, the widths, and what the generator costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor import generators
from compressor.cost import Cost, count
from compressor.errors import PocketganError
from compressor.generators.spec import GeneratorSpec, ImageFormat


@dataclass(frozen=True)
class Inspection:
    """One generator, described.

    Attributes:
        path: the checkpoint or folder.
        sha256: of its weights file.
        family: a family's name, or "custom".
        spec: the architecture, and how pictures go in and come out.
        input_shape: the input that the costs are for, (1, C, H, W).
        cost: parameters, bytes and MACs, per layer and in total.
        memory: peak bytes of its activations in FP32 (`compressor.coronet.memory`), or None where its
            forward cannot be traced.
        notes: what the checkpoint does not say and we assumed.
    """

    path: Path
    sha256: str
    family: str
    spec: GeneratorSpec
    input_shape: tuple[int, int, int, int]
    cost: Cost
    memory: int | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The document that `pocketgan inspect --json` prints."""
        return {
            "format": "pocketgan.inspection/1",
            "path": str(self.path),
            "sha256": self.sha256,
            "family": self.family,
            "architecture": self.spec.as_json(),
            "input_shape": list(self.input_shape),
            "cost": self.cost.as_json(),
            "peak_activation_bytes": self.memory,
            "notes": list(self.notes),
        }


def inspect(
    path: Path | str,
    *,
    factory: str | None = None,
    image: ImageFormat | None = None,
    size: tuple[int, int] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Inspection:
    """Load a generator and describe it; arguments and errors as `generators.load` and `describe`."""
    return describe(generators.load(path, factory=factory, image=image, arguments=arguments), size)


def describe(generator: generators.Generator, size: tuple[int, int] | None = None) -> Inspection:
    """Count what a loaded generator costs.

    Args:
        generator: what `generators.load` gave.
        size: input (height, width) the costs are for, where not the usual one.

    Raises:
        PocketganError: the size does not suit the generator, or it does not run.
    """
    stated = generator.spec.image
    if size is not None and any(side < 1 or side % stated.multiple for side in size):
        raise PocketganError(
            "the input size does not suit this generator",
            got=f"{size[0]}x{size[1]}",
            allowed=f"height and width that are multiples of {stated.multiple}",
        )
    shape = (1, stated.channels[0], *(size or stated.size))
    return Inspection(
        path=generator.path,
        sha256=generator.sha256,
        family=generator.spec.family,
        spec=generator.spec,
        input_shape=shape,
        cost=count(generator.module, shape),
        memory=_memory(generator, shape),
        notes=generator.notes,
    )


def _memory(generator: generators.Generator, shape: tuple[int, int, int, int]) -> int | None:
    from compressor.coronet.memory import peak_memory

    try:
        return peak_memory(generator.module, shape)
    except PocketganError:
        return None  # costs are also told of networks that cannot be pruned
