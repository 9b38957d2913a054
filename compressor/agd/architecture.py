"""What is searched: a probability for every operator and width of every position, and how they are drawn.

The loss must tell an operator or a width whether it helps, though only what was drawn is computed:

- Operators, "mixture" (as published): all are evaluated and summed, weighted by softmax(alpha).
- Operators, "sampled": a step draws two of each position. The first one's output is used alone (its weight
  is 1), the second's is multiplied by 0; both weights carry the gradient of their softmax over the two
  (straight through), so that the position learns dL/dy (y1 - y2). In weight steps one is drawn.
- Widths, "whole" (as published): the output is multiplied by the winner's entry of a hard straight-through
  Gumbel-softmax. A norm that follows divides that factor out again: then widths feel hardly anything.
- Widths, "groups": the channels between two neighbouring widths are a group, whose gate is the probability
  that the width lies above it. The network runs one width wider than drawn, with the surplus group
  multiplied by 0; the gates carry their gradients straight through, so every width is told what its own last
  channels, and the next ones, would change: first-order importance, of groups.

The surplus channels are exact zeros, so the loss is the drawn network's, but for operators whose inner
parts depend on the channels that arrive (a shortcut that is bridged, hidden channels). That concerns
architecture steps alone: weights are trained, and networks compared, at the drawn widths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from compressor.agd.supernet import Pick

START = 1e-3  # published first value of every parameter
_FARTHEST = 3.0  # of a first value from another when starting at the budget, so that minds can be changed
Expected = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Architecture(nn.Module):
    """alpha and ratio of a space with `operators[p]` operators and widths `channels[p]` at position p.

    A position that is tied to an earlier one has that one's width, and one entry in `channels`.

    Attributes:
        alpha: (positions, most operators); what a position does not have is masked.
        ratio: (positions, most widths).
    """

    def __init__(
        self,
        operators: Sequence[int],
        channels: Sequence[Sequence[int]],
        tied: Sequence[int | None] | None = None,
    ):
        super().__init__()
        self.counts = list(operators)
        self.tied = list(tied or [None] * len(self.counts))
        self.channels = [list(widths) for widths in channels]
        shapes = (self.counts, [len(widths) for widths in self.channels])
        self.alpha, self.ratio = (
            nn.Parameter(torch.full((len(counts), max(counts)), START)) for counts in shapes
        )
        for name, counts in zip(("no_operator", "no_width"), shapes, strict=True):
            absent = torch.arange(max(counts))[None] >= torch.tensor(counts)[:, None]
            self.register_buffer(name, absent, persistent=False)
        self.no_operator: torch.Tensor
        self.no_width: torch.Tensor

    def logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, with -inf where a position has no such choice."""
        return (
            self.alpha.masked_fill(self.no_operator, -torch.inf),
            self.ratio.masked_fill(self.no_width, -torch.inf),
        )

    def probabilities(self) -> tuple[torch.Tensor, torch.Tensor]:
        """softmax of both, (positions, choices); they carry gradients."""
        alpha, ratio = self.logits()
        return alpha.softmax(1), ratio.softmax(1)

    @torch.no_grad()
    def log_probabilities(
        self, draw: np.random.Generator | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For landing: one array for each position. With `draw`, Gumbel noise is added: the most probable
        network is then one drawn at random by these probabilities (perturb and maximise)."""
        found = []
        for logits, counts in zip(
            self.logits(), (self.counts, [len(widths) for widths in self.channels]), strict=True
        ):
            rows = logits.double().log_softmax(1).cpu().numpy()
            noise = draw.gumbel(size=rows.shape) if draw is not None else np.zeros(rows.shape)
            found.append([row[:n] + extra[:n] for row, extra, n in zip(rows, noise, counts, strict=True)])
        return found[0], found[1]

    def certainty(self) -> float:
        """The mean over all choices of the likeliest entry's probability, from 1/choices to 1."""
        with torch.no_grad():
            parts = [
                p.amax(1)[(~m).sum(1) > 1] for p, m in zip(self.probabilities(), self._masks(), strict=True)
            ]
            every = torch.cat(parts)
            return float(every.mean()) if len(every) else 1.0

    def entropy(self) -> float:
        """The mean over positions of the operators' entropy, over its most: 1 all alike, 0 decided."""
        with torch.no_grad():
            chances, _ = self.probabilities()
            counts = torch.tensor(self.counts)
            several = counts > 1
            if not several.any():
                return 0.0
            entropies = torch.special.entr(chances).sum(1)[several] / counts[several].log()
            return float(entropies.mean())

    def start_at(self, expected: Expected, target: float) -> None:
        """Tilt the first values so that the expected cost is the target, as far as that can be done.

        Each value is lowered in proportion to what its choice adds to the cost: among all independent
        distributions over the space with that expected cost, about the least decided one. A search that
        starts here need not first walk to its budget.
        """
        operators, widths = self.probabilities()
        slopes = torch.autograd.grad(expected(operators, widths), (operators, widths), allow_unused=True)
        directions = []
        for slope, mask in zip(slopes, self._masks(), strict=True):
            slope = torch.zeros(mask.shape) if slope is None else slope.detach()
            mean = slope.masked_fill(mask, 0).sum(1, keepdim=True) / (~mask).sum(1, keepdim=True)
            directions.append((slope - mean).masked_fill(mask, 0))
        unit = max(float(d.abs().max()) for d in directions)
        if not unit > 0:
            return

        @torch.no_grad()
        def tilted(strength: float) -> float:
            for values, direction in zip((self.alpha, self.ratio), directions, strict=True):
                values.copy_(START - (strength * direction / unit).clamp(-_FARTHEST, _FARTHEST))
            return float(expected(*self.probabilities()))

        low, high = -100.0 * _FARTHEST, 100.0 * _FARTHEST  # of the strength; cost falls as it grows
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if tilted(middle) > target else (low, middle)
        tilted(high)

    def _masks(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.no_operator, self.no_width


class Sampler:
    """Draws networks from an architecture, with or without gradients to it.

    Args:
        operators: "sampled" or "mixture".
        widths: "groups" or "whole".
    """

    def __init__(self, operators: str, widths: str):
        self.operators, self.widths = operators, widths

    def choice(self, architecture: Architecture, draw: np.random.Generator) -> tuple[list[int], list[int]]:
        """One network: indices of operators and widths."""
        alpha, ratio = architecture.log_probabilities(draw)
        return [int(row.argmax()) for row in alpha], [int(row.argmax()) for row in ratio]

    def picks(
        self, architecture: Architecture, draw: np.random.Generator, temperature: float, *, learn: bool
    ) -> list[Pick]:
        """One network as the supernet takes it.

        Args:
            draw: where its noise comes from.
            temperature: of the Gumbel-softmax whose gradients are taken.
            learn: whether the weights of the picks carry gradients to the architecture.
        """
        alpha, ratio = architecture.logits() if learn else tuple(x.detach() for x in architecture.logits())
        noise = [
            torch.from_numpy(draw.gumbel(size=tuple(values.shape))).to(values) for values in (alpha, ratio)
        ]
        found: list[Pick] = []
        for position, count in enumerate(architecture.counts):
            operators = self._operators(
                alpha[position, :count], noise[0][position, :count], temperature, learn
            )
            channels = architecture.channels[position]
            row = ratio[position, : len(channels)], noise[1][position, : len(channels)]
            owner = architecture.tied[position]
            if owner is None:
                width = self._width(*row, channels, temperature, learn)
            else:  # surplus channels must be zeros here too
                width = 0, found[owner].width[1] if self.widths == "groups" else None
            found.append(Pick(operators, width))
        return found

    def _operators(
        self, logits: torch.Tensor, noise: torch.Tensor, temperature: float, learn: bool
    ) -> tuple[tuple[int, torch.Tensor | None], ...]:
        if len(logits) == 1:
            return ((0, None),)
        if self.operators == "mixture":
            return tuple((index, weight) for index, weight in enumerate(logits.softmax(0)))
        noisy = (logits + noise).detach()
        if not learn:
            return ((int(noisy.argmax()), None),)
        pair = noisy.topk(2).indices
        soft = ((logits + noise)[pair] / temperature).softmax(0)
        hard = torch.tensor([1.0, 0.0], device=soft.device)
        weights = hard + (soft - soft.detach())
        return tuple((int(index), weight) for index, weight in zip(pair, weights, strict=True))

    def _width(
        self,
        logits: torch.Tensor,
        noise: torch.Tensor,
        channels: Sequence[int],
        temperature: float,
        learn: bool,
    ) -> tuple[int, torch.Tensor | None]:
        noisy = logits + noise
        drawn = int(noisy.argmax())
        if len(logits) == 1 or not learn:
            return drawn, None
        soft = (noisy / temperature).softmax(0)
        if self.widths == "whole":
            return drawn, 1 + (soft[drawn] - soft[drawn].detach())
        wide = min(drawn + 1, len(channels) - 1)
        # gates[k]: the probability that the width is at least the k-th, which holds the k-th group's channels
        gates = soft.flip(0).cumsum(0).flip(0)[: wide + 1]
        hard = (torch.arange(wide + 1, device=soft.device) <= drawn).to(soft)
        sizes = torch.tensor(np.diff(channels[: wide + 1], prepend=0), device=soft.device)
        return wide, (hard + (gates - gates.detach())).repeat_interleave(sizes)[:, None, None]
