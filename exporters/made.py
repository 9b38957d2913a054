"""What a converter made, before it is compared and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.byte_pictures import Range, around
from exporters.departures import Departure
from exporters.drop import Point
from exporters.result import Delegation
from exporters.runtime import Run, open_onnx, open_tflite


@dataclass(frozen=True)
class Made:
    """A file's content with what is known of it.

    Attributes: as `exporters.result.ExportedFile`, and
        ranges: of a file that takes and gives bytes: the network's own, of its input and its output.
    """

    content: bytes
    runtime: str
    kind: str
    dtypes: Mapping[str, int]
    delegation: Delegation | None = None
    float_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trade: tuple[Point, ...] = ()
    departures: tuple[Departure, ...] = ()
    io: str = "float32"
    ranges: tuple[Range, Range] | None = None

    def open(self) -> Run:
        """The file in its runtime, on the network's own numbers."""
        run = open_onnx(self.content) if self.runtime == "onnxruntime" else open_tflite(self.content)
        return run if self.ranges is None else around(run, *self.ranges)
