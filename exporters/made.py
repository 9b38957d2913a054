"""What a converter made, before it is compared and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporters.departures import Departure
from exporters.drop import Point
from exporters.result import Delegation
from exporters.runtime import Run, open_onnx, open_tflite


@dataclass(frozen=True)
class Made:
    """A file's content with what is known of it."""

    content: bytes
    runtime: str
    kind: str
    dtypes: Mapping[str, int]
    delegation: Delegation | None = None
    float_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trade: tuple[Point, ...] = ()
    departures: tuple[Departure, ...] = ()

    def open(self) -> Run:
        return open_onnx(self.content) if self.runtime == "onnxruntime" else open_tflite(self.content)
