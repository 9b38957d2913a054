"""Files that take and give a picture's bytes: integer input and output.

A file's own numbers, such as -1 to 1, have no grid of 256 levels of which each is a byte and one is zero. So
such a file's numbers are the bytes, 0 to 255, and it turns them into the network's itself: with a scale of 1
every byte goes in and comes out as it is. In uint8 the zero point is 0, in int8 -128: a byte less 128.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import fx

BYTES = (0.0, 255.0)
"""Values of black and white at the input and the output of such a file."""

ZERO_POINTS = {"uint8": 0, "int8": -128}

Range = tuple[float, float]


def take_bytes(graph: fx.GraphModule, input_range: Range, output_range: Range) -> None:
    """Make a captured graph, in place, take and give `BYTES`.

    Args:
        graph: of one input and one output, rewritten for its target.
        input_range, output_range: values of black and white of the network.
    """
    nodes = graph.graph
    (entry,) = (node for node in nodes.nodes if node.op == "placeholder")
    with nodes.inserting_after(entry):
        own = nodes.call_function(moved, (entry, BYTES, input_range))
    own.meta = dict(entry.meta)
    entry.replace_all_uses_with(own, delete_user_cb=lambda user: user is not own)
    end = nodes.output_node()
    (made,) = end.all_input_nodes
    with nodes.inserting_before(end):
        end.args = (nodes.call_function(moved, (made, output_range, BYTES)),)
    graph.recompile()


def around(run: Callable[[np.ndarray], np.ndarray], input_range: Range, output_range: Range):
    """The same file as one that takes and gives the network's numbers.

    Args:
        run: the file, on `BYTES`.
        input_range, output_range: values of black and white of the network.
    """

    def inside(pictures: np.ndarray) -> np.ndarray:
        return moved(run(moved(pictures, input_range, BYTES)), BYTES, output_range)

    return inside


def moved(values, before: Range, after: Range):
    """Numbers of one range of black and white in another, whether of torch or numpy."""
    factor = (after[1] - after[0]) / (before[1] - before[0])
    return values * factor + (after[0] - before[0] * factor)
