"""What a generator is shown and what it should make of it: the original's pictures, true ones, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from compressor.agd.teachers import TaughtPictures, Teacher
from compressor.generators.spec import ImageFormat
from compressor.training import ranks
from compressor.training.engine import Engine, EngineOptions, Forward
from compressor.training.losses import Distance
from compressor.training.patches import Patches
from compressor.training.truth import TruePatches


class LessonOptions(EngineOptions, Protocol):
    """What settings say about pictures; see `compressor.options`."""

    @property
    def crop(self) -> int | None: ...

    @property
    def batch(self) -> int: ...

    @property
    def perceptual(self) -> Path | None: ...


class Lessons:
    """Batches and their loss: truth * distance to true pictures + distillation * distance to the original's.

    Args:
        images: inputs; with `truth`, the true pictures that inputs are made from.
        image: the generator's format.
        options: crops, batch, feature loss (`loss` too, if they have it), how networks are run.
        engine: the same, ready.
        original: the teacher's forward, run on every batch; or a teacher whose outputs are computed once.
        seed: of the crops.
        truth, distillation: weights, not both 0.

    Raises:
        PocketganError: the crop does not suit the generator, or it has no small pictures (see `TruePatches`).
    """

    def __init__(
        self,
        images: Sequence[Path],
        image: ImageFormat,
        options: LessonOptions,
        engine: Engine,
        original: Forward | Teacher,
        seed: int,
        *,
        truth: float = 0.0,
        distillation: float = 1.0,
    ):
        ranks.agree("the pictures' names", [path.name for path in images])
        self.engine, self.original = engine, original
        self.truth, self.distillation, self.accumulate = truth, distillation, options.accumulate
        self.patches: Patches | TruePatches | TaughtPictures
        if isinstance(original, Forward):
            kind = TruePatches if truth else Patches
            self.patches = kind(images, image, options.crop, options.batch, seed)
        else:
            self.patches = TaughtPictures(
                images, original, image, crop=options.crop, batch=options.batch, seed=seed, truth=bool(truth)
            )
        self.distance = Distance(image, options.perceptual, getattr(options, "loss", None)).to(engine.device)

    def __call__(self, step: int) -> torch.Tensor:
        """The inputs of a step, (batch, C, H, W) in the input range."""
        return self.patches(step)

    def backward(self, step: int, student: Callable[[], Forward]) -> float:
        """Add a step's gradients, micro-batch by micro-batch; the loss.

        Args:
            student: gives the forward pass to be trained, anew for each micro-batch.
        """
        total = 0.0
        for pictures, true, taught in self._parts(step):
            made = student()(pictures)
            if isinstance(self.patches, TaughtPictures):
                made = self.patches.inner(made)
            loss = made.new_zeros(())
            if true is not None:
                loss = loss + self.truth * self.distance(made, true)
            if self.distillation:
                wanted = self._wanted(pictures) if taught is None else taught
                loss = loss + self.distillation * self.distance(made, wanted)
            loss = loss / self.accumulate
            loss.backward()
            total += loss.item()
        return total

    def _parts(self, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]]:
        """(inputs, true pictures, the teacher's) of each micro-batch, as far as they are drawn."""
        patches = self.patches
        if isinstance(patches, TaughtPictures):
            pictures, *made = patches.lesson(step)
            for inputs, taught, *true in self.engine.parts(pictures, *map(patches.inner, made)):
                yield inputs, true[0] if true else None, taught
        elif isinstance(patches, TruePatches):
            for inputs, large in self.engine.parts(*patches.pair(step)):
                yield inputs, large, None
        else:
            for (inputs,) in self.engine.parts(patches(step)):
                yield inputs, None, None

    @torch.no_grad()
    def _wanted(self, pictures: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.original, Forward)
        return self.original(pictures)
