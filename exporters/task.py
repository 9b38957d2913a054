"""One file of an export: made, compared with PyTorch, written, and put on record."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import PocketganError
from compressor.files import atomic
from compressor.memory import forget_peak, memory_mb
from exporters.chatter import kept_quiet
from exporters.parity import check
from exporters.result import ExportedFile

if TYPE_CHECKING:
    from exporters.job import Job

_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(frozen=True)
class Task:
    """What is asked for.

    Attributes:
        path: of the file.
        kind: "onnx" or "tflite".
        precision: one of `exporters.result.PRECISIONS`.
        threshold: PSNR in dB that it is held to.
    """

    path: Path
    kind: str
    precision: str
    threshold: float

    def failed(self, error: PocketganError, seconds: float = 0.0) -> ExportedFile:
        """The record of a file that could not be made; one of an earlier try goes."""
        self.path.unlink(missing_ok=True)
        return replace(self._record, error=str(error), seconds=round(seconds, 2))

    def do(self, job: Job) -> ExportedFile:
        """Make the file; a converter's failure becomes the record's `error`.

        Raises:
            PocketganError: a picture cannot be read, ranges that the generator carries do not fit it, or the
                disk is full: no converter's fault.
        """
        began = time.monotonic()
        forget_peak()
        pictures = job.references_of(self.kind, self.precision)
        try:
            made = job.make(self.kind, self.precision, self.threshold)
            with kept_quiet("running the file"):
                run = made.open()
                parity = check(run, pictures, job.output_range, self.threshold)
                drop = job.drop(self.precision, run)
        except PocketganError as error:
            return self.failed(error, time.monotonic() - began)
        with atomic(self.path) as file:
            file.write(made.content)
        return replace(
            self._record,
            kind=made.kind,
            bytes=len(made.content),
            sha256=hashlib.sha256(made.content).hexdigest(),
            seconds=round(time.monotonic() - began, 2),
            peak_mb=round(memory_mb("VmHWM")),
            parity=parity,
            dtypes=made.dtypes,
            delegation=made.delegation,
            float_layers=made.float_layers,
            notes=made.notes,
            trade=made.trade,
            drop=drop,
            departures=made.departures,
            io=made.io,
        )

    @property
    def _record(self) -> ExportedFile:
        return ExportedFile(
            file=self.path.name,
            runtime=_RUNTIMES[self.kind],
            precision=self.precision,
            kind=self.precision,
            input_layout="NCHW" if self.kind == "onnx" else "NHWC",
        )
