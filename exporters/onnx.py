"""PyTorch to ONNX: the dynamo exporter, simplified and checked."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from compressor.errors import PocketganError
from exporters.chatter import kept_quiet
from exporters.runtime import open_onnx

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import fx, nn

OPSET = 18
OPSETS = range(18, 22)  # the exporter writes 18 and later ones; all that we tried
INPUT, OUTPUT = "input", "output"


def convert(
    graph: fx.GraphModule, example: torch.Tensor, opset: int = OPSET, multiple: int | None = None
) -> onnx.ModelProto:
    """A captured graph as an ONNX model, float32 NCHW.

    Args:
        graph: captured, for the example's shape alone or with the same `multiple`.
        example: an input.
        opset: of ONNX's operators.
        multiple: then height and width are open, and may be any multiples of it.

    Raises:
        PocketganError: the exporter cannot express the network.
    """
    import onnx
    import torch

    from compressor.quantisation.captured import free_sides

    with kept_quiet("converting to ONNX"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=None if multiple is None else (free_sides(multiple),),
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        model = program.model_proto
        onnx.checker.check_model(model)
        return simplified(model, example.float().numpy())


def half_precision(module: nn.Module) -> nn.Module:
    """A copy of the network that computes in float16, with float32 input and output."""
    import torch

    class FloatIO(torch.nn.Module):
        def __init__(self, inside: nn.Module):
            super().__init__()
            self.inside = inside

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside(x.half()).float()

    return FloatIO(copy.deepcopy(module).half()).eval()


def simplified(model: onnx.ModelProto, picture: np.ndarray) -> onnx.ModelProto:
    """The model through onnxsim, if that passes the checker and computes the same; else as it came."""
    import onnx
    import onnxsim

    try:
        smaller, agrees = onnxsim.simplify(model)
        onnx.checker.check_model(smaller)
    except Exception:  # a simplifier that stumbles costs nothing: the model stands as it is
        return model
    if not agrees:
        return model
    before = open_onnx(model.SerializeToString())(picture)
    after = open_onnx(smaller.SerializeToString())(picture)
    near = np.allclose(after, before, rtol=1e-3, atol=1e-3 * float(np.abs(before).max() or 1))
    return smaller if near else model


def store_half(model: onnx.ModelProto, *, at_least: int = 1) -> onnx.ModelProto:
    """A copy whose float32 constants are kept as float16 and widened by a Cast, which runtimes do on loading.

    Args:
        model: any model.
        at_least: constants with fewer elements stay as they are.

    Raises:
        PocketganError: a constant is too large for float16.
    """
    import onnx
    from onnx import helper, numpy_helper

    halved = copy.deepcopy(model)
    casts = []
    for constant in halved.graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.data_type != onnx.TensorProto.FLOAT or values.size < at_least:
            continue
        if values.size and np.abs(values).max() > np.finfo(np.float16).max:
            raise PocketganError(f"the constant {constant.name} does not fit into float16")
        name = constant.name
        constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def constant_types(model: onnx.ModelProto) -> dict[str, int]:
    """How many stored numbers there are of each type."""
    import onnx

    counts: Counter[str] = Counter()
    for constant in model.graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(constant.data_type)
        counts[str(kind)] += int(np.prod(constant.dims))
    return dict(sorted(counts.items()))


def finish(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The file's bytes: checked, stripped of the exporter's notes, with our metadata written last."""
    import onnx
    from onnx import helper

    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    for constant in model.graph.initializer:
        del constant.metadata_props[:]
    model.producer_name = "pocketgan"
    model.producer_version = metadata.get("pocketgan", "")
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)
