"""Where a generator comes from: a checkpoint, the user's own code, or anything that answers with pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.files import read_json

if TYPE_CHECKING:
    import torch

    from compressor.agd.teachers import Teacher
    from compressor.generators import Generator, ImageFormat

_FILES = (".onnx", ".tflite")


@dataclass(frozen=True)
class GeneratorSource:
    """Where a generator comes from, and what its file does not say.

    Attributes:
        checkpoint: a checkpoint file or a folder of our own format; or a .onnx or .tflite file, which can
            teach and not be pruned.
        factory: "module:callable" for a network of the user's own; without a checkpoint it makes the
            network with its weights.
        outputs: instead of both: the folder of what the generator made of the pictures, by the same names.
        layout: "NCHW" or "NHWC" of a .onnx or .tflite file, where its shape does not tell.
        arguments: of the family's constructor, where the checkpoint does not tell them.
        input_range, output_range, size, scale, multiple, channels: see
            `compressor.generators.ImageFormat`; None where the file or the family says it.
    """

    checkpoint: Path | None = None
    factory: str | None = None
    outputs: Path | None = None
    layout: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    input_range: tuple[float, float] | None = None
    output_range: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    scale: int | None = None
    multiple: int | None = None
    channels: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is None and self.factory is None and self.outputs is None:
            raise UsageError(
                "'generator.checkpoint' is missing",
                allowed="a path; or generator.factory alone, or for a search generator.outputs",
            )
        if self.outputs is not None and (self.checkpoint or self.factory or self.arguments):
            raise UsageError(
                "generator.outputs stands for a generator that is not there",
                got="generator.checkpoint, generator.factory or generator.arguments beside it",
                allowed="one of them",
            )
        if self.is_file and (self.factory or self.arguments):
            raise UsageError(
                "a .onnx or .tflite file holds its network itself",
                got="generator.factory or generator.arguments beside it",
                allowed="one of them",
            )
        if self.layout is not None and (not self.is_file or self.layout not in ("NCHW", "NHWC")):
            raise UsageError(
                "generator.layout is of a .onnx or .tflite file", got=self.layout, allowed="NCHW, NHWC"
            )

    @property
    def is_file(self) -> bool:
        """An ONNX or TFLite file."""
        return self.checkpoint is not None and self.checkpoint.suffix.lower() in _FILES

    @property
    def is_network(self) -> bool:
        """Whether it is a torch network: one that can be pruned and exported, not only learnt from."""
        return self.outputs is None and not self.is_file

    @property
    def named(self) -> str:
        """What the user named."""
        return str(self.outputs or self.checkpoint or self.factory)

    @property
    def stated(self) -> dict[str, Any]:
        """Those fields of `ImageFormat` that were given."""
        names = ("input_range", "output_range", "size", "scale", "multiple", "channels")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def image(self) -> ImageFormat | None:
        """What was said about pictures, over what file and family say; None if nothing was."""
        given = self.stated
        if not given:
            return None
        image = dataclasses.replace(self._read(None).spec.image, **given)
        if any(side < 1 or side % image.multiple for side in image.size):
            raise UsageError(
                "the generator does not take pictures of this size",
                got=f"{image.size[0]}x{image.size[1]}",
                allowed=f"multiples of {image.multiple}",
            )
        return image

    def load(self) -> Generator:
        """Read the generator, which must be a network.

        Raises:
            PocketganError: see `compressor.generators.load`.
            UsageError: the size does not suit the network.
        """
        return self._read(self.image())

    def student(self) -> Generator:
        """As `load`, beside a teacher: `factory` and `arguments` are his, where this is a folder of ours that
        names a family we know."""
        from compressor.generators.folder import ARCHITECTURE
        from compressor.generators.spec import GeneratorSpec

        known = Path() if self.checkpoint is None else self.checkpoint / ARCHITECTURE
        if known.is_file() and GeneratorSpec.from_json(read_json(known)).family != "custom":
            return dataclasses.replace(self, factory=None, arguments={}).load()
        return self.load()

    def teacher(self, images: Sequence[Path], device: torch.device | str = "cpu") -> Teacher:
        """Open it as what only answers with pictures.

        Args:
            images: the pictures it will be asked about; a folder of outputs must hold a partner of each.
            device: where a network runs.

        Raises:
            PocketganError, UsageError: see `compressor.agd.teachers.open_teacher`.
        """
        from compressor.agd.teachers import NetworkTeacher, open_teacher

        if self.outputs is not None:
            return open_teacher(self.outputs, outputs=self.outputs, images=images, stated=self.stated)
        if self.is_file and self.checkpoint is not None:
            return open_teacher(self.checkpoint, stated=self.stated, layout=self.layout)
        return NetworkTeacher(self.load(), device)

    def _read(self, image: ImageFormat | None) -> Generator:
        from compressor.agd.teachers.opening import made_by
        from compressor.generators import load

        if self.checkpoint is not None:
            return load(self.checkpoint, factory=self.factory, image=image, arguments=self.arguments)
        generator = made_by(str(self.factory), self.stated)
        spec = dataclasses.replace(generator.spec, image=image or generator.spec.image)
        return dataclasses.replace(generator, spec=spec)
