"""ONNX and TFLite files opened by their runtimes, one picture (1, C, H, W) float32 at a time."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import PocketganError, missing_extra
from compressor.files import sha256, what_came

LAYOUTS = ("NCHW", "NHWC")
_FIX = "export the generator with one picture as input and one as output"


@dataclass(frozen=True)
class OpenedFile:
    """A file ready to run.

    Attributes:
        run: (1, C, H, W) float32 -> (1, C, H', W') float32, whatever the file's layout.
        channels: of the input; None where the file does not tell.
        fixed: the only (H, W) it takes, or None.
        content: hash of all that it computes with.
        metadata: what the file says of itself.
    """

    run: Callable[[np.ndarray], np.ndarray]
    channels: int | None
    fixed: tuple[int, int] | None
    content: str
    metadata: Mapping[str, str] = field(default_factory=dict)


def open_onnx(path: Path, layout: str | None) -> OpenedFile:
    """An ONNX file on onnxruntime's CPU provider.

    Args:
        path: the file; external data beside it belongs to it.
        layout: "NCHW" or "NHWC", or None to tell it by the shape.

    Raises:
        PocketganError: onnxruntime is not installed or refuses the file, or it takes no picture.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", "export") from error

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which have no common base but this
        raise _cannot_open(path, "onnxruntime", error) from error
    inputs = session.get_inputs()
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    _one_picture(path, len(inputs), list(inputs[0].shape) if inputs else [], inputs and inputs[0].type, kinds)
    _only_one(path, "outputs", [output.name for output in session.get_outputs()])
    name, dtype = inputs[0].name, kinds[inputs[0].type]
    shape = [side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape]
    last = _channels_last(shape, layout, "NCHW")
    result = session.get_outputs()[0].name

    def run(picture: np.ndarray) -> np.ndarray:
        fed = np.ascontiguousarray(np.moveaxis(picture, 1, 3) if last else picture, dtype)
        made = np.asarray(session.run([result], {name: fed})[0], np.float32)
        return _first_channels(path, made, last)

    held = [path, *(path.with_name(path.name + end) for end in (".data", "_data"))]
    content = "".join(sha256(part) for part in held if part.is_file())
    told = dict(session.get_modelmeta().custom_metadata_map)
    return _opened(run, shape, last, f"onnx {content}", told)


def open_tflite(path: Path, layout: str | None) -> OpenedFile:
    """A TFLite file on LiteRT with XNNPACK; quantised inputs and outputs are converted.

    Args:
        path: the file.
        layout: "NCHW" or "NHWC", or None to tell it by the shape.

    Raises:
        PocketganError: LiteRT is not installed or refuses the file, or it takes no picture.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise missing_extra("ai-edge-litert", "export") from error

    try:
        _need_parts(path)
        interpreter = Interpreter(model_path=str(path), num_threads=_threads())
        interpreter.allocate_tensors()
        signatures = list(interpreter.get_signature_list())
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except (ValueError, TypeError, IndexError, struct.error, RuntimeError) as error:
        raise _cannot_open(path, "LiteRT", error) from error
    _only_one(path, "networks (signatures)", signatures or ["unnamed"])
    kinds = dict.fromkeys((np.float32, np.float16, np.int8, np.uint8, np.int16))
    entry = inputs[0] if inputs else {"shape_signature": [], "dtype": None}
    signature = [int(side) for side in entry["shape_signature"]]
    _one_picture(path, len(inputs), signature, entry["dtype"], kinds)
    _only_one(path, "outputs", [output["name"] for output in outputs])
    shape = [side if side > 0 else None for side in signature]
    last = _channels_last(shape, layout, "NHWC")

    def run(picture: np.ndarray) -> np.ndarray:
        fed = np.moveaxis(picture, 1, 3) if last else picture
        if list(interpreter.get_input_details()[0]["shape"]) != list(fed.shape):
            interpreter.resize_tensor_input(entry["index"], list(fed.shape))
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], quantised(fed, entry))
        interpreter.invoke()
        made = dequantised(interpreter.get_tensor(outputs[0]["index"]), outputs[0])
        return _first_channels(path, made, last)

    return _opened(run, shape, last, f"tflite {sha256(path)}", _metadata(path))


def _metadata(path: Path) -> dict[str, str]:
    """What our exporter wrote into a TFLite file; nothing where it was made by others."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    for entry in map(model.Metadata, range(model.MetadataLength())):
        if entry.Name() == b"pocketgan":
            try:
                told = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
            except (ValueError, AttributeError):
                return {}  # the name is ours, the content is not
            return told if isinstance(told, dict) else {}
    return {}


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _need_parts(path: Path) -> None:
    """Refuse a file that lacks what LiteRT reads without looking: that would end this process."""
    from ai_edge_litert.schema_py_generated import Model

    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        return  # LiteRT says that itself
    model = Model.GetRootAs(content, 0)
    if model.SubgraphsIsNone() or model.BuffersIsNone() or model.OperatorCodesIsNone():
        raise ValueError("it has no networks, no constants or no operators")


def _cannot_open(path: Path, runtime: str, error: Exception) -> PocketganError:
    return PocketganError(
        f"{runtime} cannot open {path}",
        got=what_came(path, error),
        allowed=f"a whole {path.suffix.lower()} file",
        fix="copy or export it again; it may be damaged, foreign, or made for another version",
    )


def _only_one(path: Path, what: str, names: Sequence[str]) -> None:
    if len(names) != 1:
        raise PocketganError(
            f"{path} holds several {what}" if names else f"{path} holds no {what}",
            got=", ".join(names) or "none",
            allowed="one",
            fix=_FIX,
        )


def _one_picture(path: Path, inputs: int, shape: list[Any], kind: Any, kinds: Mapping[Any, Any]) -> None:
    if inputs != 1 or len(shape) != 4:
        got = f"{inputs} inputs" if inputs != 1 else f"an input of shape {shape}"
        raise PocketganError(
            f"{path} does not take one picture", got=got, allowed="one input of 4 dimensions", fix=_FIX
        )
    if shape[0] not in (1, -1) and isinstance(shape[0], int):
        raise PocketganError(
            f"{path} takes several pictures at once", got=f"a batch of {shape[0]}", allowed="1", fix=_FIX
        )
    if kind not in kinds:
        named, *allowed = (getattr(each, "__name__", str(each)) for each in (kind, *kinds))
        raise PocketganError(
            f"{path} takes values of a kind we do not feed",
            got=named,
            allowed=", ".join(allowed),
            fix="export it with float input",
        )


def _channels_last(shape: list[int | None], layout: str | None, usual: str) -> bool:
    """Whether the input is NHWC: as given, else by where 1 or 3 channels stand, else as is usual."""
    if layout is None:
        first, last = shape[1] in (1, 3), shape[3] in (1, 3)
        layout = usual if first == last else "NCHW" if first else "NHWC"
    return layout == "NHWC"


def _first_channels(path: Path, made: np.ndarray, last: bool) -> np.ndarray:
    if made.ndim != 4:
        raise PocketganError(
            f"{path} does not answer with a picture",
            got=f"an output of shape {made.shape}",
            allowed="4 dimensions",
            fix=_FIX,
        )
    return np.ascontiguousarray(np.moveaxis(made, 3, 1) if last else made)


def _opened(
    run: Callable[[np.ndarray], np.ndarray],
    shape: list[int | None],
    last: bool,
    content: str,
    metadata: Mapping[str, str],
) -> OpenedFile:
    height, width, channels = (shape[1], shape[2], shape[3]) if last else (shape[2], shape[3], shape[1])
    fixed = (height, width) if height is not None and width is not None else None
    content = hashlib.sha256(f"{content} {'NHWC' if last else 'NCHW'}".encode()).hexdigest()
    return OpenedFile(run, channels, fixed, content, metadata)


def quantised(values: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Numbers as a LiteRT input takes them, by its details: integers by scale and zero point."""
    kind = np.dtype(entry["dtype"])
    if kind.kind == "f":
        return np.ascontiguousarray(values, kind)
    scale, zero = entry["quantization"]
    limits = np.iinfo(kind)
    levels = np.rint(values / (scale or 1.0)) + zero
    return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), kind)


def dequantised(values: np.ndarray, result: Mapping[str, Any]) -> np.ndarray:
    """Numbers that a LiteRT output, by its details, stands for, as float32."""
    if values.dtype.kind == "f":
        return np.asarray(values, np.float32)
    scale, zero = result["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale or 1.0)
