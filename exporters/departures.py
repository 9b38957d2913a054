"""What of a TFLite file is not as it should be: TRANSPOSEs and operators outside XNNPACK, with their reasons.

A file of ours has no TRANSPOSE but where the network itself moves its axes, as `permute` does, and runs in
one XNNPACK partition. Each exception is named with the layer it follows, and explained where it can be.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_REASONS = {  # of operators that XNNPACK leaves to LiteRT
    "CONCATENATION": "XNNPACK joins five tensors at the most",
    "MIRROR_PAD": "XNNPACK has no reflection padding",
    "RESIZE_NEAREST_NEIGHBOR": "XNNPACK has no nearest-neighbour resizing",
    "RSQRT": "XNNPACK has no reciprocal root of integers",
}
_WIDE = "XNNPACK has no 16-bit integers"


@dataclass(frozen=True)
class Departure:
    """One operator that should not be there, or not where it is.

    Attributes:
        operator: "TRANSPOSE", or what XNNPACK left to LiteRT's own kernels.
        delegated: XNNPACK runs it.
        after: the nearest convolution before it, by its module's name; "" where there is none.
        why: what of the network asks for it, or what XNNPACK lacks; None where we cannot tell.
    """

    operator: str
    delegated: bool
    after: str
    why: str | None

    @property
    def said(self) -> str:
        """In words."""
        place = f"after {self.after}" if self.after else "before any convolution"
        outside = "" if self.delegated else ", outside XNNPACK"
        return f"{self.operator} {place}{outside}: {self.why or 'not explained'}"


Asked = Sequence[tuple[str, str, int]]
"""(nearest convolution before, what the network does, TRANSPOSEs that may take) of each."""


def departures(
    operators: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    taken: Iterable[int],
    asked: Callable[[], Asked],
    wide: Container[int] = (),
) -> tuple[Departure, ...]:
    """Name and explain a file's exceptions.

    Args:
        operators: the interpreter's own list, DELEGATE left out: op_name, index, inputs, outputs.
        names: of tensors, by index.
        taken: indices of the operators that XNNPACK runs.
        asked: what of the network moves axes; called where the file has a TRANSPOSE.
        wide: tensors of 16-bit integers, by index.
    """
    maker = {int(out): operator for operator in operators for out in operator["outputs"]}
    delegated, left = set(taken), list[tuple[str, str, int]]()
    found = []
    if any(operator["op_name"] == "TRANSPOSE" for operator in operators):
        left = list(asked())
    for operator in operators:
        kind, inside = str(operator["op_name"]), operator["index"] in delegated
        if kind != "TRANSPOSE" and inside:
            continue

        def before(each: Mapping[str, Any]) -> list[Mapping[str, Any]]:
            return [maker[int(entry)] for entry in each["inputs"] if int(entry) in maker]

        nearest = _nearest(operator, before, lambda each: each["op_name"] in _CONVOLUTIONS)
        after = "" if nearest is None else names[int(nearest["outputs"][0])]
        held = [int(tensor) for tensor in (*operator["inputs"], *operator["outputs"])]
        why = _WIDE if any(tensor in wide for tensor in held) else _REASONS.get(kind)
        if kind == "TRANSPOSE":
            match = next((index for index, (place, _, _) in enumerate(left) if place == after), None)
            if match is not None:
                place, why, times = left.pop(match)
                left += [(place, why, times - 1)] if times > 1 else []
        found.append(Departure(kind, inside, after, why))
    return tuple(found)


def asked_for(graph: fx.GraphModule) -> Asked:
    """What of a captured network moves its axes.

    Args:
        graph: as captured, before any rewrite.
    """
    import torch

    from exporters.graph import calls, layer_name

    aten = torch.ops.aten
    convolutions = (aten.conv2d.default, aten.conv2d.padding, aten.conv_transpose2d.input)
    moves: dict[Any, tuple[str, int]] = {
        aten.pixel_shuffle.default: ("pixel shuffle", 1),
        aten.pixel_unshuffle.default: ("pixel unshuffle", 1),
        aten.channel_shuffle.default: ("channel shuffle", 1),
        aten.permute.default: ("permute", 2),  # out of the file's order of axes and back
        aten.transpose.int: ("transpose", 2),
        aten.movedim.intlist: ("movedim", 2),
    }
    found = []
    for node in calls(graph, *moves):
        what, times = moves[node.target]
        nearest = _nearest(node, lambda each: each.all_input_nodes, lambda each: each.target in convolutions)
        stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
        words = f"the network's {what}" + (f" in {stack[-1]}" if stack else "")
        found.append(("" if nearest is None else layer_name(nearest), words, times))
    return found


def _nearest(start: Any, before: Callable[[Any], list[Any]], wanted: Callable[[Any], bool]) -> Any:
    """The nearest thing before `start` that is wanted, breadth first, or None."""
    row, seen = before(start), set[int]()
    while row:
        for each in row:
            if wanted(each):
                return each
        seen |= {id(each) for each in row}
        row = [one for each in row for one in before(each) if id(one) not in seen]
    return None
