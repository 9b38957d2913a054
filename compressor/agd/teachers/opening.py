"""From what a user names to a teacher."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from compressor.agd.teachers.base import NetworkTeacher, Teacher
from compressor.agd.teachers.files import SUFFIXES, FileTeacher
from compressor.agd.teachers.pairs import FolderTeacher
from compressor.data.images import list_images
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, load
from compressor.generators.spec import GeneratorSpec, ImageFormat

_KINDS = (
    "a checkpoint, a model folder, MODULE:CALLABLE, a .onnx or .tflite file, "
    "or a folder of input pictures with a folder of outputs"
)


def is_foreign(spec: str | Path) -> bool:
    """Whether a name means a teacher that is not a checkpoint or model folder of ours."""
    return Path(spec).suffix.lower() in SUFFIXES or (":" in str(spec) and not Path(spec).exists())


def open_teacher(
    spec: str | Path | Generator,
    *,
    outputs: Path | None = None,
    images: Sequence[Path] | None = None,
    image: ImageFormat | None = None,
    stated: Mapping[str, Any] | None = None,
    factory: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    layout: str | None = None,
    device: torch.device | str = "cpu",
) -> Teacher:
    """Open a teacher of any kind.

    Args:
        spec: a generator, its checkpoint or model folder, "module:callable" that makes the network with its
            weights, a .onnx or .tflite file; or, with `outputs`, a folder of input pictures.
        outputs: folder of what the teacher made of the pictures in `spec`.
        images: with `outputs`, those pictures of `spec` that are used, if not all.
        image: with `outputs`, the student's format (usual size, ranges, scale).
        stated: fields of `ImageFormat` that are known, over what the file says.
        factory, arguments: of a checkpoint, see `compressor.generators.load`.
        layout: "NCHW" or "NHWC" of an ONNX or TFLite file whose shape does not tell.
        device: where a network runs.

    Raises:
        PocketganError: it cannot be read, or a runtime is missing.
        UsageError: it is of no kind that we know, or what was stated does not fit it.
    """
    if outputs is not None:
        if isinstance(spec, Generator):
            raise UsageError("a teacher is a generator or a folder of outputs", got="both")
        stated_image = image or ImageFormat(**dict(stated or {}))
        return FolderTeacher(images or list_images(Path(spec)), outputs, stated_image)
    if isinstance(spec, Generator):
        return NetworkTeacher(spec, device)
    path = Path(spec)
    if path.suffix.lower() in SUFFIXES:
        return FileTeacher(path, stated, layout)
    if ":" in str(spec) and not path.exists():
        return NetworkTeacher(made_by(str(spec), stated), device)
    if path.is_dir() and not (path / "architecture.json").exists():
        raise UsageError(f"{path} is no model folder", allowed=_KINDS, fix="--teacher-outputs DIR")
    if not path.exists():
        raise PocketganError(f"there is no teacher {spec}", allowed=_KINDS)
    generator = load(path, factory=factory, arguments=arguments)
    if stated:
        fitted = dataclasses.replace(generator.spec.image, **stated)
        generator = dataclasses.replace(generator, spec=dataclasses.replace(generator.spec, image=fitted))
    return NetworkTeacher(generator, device)


def made_by(name: str, stated: Mapping[str, Any] | None) -> Generator:
    """A network that the user's code makes, weights included; its hash is that of its weights.

    Args:
        name: "module:callable".
        stated: fields of `ImageFormat` that are known.

    Raises:
        UsageError: see `compressor.generators.families.call_factory`.
    """
    from compressor.generators.families import call_factory, resolve_factory

    module = call_factory(name).float().eval()
    said = getattr(resolve_factory(name), "image", None)
    image = dataclasses.replace(said or ImageFormat(), **dict(stated or {}))
    content = hashlib.sha256()
    for key, value in module.state_dict().items():
        content.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        content.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    notes = (
        ()
        if said or {"input_range", "output_range"} <= set(stated or {})
        else (f"{name} does not state its pictures' ranges: [-1, 1] is assumed",)
    )
    return Generator(
        GeneratorSpec("custom", {"factory": name}, image), module, Path(name), content.hexdigest(), notes
    )
