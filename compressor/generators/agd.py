"""AGD's generators: one choice of operators and widths out of a search space (Fu et al., ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.agd.definition import read_space
from compressor.agd.modules import PlainOperator, run_chain
from compressor.agd.space import Choice, SearchSpace, load_space
from compressor.generators.spec import ImageFormat

if TYPE_CHECKING:
    from torch import Tensor


class AgdGenerator(nn.Module):
    """One network of a search space: (N, C, H, W) -> (N, C', scale H, scale W), in the space's ranges.

    Args:
        space: a space's definition, or the name of a shipped one.
        operators: the operator at each position, by name; the first of each where not given.
        widths: the channels after each position; the largest where not given.
    """

    def __init__(
        self,
        space: str | Mapping[str, Any] = "st",
        operators: Sequence[str] | None = None,
        widths: Sequence[int] | None = None,
    ):
        super().__init__()
        found = _space(space)
        widest = Choice.widest(found)
        operators = found.names(widest) if operators is None else operators
        widths = found.widths(widest) if widths is None else widths
        found.choice(operators, widths)  # refuses what the space does not have
        self.layers = nn.ModuleDict()
        inputs = found.image.channels[0]
        for position, operator, outputs in zip(found.positions, operators, widths, strict=True):
            last = position is found.positions[-1]
            self.layers[position.name] = PlainOperator(found.operators[operator], inputs, outputs, last=last)
            inputs = outputs
        self.residuals, self.base, self.scale = found.residuals, found.base, found.image.scale

    def forward(self, x: Tensor) -> Tensor:
        return run_chain(x, list(self.layers.values()), self.residuals, self.base, self.scale)


def _space(space: str | Mapping[str, Any]) -> SearchSpace:
    return load_space(space) if isinstance(space, str) else read_space(space)


def infer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """None: weights do not tell the space they came from, so these generators are read from our folders."""
    return None


def image_format(arguments: Mapping[str, Any]) -> ImageFormat:
    """What the space says."""
    return _space(arguments["space"]).image
