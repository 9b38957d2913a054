"""What can be watched while a generator is trained: figures, architectures, pictures; and TensorBoard."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from compressor.data.images import to_pixels, write_image
from compressor.errors import missing_extra
from compressor.launch import leads

_POINTS = 50  # of an architecture over time
_SCALARS = 1000  # of a figure in TensorBoard
_GROUPS = {  # of figures in TensorBoard, by their first word; others are losses
    **dict.fromkeys(("share", "multiplier"), "budget"),
    **dict.fromkeys(("temperature", "certainty", "entropy"), "architecture"),
}
_SIDE = 512  # of a sample picture's panel, in pixels; larger ones are cut
Panels = Mapping[str, torch.Tensor]  # by caption, (1, C, H, W) each
Painter = Callable[[], Mapping[str, tuple[Panels, tuple[float, float]]]]  # by generator; values' range


class WatchOptions(Protocol):
    """See `compressor.options`."""

    @property
    def samples(self) -> int: ...

    @property
    def tensorboard(self) -> Path | None: ...


class Tracked(Protocol):
    """An architecture in search: `compressor.coronet.widths.Widths`, `compressor.agd.course.Course`."""

    kind: str
    target: float

    @property
    def searching(self) -> bool: ...

    def rows(self) -> dict[str, list[Any]]:
        """What to note now, a row for each key."""
        ...

    def document(self, history: Mapping[str, list[Any]], steps: list[int]) -> dict[str, Any]:
        """All rows noted, as the stage's record keeps them."""
        ...

    def board(self, writer: Any, tail: str, rows: Mapping[str, list[Any]], step: int) -> None:
        """The rows of now for TensorBoard, in groups whose names end in `tail`."""
        ...


def check(options: WatchOptions) -> None:
    """Refuse to begin without what is asked for.

    Raises:
        PocketganError: TensorBoard is not installed.
    """
    if options.tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "watch")


class Watch:
    """Keeps architectures over time and sample pictures; has state_dict and load_state_dict, as `Loop` wants.

    Pictures are written to FOLDER/samples/step_000100.png, panels side by side. Of several processes rank
    0 paints and writes.

    Args:
        stage: such as "prune"; a folder of this name below `options.tensorboard` gets the event files.
        steps: about how many there will be.
        folders: where each generator's files go, by the generator's name ("" if there is but one).
        options: how many samples, and TensorBoard's folder.
        paint: makes the sample pictures; called seldom, with gradients off.
        tracked: the architecture of each generator that is searched.
    """

    def __init__(
        self,
        stage: str,
        steps: int,
        folders: Mapping[str, Path],
        options: WatchOptions,
        paint: Painter,
        tracked: Mapping[str, Tracked] | None = None,
    ):
        self.stage, self.folders, self.options, self.paint = stage, folders, options, paint
        self.tracked = dict(tracked or {})
        self._every = max(1, -(-steps // _POINTS))
        self._scalars = max(1, steps // _SCALARS)
        self._paints = -(-steps // options.samples) if options.samples else 0
        self.steps: list[int] = []
        self.history: dict[str, dict[str, list[Any]]] = {name: {} for name in self.tracked}
        self.painted: list[int] = []
        self.captions: dict[str, list[str]] = {}
        self._writer: Any = None

    def look(self, step: int, figures: Mapping[str, float], *, last: bool = False) -> None:
        """Take note of what the given step (counted from 1) left behind, if it is time.

        Args:
            step: done so far.
            figures: of this step.
            last: whether the search ends with it: architectures are noted in any case.
        """
        searching = all(each.searching for each in self.tracked.values())
        if self.tracked and searching and (not self.steps or step % self._every == 0 or last):
            self._note_architectures(step)
        if self._paints and (step == 1 or step % self._paints == 0) and step not in self.painted:
            self._note_pictures(step)
        if step % self._scalars == 0:
            self._to_tensorboard(step, figures)

    def document(self, name: str = "") -> dict[str, Any]:
        """What the stage's record keeps of it for one generator."""
        found: dict[str, Any] = {}
        if name in self.tracked and self.steps:
            each = self.tracked[name]
            found[each.kind] = each.document(self.history[name], self.steps)
        if self.painted:
            found["samples"] = {"panels": self.captions[name], "steps": self.painted}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "history": self.history,
            "painted": self.painted,
            "captions": self.captions,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.history = state["steps"], state["history"]
        self.painted, self.captions = state["painted"], state["captions"]

    def close(self) -> None:
        """No more will come."""
        if self._writer is not None:
            self._writer.close()

    def _note_architectures(self, step: int) -> None:
        again = bool(self.steps) and self.steps[-1] == step  # landed since
        self.steps = [*self.steps[: len(self.steps) - again], step]
        for name, each in self.tracked.items():
            rows, history = each.rows(), self.history[name]
            for key, row in rows.items():
                earlier = history.get(key, [])
                history[key] = [*earlier[: len(earlier) - again], row]
            writer = self._board(step)
            if writer is not None:
                each.board(writer, self._tag("", name), rows, step)

    def _note_pictures(self, step: int) -> None:
        self.painted = [*self.painted, step]
        with torch.no_grad():
            made = self.paint()
        for name, (panels, value_range) in made.items():
            self.captions[name] = list(panels)
            if not leads():
                continue
            picture = np.concatenate([_panel(values, value_range) for values in panels.values()], axis=1)
            write_image(self.folders[name] / "samples" / f"step_{step:06d}.png", picture)
            writer = self._board(step)
            if writer is not None:
                caption = " | ".join(panels)
                writer.add_image(f"{self._tag('samples', name)}/{caption}", picture, step, dataformats="HWC")

    def _to_tensorboard(self, step: int, figures: Mapping[str, float]) -> None:
        writer = self._board(step)
        if writer is None:
            return
        for name, value in figures.items():
            writer.add_scalar(f"{_GROUPS.get(name.partition('_')[0], 'loss')}/{name}", value, step)
        for name, each in self.tracked.items():
            if self._tag("share", name) in figures:
                writer.add_scalar(f"budget/{self._tag('target', name)}", each.target, step)

    def _tag(self, kind: str, name: str) -> str:
        """As figures are named: with the generator's name where there are several."""
        return f"{kind}_{name}" if len(self.folders) > 1 else kind

    def _board(self, step: int) -> Any:
        """TensorBoard's writer, made at the first use: what a killed run wrote from `step` on is dropped."""
        if self._writer is None and self.options.tensorboard is not None and leads():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.options.tensorboard / self.stage), purge_step=step)
        return self._writer


@contextlib.contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Everything in eval mode inside, so that painting leaves no trace in running averages."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _panel(values: torch.Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """One picture as (H, W, 3) in [0, 1], its middle where it is very large."""
    pixels = to_pixels(values[:1], value_range)
    top, left = (max(0, side - _SIDE) // 2 for side in pixels.shape[:2])
    pixels = pixels[top : top + _SIDE, left : left + _SIDE]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
