"""A recipe: everything one run needs to know, read from YAML and written back in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from compressor.budget import Budget
from compressor.errors import PocketganError, UsageError
from compressor.files import atomic
from compressor.options import DistilOptions, PruneOptions
from pocketgan.options import nearest
from pocketgan.strict_yaml import Value, as_plain, build, parse, put

if TYPE_CHECKING:
    from compressor.generators import Generator, ImageFormat

FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")


def _at_least_one(section: str, settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise UsageError(f"{section}.{name} must be 1 or more", got=getattr(settings, name))


@dataclass(frozen=True)
class GeneratorSource:
    """Where a generator comes from, and what its file does not say.

    Attributes:
        checkpoint: a checkpoint file or a folder of our own format.
        factory: "module:callable" for a network of the user's own.
        arguments: of the family's constructor, where the checkpoint does not tell them.
        input_range, output_range, size, scale, multiple, channels: see
            `compressor.generators.ImageFormat`; None where the file or the family says it.
    """

    checkpoint: Path
    factory: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    input_range: tuple[float, float] | None = None
    output_range: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    scale: int | None = None
    multiple: int | None = None
    channels: tuple[int, int] | None = None

    @property
    def stated(self) -> dict[str, Any]:
        """Those fields of `ImageFormat` that were given."""
        names = ("input_range", "output_range", "size", "scale", "multiple", "channels")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def image(self) -> ImageFormat | None:
        """What was said about pictures, over what file and family say; None if nothing was."""
        from compressor.generators import load

        given = self.stated
        if not given:
            return None
        stated = load(self.checkpoint, factory=self.factory, arguments=self.arguments).spec.image
        image = dataclasses.replace(stated, **given)
        if any(side < 1 or side % image.multiple for side in image.size):
            raise UsageError(
                "the generator does not take pictures of this size",
                got=f"{image.size[0]}x{image.size[1]}",
                allowed=f"multiples of {image.multiple}",
            )
        return image

    def load(self) -> Generator:
        """Read the generator.

        Raises:
            PocketganError: see `compressor.generators.load`.
            UsageError: the size does not suit the network.
        """
        from compressor.generators import load

        return load(self.checkpoint, factory=self.factory, image=self.image(), arguments=self.arguments)


@dataclass(frozen=True)
class Data:
    """The pictures.

    Attributes:
        images: folder of input pictures.
        held_out: pictures that are not trained on and that the result is judged by: a share of
            `images`, or a folder of their own.
    """

    images: Path
    held_out: float | Path = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.held_out, float) and not 0 < self.held_out < 1:
            raise UsageError(
                "data.held_out is no share", got=self.held_out, allowed="between 0 and 1, or a folder"
            )

    def split(self) -> tuple[list[Path], list[Path]]:
        """(pictures to train on, pictures held out).

        Raises:
            PocketganError: a folder is missing or holds no picture.
        """
        from compressor.data.images import list_images, split_held_out

        found = list_images(self.images)
        if isinstance(self.held_out, float):
            return split_held_out(found, self.held_out)
        return found, list_images(self.held_out)


@dataclass(frozen=True)
class Export:
    """The files to write.

    Attributes:
        formats: onnx (for ONNX Runtime) and tflite (for LiteRT).
        precisions: fp32, fp16 and int8.
        size: input height and width of the files, where not the generator's usual size.
        calibration: pictures that INT8 ranges are measured on.
        parity_images: held-out pictures that each file is compared with PyTorch on.
    """

    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = PRECISIONS
    size: tuple[int, int] | None = None
    calibration: int = 16
    parity_images: int = 4

    def __post_init__(self) -> None:
        for name, chosen, allowed in (
            ("formats", self.formats, FORMATS),
            ("precisions", self.precisions, PRECISIONS),
        ):
            if not chosen:
                raise UsageError(f"export.{name} is empty", allowed=", ".join(allowed))
            for word in chosen:
                if word not in allowed:
                    raise UsageError(f"export.{name} has no {word!r}{nearest(word, allowed)}")
        _at_least_one("export", self, "calibration", "parity_images")


@dataclass(frozen=True)
class Bench:
    """How latency is measured.

    Attributes:
        threads: thread counts to measure with; 1 and all cores if None.
        rounds: timed inferences of each file, interleaved with the other files'.
        warmup: untimed inferences of each file before.
        max_seconds: stop the rounds early after this long.
    """

    threads: tuple[int, ...] | None = None
    rounds: int = 30
    warmup: int = 3
    max_seconds: float = 300.0

    def __post_init__(self) -> None:
        _at_least_one("bench", self, "rounds", "warmup")
        if self.threads is not None and (not self.threads or min(self.threads) < 1):
            raise UsageError("bench.threads is no list of thread counts", got=list(self.threads))


@dataclass(frozen=True)
class Recipe:
    """One run. Paths are absolute once read from a file."""

    generator: GeneratorSource
    data: Data
    budget: str
    prune: PruneOptions = field(default_factory=PruneOptions)
    distill: DistilOptions = field(default_factory=DistilOptions)
    export: Export = field(default_factory=Export)
    bench: Bench = field(default_factory=Bench)
    seed: int = 0
    output_dir: Path | None = None

    def __post_init__(self) -> None:
        if len(Budget.parse_family(self.budget)) > 1:
            raise UsageError(
                "a run prunes to one budget",
                got=self.budget,
                fix="pocketgan prune makes families; or start a run for each budget",
            )
        if any(part.metric == "latency" for part in Budget.parse(self.budget).parts()):
            raise UsageError(
                "a run cannot prune to a latency", got=self.budget, fix="pocketgan prune --budget latency=50%"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError("seed is out of range", got=self.seed, allowed="0 to 4294967295")

    def as_plain(self) -> dict[str, Any]:
        """Every setting, also those left at their defaults, as YAML types."""
        plain: dict[str, Any] = as_plain(self)
        return plain


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file; relative paths in it refer to its folder.
        settings: overrides "prune.steps=100", each value read as YAML; relative paths in them refer to
            the current folder.

    Raises:
        UsageError: the file or an override is not a valid recipe; the message names line and key.
        PocketganError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", got=error.reason) from error
    except OSError as error:
        raise PocketganError(f"cannot read the recipe {path}", got=error.strerror or error) from error
    tree = parse(text, path.name, path.resolve().parent)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError("--set cannot be read", got=setting, allowed="--set section.key=value")
        given = parse(value, f"--set {setting}", Path.cwd())
        if given.data == {}:  # an empty value
            given = Value("", "", Path.cwd())
        tree = put(tree, key, dataclasses.replace(given, where=f"--set {setting}"))
    return build(Recipe, tree)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe in full, so that it can be run again."""
    with atomic(path, "w") as file:
        yaml.safe_dump(recipe.as_plain(), file, sort_keys=False, allow_unicode=True)
