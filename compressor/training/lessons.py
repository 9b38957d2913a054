"""What a generator is shown and what it should make of it: the original's pictures, true ones, or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

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
        options: crops, batch, feature loss, how networks are run.
        engine: the same, ready.
        original: the teacher's forward.
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
        original: Forward,
        seed: int,
        *,
        truth: float = 0.0,
        distillation: float = 1.0,
    ):
        ranks.agree("the pictures' names", [path.name for path in images])
        self.engine, self.original = engine, original
        self.truth, self.distillation, self.accumulate = truth, distillation, options.accumulate
        kind = TruePatches if truth else Patches
        self.patches = kind(images, image, options.crop, options.batch, seed)
        self.distance = Distance(image, options.perceptual).to(engine.device)

    def __call__(self, step: int) -> torch.Tensor:
        """The inputs of a step, (batch, C, H, W) in the input range."""
        return self.patches(step)

    def backward(self, step: int, student: Callable[[], Forward]) -> float:
        """Add a step's gradients, micro-batch by micro-batch; the loss.

        Args:
            student: gives the forward pass to be trained, anew for each micro-batch.
        """
        drawn = self.patches.pair(step) if isinstance(self.patches, TruePatches) else (self.patches(step),)
        total = 0.0
        for pictures, *true in self.engine.parts(*drawn):
            made = student()(pictures)
            loss = made.new_zeros(())
            if true:
                loss = loss + self.truth * self.distance(made, true[0])
            if self.distillation:
                with torch.no_grad():
                    wanted = self.original(pictures)
                loss = loss + self.distillation * self.distance(made, wanted)
            loss = loss / self.accumulate
            loss.backward()
            total += loss.item()
        return total
