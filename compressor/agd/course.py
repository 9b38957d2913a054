"""Where an architecture is heading while it is searched: probabilities and expected widths over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from compressor.agd.member import Member
from compressor.agd.space import SearchSpace


class Course:
    """Reads off one member of a search; `compressor.training.watch` keeps what it reads.

    Attributes:
        kind: the key of what is kept, in search.json.
        target: of the expected cost over the budget.
    """

    kind, target = "course", 1.0

    def __init__(self, space: SearchSpace, member: Member):
        self._space, self._member = space, member
        self._open = [
            index
            for index, position in enumerate(space.positions)
            if len(position.operators) > 1 or len(space.positions[space.owner(index)].widths) > 1
        ]

    @property
    def searching(self) -> bool:
        """Whether the architecture has taken a step; before, only weights are trained."""
        return bool(self._member.optimiser.state)

    def rows(self) -> dict[str, list[Any]]:
        """By position: each operator's probability, and the expected channels."""
        with torch.no_grad():
            alpha, ratio = (p.double().numpy() for p in self._member.architecture.probabilities())
        operators, channels = [], []
        for index in self._open:
            owner = self._space.owner(index)
            widths = np.array(self._space.positions[owner].widths)
            chances = alpha[index, : len(self._space.positions[index].operators)]
            operators.append([round(float(chance), 4) for chance in chances])
            channels.append(round(float(ratio[owner, : len(widths)] @ widths), 2))
        return {"operators": operators, "channels": channels}

    def document(self, history: Mapping[str, list[Any]], steps: list[int]) -> dict[str, Any]:
        """Of each position that is not fixed: `chances` and `channels` by step."""
        positions = self._space.positions
        return {
            "steps": steps,
            "positions": [
                {
                    "name": positions[index].name,
                    "operators": list(positions[index].operators),
                    "chances": [row[place] for row in history["operators"]],
                    "widest": max(positions[self._space.owner(index)].widths),
                    "channels": [row[place] for row in history["channels"]],
                }
                for place, index in enumerate(self._open)
            ],
        }

    def board(self, writer: Any, tail: str, rows: Mapping[str, list[Any]], step: int) -> None:
        """The same for TensorBoard."""
        for place, index in enumerate(self._open):
            position = self._space.positions[index]
            writer.add_scalar(f"width{tail}/{position.name}", rows["channels"][place], step)
            chances = rows["operators"][place]
            if len(chances) > 1:
                for name, chance in zip(position.operators, chances, strict=True):
                    writer.add_scalar(f"operator{tail}/{position.name}/{name}", chance, step)
