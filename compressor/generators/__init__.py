"""Generators: read from any checkpoint we know or from our own folder, and written to our own folder.

Importing this package is cheap: torch comes in when a generator is loaded or saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.generators.spec import GeneratorSpec, ImageFormat

if TYPE_CHECKING:
    from torch import nn

    from compressor.quantisation.ranges import LearnedRanges

__all__ = ["Generator", "GeneratorSpec", "ImageFormat", "load", "save"]


@dataclass(frozen=True)
class Generator:
    """A generator with its weights.

    Attributes:
        spec: the architecture, and how pictures go in and come out.
        module: float32, on the CPU, in eval mode.
        path: the file or folder it came from.
        sha256: of the checkpoint file, or of weights.safetensors in our folder.
        notes: what the checkpoint does not say and we assumed, one sentence each.
        ranges: of INT8, where these weights were trained with its rounding (`distill --qat`).
    """

    spec: GeneratorSpec
    module: nn.Module
    path: Path
    sha256: str
    notes: tuple[str, ...] = ()
    ranges: LearnedRanges | None = None


def load(
    path: Path | str,
    *,
    factory: str | None = None,
    image: ImageFormat | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Generator:
    """Read a generator: a .pth, .pt, .ckpt or .safetensors checkpoint, or our own folder.

    Args:
        path: the file or folder.
        factory: "module:callable" that makes the user's own network, called without arguments; the
            checkpoint's state dict is loaded into it strictly. A factory may carry an attribute
            `image`, an `ImageFormat`, that says its ranges and size.
        image: how pictures go in and come out, where it is not what the family or the factory says.
        arguments: constructor arguments of the family that the checkpoint does not tell, for example
            {"statistics": "running"}.

    Raises:
        PocketganError: the file cannot be read, is refused, or fits no family (or not the factory).
        UsageError: the factory cannot be imported or called, or an argument is not known.
    """
    from compressor.generators import folder, recognise

    path = Path(path)
    if path.is_dir():
        return folder.load_folder(path, factory=factory, image=image)
    return recognise.load_checkpoint(path, factory=factory, image=image, arguments=arguments or {})


def save(
    spec: GeneratorSpec,
    module: nn.Module,
    folder: Path,
    provenance: Mapping[str, Any],
    ranges: LearnedRanges | None = None,
) -> None:
    """Write our own format: architecture.json, provenance.json and weights.safetensors, each atomic.

    With `ranges`, learned for INT8 together with these weights, quantisation.json too.

    Raises:
        PocketganError: the disk is full or the folder cannot be written.
    """
    from compressor.generators.folder import save_folder

    save_folder(spec, module, folder, provenance, ranges)
