"""Which steps of a network do what to its channels: tables for `compressor.tracing.walker`.

Functions stand as themselves and methods of tensors by name.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

# Every number is made from the number at its own place: channel i is still channel i.
POINTWISE_MODULES = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink,
    nn.Hardshrink, nn.Softshrink, nn.Threshold, nn.RReLU, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.AlphaDropout,
)  # fmt: skip
POINTWISE = {
    F.relu, F.leaky_relu, F.relu6, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid,
    F.hardtanh, F.tanh, F.sigmoid, F.logsigmoid, F.softplus, F.softsign, F.dropout, F.dropout2d,
    torch.relu, torch.tanh, torch.sigmoid, torch.clamp, torch.abs, torch.sqrt, torch.rsqrt, torch.exp,
    torch.log, torch.sin, torch.cos, torch.square, torch.neg, torch.sign, torch.reciprocal, torch.clone,
    operator.neg, operator.abs,
    "relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "clamp", "clamp_", "clamp_min", "clamp_max",
    "clip", "abs", "sqrt", "rsqrt", "exp", "log", "sin", "cos", "square", "neg", "sign", "reciprocal",
    "contiguous", "float", "half", "double", "clone", "detach", "to", "type_as",
}  # fmt: skip
_OTHER_IS_ONLY_A_TYPE = {"to", "type_as"}

# The same, but along height and width, which must be the last two axes.
SPATIAL_MODULES = (
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ZeroPad2d, nn.ConstantPad2d, nn.CircularPad2d,
    nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d,
)  # fmt: skip
SPATIAL = {
    F.interpolate, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.lp_pool2d,
    F.grid_sample,
}  # fmt: skip

# Operands meet place by place, with broadcasting.
ELEMENTWISE = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.isub, operator.imul,
    operator.itruediv, operator.pow, operator.gt, operator.ge, operator.lt, operator.le, operator.eq,
    operator.ne, torch.add, torch.sub, torch.mul, torch.multiply, torch.div, torch.pow, torch.maximum,
    torch.minimum, torch.where, torch.lerp, torch.addcmul, torch.addcdiv, torch.hypot, torch.atan2,
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "pow", "pow_", "lerp", "lerp_", "addcmul",
    "addcmul_", "addcdiv", "maximum", "minimum", "where",
}  # fmt: skip

REDUCTIONS = {
    torch.mean, torch.sum, torch.var, torch.std, torch.amax, torch.amin, torch.logsumexp,
    "mean", "sum", "var", "std", "amax", "amin", "logsumexp",
}  # fmt: skip
ALONG_ONE_AXIS = {
    F.softmax, torch.softmax, F.log_softmax, torch.log_softmax, torch.cumsum, F.normalize, torch.roll,
    "softmax", "log_softmax", "cumsum", "roll",
}  # fmt: skip

# Values keep their numbers and change their places; those that have sizes in them, and those that have not.
SIZED_MOVES = {
    torch.reshape, torch.broadcast_to, torch.unflatten,
    "view", "reshape", "expand", "broadcast_to", "unflatten",
}  # fmt: skip
MOVES = {
    torch.permute, torch.transpose, torch.swapaxes, torch.movedim, torch.unsqueeze, torch.squeeze,
    torch.flatten, torch.flip, torch.tile, torch.repeat_interleave,
    "permute", "transpose", "swapaxes", "movedim", "unsqueeze", "squeeze", "flatten", "flip", "repeat",
    "tile", "repeat_interleave",
}  # fmt: skip
CONCATENATIONS = {torch.cat, torch.concat, torch.concatenate}
SPLITS = {torch.split, torch.chunk, torch.tensor_split, "split", "chunk", "tensor_split"}


def argument(node: Any, position: int, name: str, default: Any) -> Any:
    """An argument as the traced graph holds it."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def axes(dims: Any, rank: int) -> list[int] | None:
    """Axes from a dim argument, counted from the front; None where it is no plain number or list of them."""
    listed = dims if isinstance(dims, (tuple, list)) else (dims,)
    if any(not isinstance(dim, int) or isinstance(dim, bool) for dim in listed):
        return None
    return [dim % rank for dim in listed]


def only_a_type(node: Any) -> bool:
    """Whether further tensors among the arguments lend nothing but their type."""
    return node.op == "call_method" and node.target in _OTHER_IS_ONLY_A_TYPE


def rewritable(node: Any, rank: int) -> Sequence[Any] | None:
    """The sizes of a view, reshape or expand as the traced graph holds them; None for a whole shape."""
    sizes = node.args[1:]
    if node.target in ("unflatten", torch.unflatten):
        dim, inner = argument(node, 1, "dim", 0), argument(node, 2, "sizes", None)
        if not isinstance(dim, int) or dim < 0 or not isinstance(inner, (tuple, list)):
            return None
        return [*[-1] * dim, *inner, *[-1] * (rank - dim - len(inner))]
    if not sizes:
        sizes = (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        return sizes[0]
    whole = len(sizes) == 1 and not isinstance(sizes[0], int) and rank != 1
    return None if whole else sizes


def name(node: fx.Node) -> str:
    """How a step is called in reports: a module's path, or the node's name."""
    return str(node.target) if node.op == "call_module" else node.name


def describe(node: fx.Node, module: nn.Module | None) -> str:
    """What a step is and where it stands, in words: "torch.roll in body.0"."""
    if module is not None:
        return f"{type(module).__name__} {node.target}"
    target: Any = node.target
    if node.op == "call_method":
        step = f".{target}()"
    else:
        package = (getattr(target, "__module__", None) or "torch").lstrip("_").split(".")[0]
        step = f"{package}.{getattr(target, '__name__', target)}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return f"{step} in {path}" if path else f"{step} in the network's forward"
