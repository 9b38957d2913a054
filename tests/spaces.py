"""Small search spaces for tests: one that is always the same, and random ones for what must hold in all."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import torch
from hypothesis import strategies as st

from compressor.agd.space import Choice, SearchSpace

SIDE = 8  # of the pictures

_INNER = st.one_of(
    st.sampled_from(["norm", "relu", "leaky_relu", "tanh", {"leaky_relu": 0.1}]),
    st.builds(
        lambda kernel, to, bias: {"conv": kernel, "to": to, "bias": bias},
        st.sampled_from([1, 3]),
        st.sampled_from(["in", "out", "2*in", "3*out", "out/2", "2*in/3"]),
        st.booleans(),
    ),
    st.builds(
        lambda kernel, bias: {"depthwise": kernel, "bias": bias}, st.sampled_from([3, 5]), st.booleans()
    ),
)
_ENLARGE = {
    "nearest": {"body": [{"nearest": 2}, {"conv": 3}, "leaky_relu"]},
    "shuffle": {"body": [{"conv": 1, "to": "4*out", "bias": True}, {"shuffle": 2}, "relu"]},
    "transposed": {"body": [{"transposed": 3, "bias": True}, "norm"]},
}
_OURS = ("skip", "conv3x3", "residual", "dwsblock", "identity", "own0", "own1")


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A picture made half as large or not, a residual sum or not, positions, enlarging or not."""
    own = {
        f"own{index}": {
            "body": [*draw(st.lists(_INNER, max_size=3)), {"conv": draw(st.sampled_from([1, 3]))}],
            "shortcut": draw(st.booleans()),
            "last": draw(st.sampled_from([[], ["relu"], ["norm", "relu"]])),
        }
        for index in (0, 1)
    }
    stride = draw(st.sampled_from([1, 2]))

    def widths() -> dict[str, Any]:
        chosen = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=3)))
        return draw(st.sampled_from([{"widths": chosen}, {"width": chosen[0]}, {"widths_of": 4 * chosen[0]}]))

    def operators() -> list[str]:
        return draw(st.lists(st.sampled_from(_OURS), min_size=1, max_size=3, unique=True))

    start = {"name": "start", "operators": ["start"], **widths()}
    inside = [{"name": f"p{i}", "operators": operators(), **widths()} for i in range(draw(st.integers(0, 2)))]
    inside.append({"name": "end", "operators": operators(), "width_as": "start"})
    group: dict[str, Any] = {"name": "cell", "repeat": draw(st.integers(1, 2)), "layers": inside}
    if draw(st.booleans()):
        group["residual"] = draw(st.sampled_from([1, 0.2]))
    up = draw(st.lists(st.sampled_from(list(_ENLARGE)), max_size=2, unique=True))
    tail = [{"name": "up", "operators": up, **widths()}] if up or stride == 2 else []
    if tail and not up:
        tail[0]["operators"] = ["nearest"]
    return {
        "name": "drawn",
        "norm": draw(st.sampled_from(["instance", "none"])),
        "base": draw(st.sampled_from(["none", "bilinear", "nearest"])),
        "image": {"size": [SIDE, SIDE]},
        "multipliers": ["4/12", 1],
        "operators": {
            "start": {"body": [{"conv": 3, "stride": stride, "bias": True}]},
            "picture": {"body": [{"conv": 3}, draw(st.sampled_from(["tanh", "unit_tanh"]))]},
            **_ENLARGE,
            **own,
        },
        "layers": [start, group, *tail, {"name": "picture", "operators": ["picture"], "width": 3}],
    }


SMALL: dict[str, Any] = {
    "name": "small",
    "image": {"size": [4, 4]},
    "operators": {"start": {"body": [{"conv": 3}]}, "picture": {"body": [{"conv": 1}]}},
    "layers": [
        {"name": "start", "operators": ["start"], "widths": [2, 5]},
        {"name": "cell", "operators": ["residual", "dwsblock", "identity"], "widths": [3, 8]},
        {"name": "end", "operators": ["conv3x3", "identity"], "widths": [2, 8]},
        {"name": "picture", "operators": ["picture"], "width": 3},
    ],
}


LAYERS = SMALL["layers"]


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SMALL), **changes}


def everything(space: SearchSpace) -> list[Choice]:
    operators = itertools.product(*(range(len(p.operators)) for p in space.positions))
    widths = list(itertools.product(*(range(len(p.widths)) for p in space.positions)))
    return [Choice(o, w) for o in operators for w in widths]


def picture(space: SearchSpace, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(2, space.image.channels[0], side, side, generator=draw) * 2 - 1


def networks(space: SearchSpace) -> int:
    return math.prod(len(p.operators) * len(p.widths) for p in space.positions)
