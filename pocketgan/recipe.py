"""A recipe: everything one run needs to know, read from YAML and written back in full."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from compressor.agd.options import SearchOptions
from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.files import atomic
from compressor.options import DistilOptions, PruneOptions
from pocketgan.options import nearest
from pocketgan.source import GeneratorSource
from pocketgan.strict_yaml import Value, as_plain, build, parse, put, read_text

FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8", "int8-dynamic", "w8a16")
USUAL = PRECISIONS[:3]
INTEGERS = ("uint8", "int8")


def _at_least_one(section: str, settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise UsageError(f"{section}.{name} must be 1 or more", got=getattr(settings, name))


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
        precisions: of fp32, fp16, int8 (static), int8-dynamic, and w8a16 (int8 weights, 16-bit activations).
        size: input height and width of the files, where not the generator's usual size.
        calibration: pictures that INT8 ranges are measured on.
        parity_images: held-out pictures that each file is compared with PyTorch on.
        min_psnr: dB that INT8 must reach on each of them; with None it aims at 40 on average, and any above
            20 will do.
        dynamic: ONNX files take pictures of any height and width that the network can.
        opset: of ONNX files' operators.
        max_drop: instead, dB that INT8's mean PSNR to the pictures of `reference` may be below that of the
            network in float.
        reference: folder of the true pictures, or a teacher's, found by the inputs' names.
        integer_io: uint8 or int8: the INT8 TFLite file takes and gives a picture's bytes.
    """

    formats: tuple[str, ...] = FORMATS
    precisions: tuple[str, ...] = USUAL
    size: tuple[int, int] | None = None
    calibration: int = 16
    parity_images: int = 4
    min_psnr: float | None = None
    dynamic: bool = False
    opset: int = 18
    max_drop: float | None = None
    reference: Path | None = None
    integer_io: str | None = None

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
        if self.min_psnr is not None and not 0 < self.min_psnr < math.inf:
            raise UsageError("export.min_psnr is no PSNR", got=self.min_psnr, allowed="dB above 0")
        if self.integer_io is not None and not (
            self.integer_io in INTEGERS and "tflite" in self.formats and "int8" in self.precisions
        ):
            raise UsageError(
                "export.integer_io is of static INT8 TFLite files",
                got=self.integer_io,
                allowed=f"{' or '.join(INTEGERS)}, tflite among export.formats, int8 among export.precisions",
            )
        if self.max_drop is not None and not 0 < self.max_drop < math.inf:
            raise UsageError("export.max_drop is no drop", got=self.max_drop, allowed="dB above 0")
        if (self.max_drop is None) != (self.reference is None) or None not in (self.max_drop, self.min_psnr):
            raise UsageError(
                "a drop is measured against true pictures, and is asked for alone",
                allowed="export.max_drop with export.reference, a folder; or export.min_psnr",
            )


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
class Search(SearchOptions):
    """How a new generator is searched; the recipe's generator is its teacher.

    Attributes:
        budget: what the found generator may cost, where it is pruned to the recipe's budget afterwards.
        space: what is searched: a shipped space's name or a file; as `pocketgan search` chooses if None.
    """

    budget: str | None = None
    space: Path | None = None

    @property
    def options(self) -> SearchOptions:
        """The settings of the search itself."""
        return SearchOptions(**{f.name: getattr(self, f.name) for f in dataclasses.fields(SearchOptions)})

    @property
    def space_name(self) -> str | None:
        """A shipped space by its name, a file by its path."""
        if self.space is None:
            return None
        return str(self.space) if self.space.is_file() or self.space.suffix else self.space.name


@dataclass(frozen=True)
class Recipe:
    """One run. Paths are absolute once read from a file.

    Attributes:
        generator: what is made small: it is pruned, or with `search` it teaches a new, small one.
        budget: what the result may cost.
        search: None where the generator itself is pruned.
        train: of the found generator before it is pruned, where not as `distill` says.
        seed: of everything drawn at random; 0 to 4294967295.
        output_dir: the run folder; runs/RECIPE if None.
    """

    generator: GeneratorSource
    data: Data
    budget: str
    search: Search | None = None
    train: DistilOptions | None = None
    prune: PruneOptions = field(default_factory=PruneOptions)
    distill: DistilOptions = field(default_factory=DistilOptions)
    export: Export = field(default_factory=Export)
    bench: Bench = field(default_factory=Bench)
    seed: int = 0
    output_dir: Path | None = None

    @property
    def prunes(self) -> bool:
        """Whether CoroNet has a part in it."""
        return self.search is None or self.search.budget is not None

    def __post_init__(self) -> None:
        for key, budget in self.budgets().items():
            if len(Budget.parse_family(budget)) > 1:
                raise UsageError(
                    f"a run leads to one network, and {key} asks for several",
                    got=budget,
                    fix="pocketgan prune and pocketgan search make families; or start a run for each budget",
                )
            if any(part.metric == "latency" for part in Budget.parse(budget).parts()):
                raise UsageError(
                    "a run cannot come down to a latency",
                    got=budget,
                    fix="pocketgan prune --budget latency=50%",
                )
        if not 0 <= self.seed < 2**32:
            raise UsageError("seed is out of range", got=self.seed, allowed="0 to 4294967295")
        if self.search is None and not self.generator.is_network:
            raise UsageError(
                "what teaches by its pictures alone cannot be pruned",
                got=f"generator: {self.generator.named}",
                allowed="a checkpoint; or a search for a new generator: add the section search: {}",
            )
        self._agree()

    def budgets(self) -> dict[str, str]:
        """The budgets by their keys, in the order in which they are met."""
        first = {"search.budget": self.search.budget} if self.search and self.search.budget else {}
        return {**first, "budget": self.budget}

    def _agree(self) -> None:
        """Refuse settings that contradict each other."""
        if self.train is not None and not (self.search and self.prunes):
            raise UsageError(
                "train means nothing here: the generator is trained once, as distill says",
                allowed="train beside search.budget, which prunes the found generator once it is trained",
            )
        if self.search is None:
            return
        if not self.prunes and self.prune != PruneOptions():
            raise UsageError(
                "prune means nothing here: the search itself comes to the budget",
                allowed="prune beside search.budget: what the found generator may cost before it is pruned",
            )
        if self.search.truth and self.generator.outputs is not None:
            raise UsageError(
                "search.truth makes inputs from data.images, of which generator.outputs knows nothing",
                fix="write the small inputs into files, and give these as data.images",
            )
        if self.search.truth != (self.distill.truth > 0):
            raise UsageError(
                "search and distill take different pictures from data.images",
                got=f"search.truth={str(self.search.truth).lower()}, distill.truth={self.distill.truth:g}",
                allowed="search.truth: true with distill.truth over 0 (they are true and large), "
                "or neither (they are inputs)",
            )
        if self.search.budget is not None:
            before, after = Budget.parse(self.search.budget), Budget.parse(self.budget)
            for part in after.parts():
                sizes = [(b.share, b.amount) for b in (before, part)]
                kinds = {share is None for share, _ in sizes}
                large, small = (share or amount or 0 for share, amount in sizes)
                if part.metric == before.metric and len(kinds) == 1 and small >= large:
                    raise UsageError(
                        "nothing is left to prune: the search comes to less than the budget",
                        got=f"search.budget: {self.search.budget}, budget: {self.budget}",
                        allowed="a budget smaller than search.budget; or no search.budget, to search only",
                    )

    def as_plain(self) -> dict[str, Any]:
        """Every setting, also those left at their defaults, as YAML types."""
        plain: dict[str, Any] = as_plain(self)
        absent = [name for name in ("search", "train") if plain[name] is None]
        return {name: value for name, value in plain.items() if name not in absent}


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
    tree = parse(read_text(path, "recipe"), path.name, path.resolve().parent)
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
