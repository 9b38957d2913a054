"""Small real exports for tests of runtimes and latency: .onnx written by hand, .tflite by its converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_onnx(
    path: Path, width: int = 8, size: int = 32, *, channels: int = 3, inputs: int = 1
) -> np.ndarray:
    """A 3x3 convolution to `width` and one back, ReLU between; returns all weights in order."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    chance = np.random.default_rng(0)
    first = chance.normal(0, 0.2, (width, channels, 3, 3)).astype(np.float32)
    second = chance.normal(0, 0.2, (channels, width, 3, 3)).astype(np.float32)
    shape = [1, channels, size, size]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["in0", "w1"], ["a"], pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["out"], pads=[1] * 4),
        ],
        "small",
        [helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, shape) for i in range(inputs)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return np.concatenate([first.ravel(), second.ravel()])


def write_tflite(path: Path, width: int = 8, size: int = 32, *, mirror: bool = False) -> None:
    """Two convolutions with ReLU, NHWC input and output; `mirror` puts a MIRROR_PAD, which XNNPACK leaves."""
    import litert_torch
    import torch
    from torch import nn

    torch.manual_seed(0)
    pad: list[nn.Module] = [nn.ReflectionPad2d(1)] if mirror else []
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), *pad, nn.Conv2d(width, 3, 3, padding=0 if mirror else 1)
    ).eval()
    example = (torch.zeros(1, size, size, 3),)
    path.parent.mkdir(parents=True, exist_ok=True)
    litert_torch.convert(
        litert_torch.to_channel_last_io(network, args=[0], outputs=[0]).eval(), example
    ).export(str(path))
