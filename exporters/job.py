"""One generator on its way to files: what several files share is made once, when first needed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import PocketganError, missing_extra
from exporters import int8
from exporters.departures import asked_for
from exporters.drop import Drop, Truth
from exporters.facts import facts
from exporters.int8 import Picture
from exporters.made import Made
from exporters.onnx import OPSET
from exporters.parity import check, compare
from exporters.pictures import other_size, outputs, tensor
from exporters.runtime import Run, examine

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import fx, nn

    from compressor.generators import Generator
    from exporters.learned import Learned

_EQUAL_ENOUGH = 60.0  # dB between the equalised network and the original, both in float


class Job:
    """Makes the files of one generator at one input size.

    Args:
        generator: what to export.
        size: input (height, width).
        calibrate: pictures that INT8 ranges are measured on; read one at a time, as often as needed.
        compare: pictures that files are compared on.
        int8_goal: mean PSNR in dB on the hardest calibration pictures that INT8 is planned for; with `truth`
            the mean drop in dB.
        truth: the true pictures that INT8 is planned for and held to.
        dynamic: ONNX files take pictures of any sides that the network can.
        opset: of ONNX files.
        io: type of the input and output of static INT8 TFLite files: "float32", "uint8" or "int8".
        demanded: INT8 gives up as much arithmetic as the goal takes.
    """

    def __init__(
        self,
        generator: Generator,
        size: tuple[int, int],
        calibrate: Sequence[Path],
        compare: Sequence[Path],
        int8_goal: float,
        truth: Truth | None = None,
        dynamic: bool = False,
        opset: int = OPSET,
        io: str = "float32",
        demanded: bool = False,
    ):
        self.generator, self.size = generator, size
        self.calibrate, self.compare = calibrate, compare
        self.int8_goal, self.truth, self.demanded = int8_goal, truth, demanded
        self.dynamic, self.opset, self.io = dynamic, opset, io
        self.tell: int8.Tell = lambda _: None  # of long work, while it goes on
        self.input_range = generator.spec.image.input_range
        self.output_range = generator.spec.image.output_range

    def make(self, kind: str, precision: str, threshold: float) -> Made:
        """One file's content.

        Args:
            kind: "onnx" or "tflite".
            precision: "fp32", "fp16", "int8", "int8-dynamic" or "w8a16".
            threshold: dB that the file will be held to, where there is a choice of how to make it.

        Raises:
            PocketganError: a converter failed, or is not installed.
        """
        try:
            from exporters import integers

            match kind, precision:
                case "onnx", "fp32":
                    return self.onnx_file(self.onnx_model, "fp32")
                case "onnx", "fp16":
                    return self._onnx_half(threshold)
                case "tflite", "fp32":
                    return self.tflite_file(self.tflite_model, "fp32")
                case "tflite", "fp16":
                    return self._tflite_half()
                case _, "int8":
                    return integers.static(self, kind)
                case _, "int8-dynamic":
                    return integers.dynamic(self, kind)
                case _, "w8a16":
                    return integers.wide(self, kind)
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "an export tool", "export") from error
        raise ValueError(f"no file of {kind} {precision}")

    # Pictures

    def inputs(self, paths: Sequence[Path]) -> Iterator[np.ndarray]:
        """The network's inputs (1, C, H, W), one at a time."""
        for path in paths:
            yield self.tensor(path).numpy()

    def tensor(self, path: Path) -> torch.Tensor:
        return tensor(path, self.generator.spec.image, self.size)

    @cached_property
    def example(self) -> torch.Tensor:
        return self.tensor(self.calibrate[0])

    @cached_property
    def references(self) -> list[Picture]:
        """(name, input, PyTorch's output) of the pictures to compare on."""
        return list(self._outputs(self.compare, self.generator.module))

    def references_of(self, kind: str, precision: str) -> list[Picture]:
        """The same for a file: INT8 that was trained is held to the network as trained.

        A file of open sides gets one picture more, of other sides.
        """
        learned = precision == "int8" and self.generator.ranges is not None
        found = self.learned.references if learned else self.references
        if kind == "tflite" or not self.dynamic:
            return found
        module = self.learned.network if learned else self.generator.module
        image = self.generator.spec.image
        size = other_size(self.size, image.multiple)
        ((name, entry, output),) = outputs(self.compare[:1], module, image, size)
        return [*found, (f"{name} at {size[0]}x{size[1]}", entry, output)]

    def _outputs(self, paths: Sequence[Path], module: nn.Module) -> Iterator[Picture]:
        return outputs(paths, module, self.generator.spec.image, self.size)

    # Graphs

    @property
    def multiple(self) -> int | None:
        """Of the sides of ONNX files, where they are open."""
        return self.generator.spec.image.multiple if self.dynamic else None

    def graph(self, multiple: int | None = None) -> fx.GraphModule:
        """The network, captured anew: rewrites change a graph in place.

        Factors are folded into convolutions, except where ranges of their outputs as they stand were learned.
        """
        from exporters.graph import capture
        from exporters.rewrite import factor

        found = capture(self.generator.module, self.example, multiple)
        if self.generator.ranges is None:
            factor.rewrite(found)
        return found

    @cached_property
    def equalised(self) -> tuple[fx.GraphModule, tuple[str, ...]]:
        return self.equalised_for(None)

    def equalised_for(self, multiple: int | None) -> tuple[fx.GraphModule, tuple[str, ...]]:
        """The graph made ready for INT8, batch statistics as instance norms, and a note of what was done."""
        import torch

        from exporters.cross_layer import equalise_pairs
        from exporters.equalise import equalise
        from exporters.rewrite import normalise

        plain, graph = self.graph(multiple), self.graph(multiple)
        normalise(plain)
        normalise(graph)
        if self.generator.ranges is not None:
            count = equalise(graph, map(self.tensor, self.calibrate), self.generator.ranges.divisors)
            return graph, (f"{count} convolutions before instance norms equalised as in training",)
        before_norms = equalise(graph, map(self.tensor, self.calibrate))
        pairs = equalise_pairs(graph, map(self.tensor, self.calibrate))
        if not before_norms + pairs:
            return plain, ()
        for path in self.calibrate[:2]:
            entry = self.tensor(path)
            with torch.no_grad():
                found = compare(path.name, graph(entry).numpy(), plain(entry).numpy(), self.output_range)
            if found.psnr < _EQUAL_ENOUGH:
                return plain, (f"equalisation left out: it changed the float network ({found.psnr:.0f} dB)",)
        return graph, (
            f"equalised: {before_norms} convolutions before instance norms, {pairs} layers that only "
            "convolutions read",
        )

    # ONNX

    @cached_property
    def onnx_model(self) -> onnx.ModelProto:
        return self.to_onnx(self.graph(self.multiple))

    def to_onnx(self, graph: fx.GraphModule, opset: int | None = None) -> onnx.ModelProto:
        """A graph, which is rewritten in place, as an ONNX model."""
        from exporters import onnx as target
        from exporters.rewrite import rewrite_for

        rewrite_for("onnxruntime", graph)
        return target.convert(graph, self.example, opset or self.opset, self.multiple)

    def onnx_file(self, model: onnx.ModelProto, kind: str, **told) -> Made:
        """A model with its facts; `told` is what else `Made` holds."""
        from exporters import onnx as target

        content = target.finish(copy.deepcopy(model), self._facts(kind, "NCHW"))
        return Made(content, "onnxruntime", kind, target.constant_types(model), **told)

    def _onnx_half(self, threshold: float) -> Made:
        """Half arithmetic where that is near enough, else half weights with float arithmetic."""
        from exporters import onnx as target
        from exporters.graph import capture

        try:
            graph = capture(target.half_precision(self.generator.module), self.example, self.multiple)
            half = self.onnx_file(self.to_onnx(graph), "fp16")
            pictures = self._outputs(self.calibrate[:2], self.generator.module)
            found = check(half.open(), pictures, self.output_range, threshold)
            if found.passed:
                return half
            reason = f"half arithmetic reached only {found.psnr_min:.1f} dB"
        except PocketganError as error:
            reason = f"half arithmetic failed: {error.what}"
        return self.onnx_file(target.store_half(self.onnx_model), "fp16-weights", notes=(reason,))

    # TFLite

    @cached_property
    def tflite_model(self) -> bytes:
        from exporters import tflite as target
        from exporters.rewrite import rewrite_for

        graph = self.graph()
        rewrite_for("litert", graph)
        return target.convert(graph, self.example)

    def tflite_file(self, content: bytes, kind: str, io: str = "float32", **told) -> Made:
        """A model with its facts; `told` is what else `Made` holds."""
        from exporters import tflite as target

        types = target.constant_types(content)
        counts, found = examine(content, lambda: asked_for(self.graph()))
        content = target.finish(content, self._facts(kind, "NHWC", io))
        ranges = None if io == "float32" else (self.input_range, self.output_range)
        return Made(content, "litert", kind, types, counts, departures=found, io=io, ranges=ranges, **told)

    def _tflite_half(self) -> Made:
        from exporters import quantise_tflite

        return self.tflite_file(quantise_tflite.half_weights(self.tflite_model), "fp16-weights")

    @cached_property
    def plan(self) -> int8.Plan:
        """What INT8 files quantise, and how."""
        if self.generator.ranges is not None:
            return self.learned.plan
        references = self._outputs(self.calibrate, self.generator.module)
        graph, _ = self.equalised
        truths = None if self.truth is None else map(self.truth.of, self.calibrate)
        inputs = partial(self.inputs, self.calibrate)
        return int8.plan(
            graph, inputs, references, self.output_range, self.int8_goal, truths, self.demanded, self.tell
        )

    @cached_property
    def learned(self) -> Learned:
        """INT8 as the generator was trained for it.

        Raises:
            PocketganError: the ranges it carries do not fit its graph.
        """
        from exporters.learned import learned

        ranges = self.generator.ranges
        assert ranges is not None

        def references(module: nn.Module) -> list[Picture]:
            return list(self._outputs(self.compare, module))

        return learned(
            self.generator.module, ranges, self.example, references, self.references, self.output_range
        )

    def drop(self, precision: str, run: Run) -> Drop | None:
        """How much further from the true pictures an INT8 file is; None where it is not held to them."""
        if self.truth is None or precision != "int8":
            return None
        ours = (output for _, _, output in self.references)
        return self.truth.drop(self.compare, ours, map(run, self.inputs(self.compare)))

    def _facts(self, kind: str, layout: str, io: str = "float32") -> dict[str, str]:
        multiple = self.generator.spec.image.multiple
        free = self.dynamic and layout == "NCHW"
        sides = f"multiples of {multiple}" if free else "x".join(map(str, self.size))
        return facts(self.generator, self.size, kind, layout, sides, io)
