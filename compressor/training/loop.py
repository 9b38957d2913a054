"""A training loop that can be stopped at any moment and goes on to the same result."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from compressor.errors import PocketganError
from compressor.files import atomic
from compressor.launch import leads
from compressor.progress import Progress
from compressor.training import ranks

_SAVE_EVERY = 15.0  # seconds between checkpoints
_REPORTS = 200  # points of a trajectory, at most


class Loop:
    """Counts steps, saves the state now and then, and begins where an earlier run stopped.

    A step may depend on nothing but the saved parts and its own number; then a run killed at any
    moment and resumed ends in the same numbers as one that was not. Of several processes rank 0 reads and
    writes the checkpoint and the log, and all go on from it.

    Args:
        stage: what is being done ("prune"), shown and logged.
        steps: how many.
        checkpoint: file of the state; removed by `finish`.
        parts: what to save; each with state_dict and load_state_dict, as modules and optimisers have.
        identity: settings that must be equal for a checkpoint to be continued.
        log: JSON-lines file for figures, or None.
    """

    def __init__(
        self,
        stage: str,
        steps: int,
        checkpoint: Path,
        parts: Mapping[str, Any],
        identity: Mapping[str, Any],
        log: Path | None = None,
    ):
        self.stage, self.steps, self.checkpoint, self.parts, self.log = stage, steps, checkpoint, parts, log
        self.identity = json.loads(json.dumps(identity, default=str))
        self.trajectory: list[dict[str, float]] = []
        self.start = 0
        self._figures: dict[str, float] = {}
        self._every = max(1, steps // _REPORTS)
        ranks.agree("their settings", self.identity)

    def resume(self) -> bool:
        """Take up the checkpoint if there is one.

        Raises:
            PocketganError: it was written with other settings, or is damaged.
        """
        held = ranks.on_leader(lambda: self.checkpoint.read_bytes() if self.checkpoint.exists() else None)
        if held is None:
            self._truncate_log()
            return False
        try:
            state = torch.load(io.BytesIO(held), map_location="cpu", weights_only=True)
            found = state["identity"]
        except Exception as error:
            raise PocketganError(
                f"{self.checkpoint} cannot be read", got=error, fix="delete it to start this stage anew"
            ) from error
        if found != self.identity:
            differing = sorted(k for k in {*found, *self.identity} if found.get(k) != self.identity.get(k))
            raise PocketganError(
                f"{self.checkpoint} belongs to a run with other settings: {', '.join(differing)}",
                got={key: self.identity.get(key) for key in differing},
                allowed={key: found.get(key) for key in differing},
                fix="resume with the same settings, or choose another --output-dir",
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.start, self.trajectory = state["step"], state["trajectory"]
        self._truncate_log()
        return True

    def __iter__(self) -> Iterator[int]:
        saved = time.monotonic()
        with Progress(self.stage, self.steps, self.start) as progress:
            for step in range(self.start, self.steps):
                yield step
                done = step + 1
                if not all(map(math.isfinite, self._figures.values())):
                    raise PocketganError(
                        f"{self.stage} diverged at step {done}",
                        got=self._figures,
                        fix=f"lower {self.stage}.learning_rate",
                    )
                if done % self._every == 0 or done == self.steps:
                    self.trajectory.append({"step": done, **self._figures})
                    self._write_log(self.trajectory[-1])
                progress.update(done, **self._figures)
                if time.monotonic() - saved > _SAVE_EVERY or done == self.steps:
                    self._save(done)
                    saved = time.monotonic()

    def report(self, **figures: float) -> None:
        """Figures of the current step."""
        self._figures = figures

    def hold(self) -> None:
        """Save now, before the first step: what led here need not be done again."""
        self._save(self.start)

    def finish(self) -> None:
        """The result is written; the checkpoint is needed no more."""
        ranks.on_leader(lambda: self.checkpoint.unlink(missing_ok=True))

    def _save(self, step: int) -> None:
        if not leads():
            return
        with atomic(self.checkpoint) as file:
            torch.save(
                {
                    "identity": self.identity,
                    "step": step,
                    "trajectory": self.trajectory,
                    "parts": {name: part.state_dict() for name, part in self.parts.items()},
                },
                file,
            )

    def _write_log(self, figures: Mapping[str, float]) -> None:
        if self.log is not None and leads():
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": self.stage, **figures}) + "\n")

    def _truncate_log(self) -> None:
        """Drop lines of this stage that were written after the state we go on from."""
        if self.log is None or not leads() or not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line a kill cut short
            if entry.get("stage") != self.stage or entry.get("step", 0) <= self.start:
                kept.append(line + "\n")
        with atomic(self.log, "w") as file:
            file.writelines(kept)


def cosine(step: int, steps: int, peak: float, warm_up: float = 0.05, final: float = 0.0) -> float:
    """Learning rate of a step: linear to `peak` over the first part, then half a cosine to `final * peak`."""
    rise = max(1, round(steps * warm_up))
    if step < rise:
        return peak * (step + 1) / rise
    fall = 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
    return peak * (final + (1 - final) * fall)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def choose_device(name: str) -> torch.device:
    """The device by name; "auto" is the first GPU if there is one.

    Raises:
        PocketganError: "cuda" was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise PocketganError("no CUDA GPU can be used here", fix="--device cpu; see: pocketgan doctor")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train_mode(module: torch.nn.Module) -> torch.nn.Module:
    """Eval mode, but with BatchNorm gathering statistics; dropout stays off, the teacher has none."""
    module.eval()
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.track_running_stats:
            part.train()
    return module
