"""Fuzzed: ONNX and TFLite files, opened and run as `apply`, `bench` and recipes open them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fuzz.mutations import some_bytes
from benchmarks.fuzz.target import Files, Target

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_SIDE = 8
_TESTED = Path(__file__).resolve().parent.parent.parent / "devices" / "runner"


def _onnx() -> bytes:
    """Two convolutions that go from picture to picture."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    draw, shape = np.random.default_rng(0), [1, 3, _SIDE, _SIDE]
    values = {
        "first": draw.normal(0, 0.2, (4, 3, 3, 3)),
        "slope": np.array([0.1]),
        "second": draw.normal(0, 0.2, (3, 4, 3, 3)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "first"], ["a"], pads=[1] * 4),
            helper.make_node("PRelu", ["a", "slope"], ["b"]),
            helper.make_node("Conv", ["b", "second"], ["output"], pads=[1] * 4),
        ],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _tflite() -> bytes:
    """The runner's self-test, a 1x1 convolution with ReLU, with a third channel out."""
    import numpy as np

    from exporters.tflite import read, write

    tree = read((_TESTED / "selftest.tflite").read_bytes())
    graph = tree.subgraphs[0]
    (operator,) = graph.operators
    values = {1: np.full((3, 1, 1, 3), 0.25, np.float32), 2: np.full(3, 0.1, np.float32)}
    for place, value in values.items():
        tensor = graph.tensors[int(operator.inputs[place])]
        tensor.shape = np.array(value.shape, np.int32)
        tree.buffers[tensor.buffer].data = np.frombuffer(value.tobytes(), np.uint8)
    graph.tensors[int(graph.outputs[0])].shape = np.array([1, 4, 4, 3], np.int32)
    return write(tree)


def _inputs(name: str, content: bytes) -> SearchStrategy[Files]:
    return some_bytes(content).map(lambda made: {name: made})


def _read(path: Path) -> None:
    import numpy as np

    from devices.runtimes import open_session
    from exporters.apply.painter import open_file
    from exporters.given import take

    stated = {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)}
    painter = open_file(path, stated)
    height, width = painter.fixed or (_SIDE, _SIDE)
    painter.paint(np.full((height, width, painter.image.channels[0]), 0.5, np.float32))
    take(path, painter.image, path.parent / "taken")
    session = open_session(path)
    session.run(session.encode(np.zeros([side or 1 for side in session.input_shape], np.float32)))


TARGETS = {
    "onnx": Target("ONNX files", lambda: _inputs("a.onnx", _onnx()), lambda folder: _read(folder / "a.onnx")),
    "tflite": Target(
        "TFLite files", lambda: _inputs("a.tflite", _tflite()), lambda folder: _read(folder / "a.tflite")
    ),
}
