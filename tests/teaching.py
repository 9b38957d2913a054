"""Teachers for tests: an upscaler, ONNX files, pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.agd.teachers import NetworkTeacher
from compressor.data.images import write_image
from compressor.generators import Generator, GeneratorSpec, ImageFormat

FORMAT = ImageFormat(size=(32, 32), multiple=4)
UPSCALING = ImageFormat((0.0, 1.0), (0.0, 1.0), size=(16, 16), scale=2)


def write_pictures(folder: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    for index in range(3):
        coarse = draw.random((10, 9, 3)).astype(np.float32)
        write_image(folder / f"{index}.png", np.kron(coarse, np.ones((4, 4, 1), np.float32)))
    return sorted(folder.iterdir())


class Enlarge(nn.Module):
    """An upscaler x2 that sees 3x3 neighbours; `calls` counts how often it was run."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return nn.functional.pixel_shuffle(self.conv(x), 2)


def upscaler() -> NetworkTeacher:
    return NetworkTeacher(
        Generator(GeneratorSpec("custom", {}, UPSCALING), Enlarge().eval(), Path("x"), "hash")
    )


def onnx_file(
    path: Path,
    *,
    channels_last: bool = False,
    upscale: bool = False,
    tanh: bool = True,
    size: tuple[int, int] | None = None,
) -> Path:
    """A model of free or given size: a 1x1 convolution and tanh; or each pixel twice as large, in 0..255."""
    height, width = size or ("h", "w")
    entry = [1, height, width, 3] if channels_last else [1, 3, height, width]
    weight = np.eye(3, dtype=np.float32)[:, :, None, None] * 0.5
    nodes, value = [], "in"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]))
        value = "first"
    held = [numpy_helper.from_array(weight, "weight")]
    if upscale:
        held = [numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")]
        grown = helper.make_node(
            "Resize", [value, "", "scales"], ["grown"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        clip = helper.make_node("Clip", ["grown", "low", "high"], ["body"])
        held += [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 255))]
        nodes += [grown, clip]
    else:
        nodes.append(helper.make_node("Conv", [value, "weight"], ["mixed"]))
        nodes.append(helper.make_node("Tanh" if tanh else "Identity", ["mixed"], ["body"]))
    last = helper.make_node("Transpose", ["body"], ["out"], perm=[0, 2, 3, 1])
    nodes.append(last if channels_last else helper.make_node("Identity", ["body"], ["out"]))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, entry)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        held,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path
