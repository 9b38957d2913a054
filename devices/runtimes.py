"""Exported files in their real runtimes: ONNX Runtime's CPU provider and LiteRT with XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import PocketganError, UsageError, missing_extra
from compressor.files import what_came

RUNTIMES: Mapping[str, str] = {".onnx": "onnxruntime", ".tflite": "litert"}


@dataclass(frozen=True)
class Delegation:
    """How much of a LiteRT graph runs on the XNNPACK delegate.

    Attributes:
        nodes: operators in the file's main graph.
        delegated: those that XNNPACK runs.
        partitions: connected pieces handed to XNNPACK; each further one costs a hand-over.
        kept: operators left to LiteRT's own kernels, by name, with their number.
    """

    nodes: int
    delegated: int
    partitions: int
    kept: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """The counts as one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Session:
    """One file, loaded and ready to run.

    Attributes:
        path: the file.
        runtime: "onnxruntime" or "litert".
        version: the runtime's version.
        threads: threads an operator may use.
        input_shape: of the one input; 0 stands for a dimension the file leaves open.
        output_shape: of the first output; 0 as above.
        dtype: of the input's elements.
        layout: "NCHW" or "NHWC".
        quantisation: (scale, zero point) of an integer input, else None.
        delegation: what XNNPACK took over; None for ONNX Runtime.
    """

    path: Path
    runtime: str
    version: str
    threads: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: np.dtype
    layout: str
    quantisation: tuple[float, int] | None
    delegation: Delegation | None
    _invoke: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    def run(self, values: np.ndarray) -> np.ndarray:
        """One inference: `values` of `input_shape` and `dtype` -> the first output.

        Raises:
            PocketganError: shape or type do not fit, or the runtime fails.
        """
        fits = len(values.shape) == len(self.input_shape) and all(
            want in (0, got) for want, got in zip(self.input_shape, values.shape, strict=True)
        )
        if not fits or values.dtype != self.dtype:
            raise PocketganError(
                f"{self.path.name} does not take this input",
                got=f"{values.dtype} {values.shape}",
                allowed=f"{self.dtype} {self.input_shape}",
            )
        try:
            return self._invoke(values)
        except Exception as error:  # the runtimes raise a dozen classes of their own
            raise _refused(self.path, self.runtime, error, "cannot run") from error

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Float values in the generator's input range -> the element type this file takes."""
        if self.quantisation is None:
            return values.astype(self.dtype)
        scale, zero = self.quantisation
        limits = np.iinfo(self.dtype)
        return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(self.dtype)


def open_session(path: Path, threads: int = 1) -> Session:
    """Load an exported file (.onnx or .tflite, by its ending) for `threads` CPU threads.

    ONNX Runtime: CPU provider, all graph optimisations, one operator at a time. LiteRT: the default
    resolver, which hands what it can to XNNPACK.

    Raises:
        UsageError: the ending is neither, or `threads` < 1.
        PocketganError: the file is missing, damaged, not of its kind, has several inputs, or the
            runtime is not installed.
    """
    if threads < 1:
        raise UsageError("a session needs at least one thread", got=threads, allowed="1 or more")
    kind = RUNTIMES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"no runtime for {path.name}", got=path.suffix or "no ending", allowed=".onnx, .tflite"
        )
    if not path.is_file():
        raise PocketganError(f"there is no file {path}", fix="export it first: pocketgan export --help")
    return _open_onnx(path, threads) if kind == "onnxruntime" else _open_litert(path, threads)


def versions() -> dict[str, str]:
    """Versions of the runtimes that are installed, by runtime name; absent ones are left out."""
    from importlib import metadata

    found = {}
    for runtime, package in (("onnxruntime", "onnxruntime"), ("litert", "ai-edge-litert")):
        try:
            found[runtime] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _open_onnx(path: Path, threads: int) -> Session:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise missing_extra("onnxruntime", "export") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Threads stop spinning when a run ends; otherwise they would eat the next measured session's time.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
    except Exception as error:
        raise _refused(path, "ONNX Runtime", error) from error
    source = _only(path, inputs)
    dtype = _ONNX_TYPES.get(source.type)
    if dtype is None:
        raise PocketganError(f"{path.name} takes no picture", got=source.type, allowed=sorted(_ONNX_TYPES))
    shape = _open_shape(source.shape)

    def invoke(values: np.ndarray) -> np.ndarray:
        return session.run(None, {source.name: values})[0]

    return Session(
        path=path,
        runtime="onnxruntime",
        version=ort.__version__,
        threads=threads,
        input_shape=shape,
        output_shape=_open_shape(outputs[0].shape),
        dtype=np.dtype(dtype),
        layout=_layout(shape, "NCHW"),
        quantisation=None,
        delegation=None,
        _invoke=invoke,
    )


_ONNX_TYPES: Mapping[str, type] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
}


def _open_litert(path: Path, threads: int) -> Session:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing_extra("ai-edge-litert", "export") from error
    try:
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        delegation = _delegation(interpreter._get_ops_details(), [item["index"] for item in outputs])
    except Exception as error:
        raise _refused(path, "LiteRT", error) from error
    source = _only(path, inputs)
    shape = tuple(int(side) for side in source["shape"])
    dtype = np.dtype(source["dtype"])
    scale, zero = source["quantization"]

    def invoke(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(outputs[0]["index"])

    return Session(
        path=path,
        runtime="litert",
        version=versions().get("litert", "unknown"),
        threads=threads,
        input_shape=shape,
        output_shape=tuple(int(side) for side in outputs[0]["shape"]),
        dtype=dtype,
        layout=_layout(shape, "NHWC"),
        quantisation=(float(scale), int(zero)) if dtype.kind in "iu" and scale else None,
        delegation=delegation,
        _invoke=invoke,
    )


def _delegation(operators: Sequence[Mapping[str, Any]], outputs: Sequence[int]) -> Delegation:
    """Count what runs where in an interpreter's list of operators.

    The list holds the file's own operators and, after them, one DELEGATE for each partition. An
    operator runs on the delegate unless it is found by walking back from the graph's outputs over
    the DELEGATE nodes, which hide the operators inside them.
    """
    partitions = [item for item in operators if item["op_name"] == "DELEGATE"]
    own = [item for item in operators if item["op_name"] != "DELEGATE"]
    # Where both a DELEGATE and an operator inside it make the same tensor, the DELEGATE runs.
    makers = {int(tensor): item for item in (*own, *partitions) for tensor in item["outputs"]}
    executed: dict[int, str] = {}
    wanted = [int(tensor) for tensor in outputs]
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is None or maker["index"] in executed:
            continue
        executed[maker["index"]] = maker["op_name"]
        wanted += [int(tensor) for tensor in maker["inputs"] if tensor >= 0]
    kept: dict[str, int] = {}
    for name in executed.values():
        if name != "DELEGATE":
            kept[name] = kept.get(name, 0) + 1
    left = sum(kept.values())
    return Delegation(
        nodes=len(own),
        delegated=len(own) - left,
        partitions=len(partitions),
        kept=dict(sorted(kept.items())),
    )


def _only(path: Path, inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        raise PocketganError(
            f"{path.name} is not a generator from picture to picture",
            got=f"{len(inputs)} inputs",
            allowed="one input",
        )
    return inputs[0]


def _open_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(side if isinstance(side, int) else 0 for side in shape)


def _layout(shape: tuple[int, ...], usual: str) -> str:
    """Where the channels are: the end that holds 1, 3 or 4 of them, else the runtime's usual layout."""
    if len(shape) != 4 or (shape[1] in (1, 3, 4)) == (shape[3] in (1, 3, 4)):
        return usual
    return "NCHW" if shape[1] in (1, 3, 4) else "NHWC"


def _refused(path: Path, runtime: str, error: Exception, verb: str = "cannot load") -> PocketganError:
    said = what_came(path, error)
    return PocketganError(
        f"{runtime} {verb} {path}",
        got=f"{path.stat().st_size:,} bytes; {said}" if path.is_file() else said,
        fix="the file may be damaged or foreign: export it again, or give another file",
    )
