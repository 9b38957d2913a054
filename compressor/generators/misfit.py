"""What does not fit between a network's state dict and a checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN = 4  # keys of each kind named in a message


@dataclass(frozen=True)
class Misfit:
    """Keys that keep a checkpoint from fitting a network; false when there are none.

    Attributes:
        missing: names the network has and the checkpoint has not.
        unexpected: names the checkpoint has and the network has not.
        shapes: "name: checkpoint's shape, network's shape" where they differ.
        fitting: how many names and shapes agree.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]
    fitting: int

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes)

    @property
    def share(self) -> float:
        """Fitting keys over all keys of either side, in [0, 1]."""
        wrong = len(self.missing) + len(self.unexpected) + len(self.shapes)
        return self.fitting / max(1, self.fitting + wrong)

    def describe(self) -> str:
        """One line: counts, and a few names of each kind."""
        parts = []
        kinds = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.shapes),
        )
        for kind, names in kinds:
            if names:
                tail = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{tail})")
        return f"{'; '.join(parts)}; {self.fitting} keys fit"


def compare(network: Shapes, checkpoint: Shapes) -> Misfit:
    """Hold a checkpoint's {name: shape} against the network's."""
    both = [key for key in network if key in checkpoint]
    return Misfit(
        missing=tuple(key for key in network if key not in checkpoint),
        unexpected=tuple(key for key in checkpoint if key not in network),
        shapes=tuple(
            f"{key}: {_text(checkpoint[key])} in the checkpoint, {_text(network[key])} in the network"
            for key in both
            if checkpoint[key] != network[key]
        ),
        fitting=sum(checkpoint[key] == network[key] for key in both),
    )


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
