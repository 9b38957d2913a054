"""The files a user gets without pocketgan: one call each of the tools underneath, with their defaults.

ONNX: torch.onnx.export, and quantize_static on the pre-processed model. TFLite: litert_torch, and
ai_edge_quantizer's static recipe, with float inputs and outputs. The only help it gets: a transposed
convolution that the converter refuses is made convertible, as `exporters.rewrite` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.files import atomic
from exporters.chatter import kept_quiet

if TYPE_CHECKING:
    import torch
    from torch import nn


def write(module: nn.Module, inputs: Sequence[torch.Tensor], folder: Path) -> dict[str, str]:
    """generator-PRECISION.KIND for fp32 and int8 into a folder; {file: why there is none}.

    Args:
        module: the network.
        inputs: real ones (1, C, H, W), to calibrate on.
        folder: where the files go; those that are there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    for kind, whole, rounded in (("onnx", _onnx, _onnx_int8), ("tflite", _tflite, _tflite_int8)):
        first, second = folder / f"generator-fp32.{kind}", folder / f"generator-int8.{kind}"
        try:
            if not first.exists():
                _keep(first, whole(module, inputs[0]))
            if not second.exists():
                _keep(second, rounded(first.read_bytes(), inputs))
        except Exception as error:
            failed[(second if first.exists() else first).name] = f"{type(error).__name__}: {error}"[:300]
    return failed


def _keep(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)


def _onnx(module: nn.Module, example: torch.Tensor) -> bytes:
    import torch

    with kept_quiet("torch.onnx"), torch.no_grad():
        program = torch.onnx.export(module, (example,), dynamo=True, external_data=False, verbose=False)
        assert program is not None
        return bytes(program.model_proto.SerializeToString())


def _onnx_int8(model: bytes, inputs: Sequence[torch.Tensor]) -> bytes:
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = InferenceSession(model).get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            entry = next(self.rest, None)
            return None if entry is None else {name: entry.numpy()}

    with TemporaryDirectory() as folder, kept_quiet("quantize_static"):
        plain, ready, made = (Path(folder) / f"{part}.onnx" for part in ("plain", "ready", "made"))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(ready))
        quantize_static(str(ready), str(made), Reader())
        return made.read_bytes()


def _tflite(module: nn.Module, example: torch.Tensor) -> bytes:
    import torch

    from exporters.graph import capture
    from exporters.rewrite import transposed_convolution

    with kept_quiet("litert_torch"), torch.no_grad():
        import litert_torch

        def converted(network: nn.Module) -> bytes:
            last = litert_torch.to_channel_last_io(network, args=[0], outputs=[0]).eval()
            made: Any = litert_torch.convert(last, (example.permute(0, 2, 3, 1).contiguous(),))
            return bytes(made.model_content())

        if not any(isinstance(part, torch.nn.ConvTranspose2d) for part in module.modules()):
            return converted(module)
        graph = capture(module, example)
        transposed_convolution.rewrite(graph)
        graph.recompile()
        return converted(graph)


def _tflite_int8(model: bytes, inputs: Sequence[torch.Tensor]) -> bytes:
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_content=model).get_signature_list()
    key = next(iter(signatures))
    name = signatures[key]["inputs"][0]
    with kept_quiet("ai_edge_quantizer"):
        from ai_edge_quantizer import quantizer, recipe

        work = quantizer.Quantizer(bytearray(model), recipe.static_wi8_ai8())
        for end in ("INPUT", "OUTPUT"):
            work.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
        seen = work.calibrate({key: [{name: entry.permute(0, 2, 3, 1).numpy()} for entry in inputs]})
        return bytes(work.quantize(seen).quantized_model)
