"""What a generator costs: parameters, bytes, true MACs, and MACs as the literature counts them.

One MAC is one multiplication with its addition. The network is run on shapes alone (PyTorch's "meta"
device: no numbers, no memory), and every operator it calls is counted, in a module or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from compressor.errors import UsageError

# Matrix products: operator name -> number of leading arguments that are not factors.
_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
_LEAKY_RELU = {"leaky_relu", "leaky_relu_"}
_NORMS = {
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "batch_norm", "native_group_norm", "native_layer_norm", "_fused_rms_norm"),
}
# Operators without multiply-accumulates, beside the pointwise ones and the views: data movement,
# resizing, pooling, sums, and norms, which every convention counts as nothing.
_FREE = {
    *_NORMS,
    *("arange", "cat", "copy_", "empty", "empty_like", "fill_", "flip", "full", "full_like", "gather"),
    *("index", "index_select", "new_empty", "new_ones", "new_zeros", "ones", "ones_like", "repeat", "roll"),
    *("scalar_tensor", "stack", "zeros", "zeros_like", "_to_copy", "clone", "_unsafe_view", "_reshape_alias"),
    *(
        "lift_fresh",
        "_reshape_copy",
        "channel_shuffle",
        "pixel_shuffle",
        "pixel_unshuffle",
        "im2col",
        "col2im",
    ),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    *("avg_pool2d", "max_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_avg_pool2d"),
    *("adaptive_max_pool2d", "mean", "sum", "amax", "amin", "max", "min", "prod", "std", "std_mean", "var"),
    *("var_mean", "norm", "linalg_vector_norm", "argmax", "argmin", "any", "all", "cumsum"),
    *("_softmax", "_log_softmax", "native_dropout", "prelu", "_prelu_kernel", "_local_scalar_dense", "item"),
}


@dataclass(frozen=True)
class LayerCost:
    """One module that holds parameters or multiplies.

    Attributes:
        name: its name in the network; "(network)" for what the network does outside its modules.
        kind: its class.
        output_shape: of its last call, empty where it gives no single tensor.
        parameters: its own, without those of modules inside it.
        macs: true multiply-accumulates, over all its calls.
        literature_macs: see `Cost`.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    literature_macs: int


@dataclass(frozen=True)
class Cost:
    """What one run over one input costs.

    Attributes:
        parameters: numbers trained; shared ones once.
        bytes: of those parameters at the precision they are held in.
        macs: true multiply-accumulates of convolutions and matrix products; a transposed convolution
            counts input positions, since each input value meets each weight once. Biases are not counted.
        literature_macs: the count that GAN compression papers print as MACs or FLOPs (an early thop):
            output elements x (inputs per group x kernel area + 1 for a bias), transposed convolutions
            also on output positions (four times the truth at stride 2), LeakyReLU 1 per element. A bias
            straight before a norm, which cancels or absorbs it, is not counted: only so do both ESRGAN's
            published 1176.61 G and CycleGAN's 56.80 G come out.
        layers: in the order in which the network defines them.
        uncounted: what may compute and is not in these figures: operators we cannot count, with the module
            that calls them, and modules with parameters that did not run.
    """

    parameters: int
    bytes: int
    macs: int
    literature_macs: int
    layers: tuple[LayerCost, ...]
    uncounted: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return asdict(self)


@dataclass
class _Tally:
    macs: int = 0
    literature_macs: int = 0
    output_shape: tuple[int, ...] = ()
    ran: bool = False


def count(module: nn.Module, input_shape: Sequence[int]) -> Cost:
    """Count what `module` does to one input of `input_shape` (N, C, H, W); N is 1 for costs per image.

    The module is left as it was. A network that cannot run on shapes alone, because it looks at values,
    is run on zeros instead.

    Raises:
        UsageError: the network does not run on an input of that shape.
    """
    try:
        tallies, uncounted = _run(module, tuple(input_shape), "meta")
    except Exception:
        try:
            tallies, uncounted = _run(module, tuple(input_shape), "cpu")
        except Exception as error:  # the user's own network may raise anything
            raise UsageError(
                "the network does not run on an input of this size",
                got=f"{'x'.join(map(str, input_shape))}: {type(error).__name__}: {str(error)[:300]}",
                fix="give another --size, or say what it takes: --multiple N, --channels IN,OUT",
            ) from error
    layers: list[LayerCost] = []
    seen: set[int] = set()  # a shared parameter belongs to the first layer that holds it
    for name, part in module.named_modules():
        own = [p for p in part.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        tally = tallies[part]
        if own or tally.literature_macs:
            layers.append(
                LayerCost(
                    name or "(network)",
                    type(part).__name__,
                    tally.output_shape,
                    sum(p.numel() for p in own),
                    tally.macs,
                    tally.literature_macs,
                )
            )
        if own and not tally.ran and not isinstance(part, (nn.ParameterList, nn.ParameterDict)):
            uncounted.append(f"{name} ({type(part).__name__}) did not run")
    parameters = list(module.parameters())
    return Cost(
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
        sum(layer.macs for layer in layers),
        sum(layer.literature_macs for layer in layers),
        tuple(layers),
        tuple(dict.fromkeys(uncounted)),
    )


def _run(module: nn.Module, shape: tuple[int, ...], device: str) -> tuple[dict[nn.Module, _Tally], list[str]]:
    """Run once on `device` in eval mode, counting per module."""
    names = {part: name for name, part in module.named_modules()}
    tallies = {part: _Tally() for part in names}
    running: list[nn.Module] = []
    uncounted: list[str] = []

    def enter(part: nn.Module, _: Any) -> None:
        running.append(part)
        tallies[part].ran = True

    def leave(part: nn.Module, _: Any, output: Any) -> None:
        running.pop()
        if isinstance(output, torch.Tensor):
            tallies[part].output_shape = tuple(output.shape)

    def record(operator: str, macs: int | None, literature_macs: int) -> _Tally:
        part = running[-1] if running else module
        if macs is None:
            uncounted.append(f"{operator} in {names[part] or '(network)'} ({type(part).__name__})")
            return tallies[part]
        tallies[part].macs += macs
        tallies[part].literature_macs += literature_macs
        return tallies[part]

    held = {
        f"{name}.{leaf}".lstrip("."): value
        for part, name in names.items()  # each module once, even if it stands under several names
        for leaf, value in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))
    }
    dtype = next((p.dtype for p in held.values() if p.is_floating_point()), torch.float32)
    replaced = {name: value.detach().to(device) for name, value in held.items()}
    image = torch.zeros(shape, dtype=dtype, device=device)
    handles = [part.register_forward_pre_hook(enter) for part in names]
    handles += [part.register_forward_hook(leave) for part in names]
    modes = {part: part.training for part in names}
    module.eval()
    try:
        with torch.no_grad(), _Counting(record):
            torch.func.functional_call(module, replaced, (image,), tie_weights=False)
    finally:
        for handle in handles:
            handle.remove()
        for part, training in modes.items():
            part.training = training
    return tallies, uncounted


class _Counting(TorchDispatchMode):
    """Sees every operator that reaches PyTorch's dispatcher and tells `record` what it costs."""

    def __init__(self, record: Callable[[str, int | None, int], _Tally]):
        super().__init__()
        self.record = record
        # Outputs of convolutions with a bias, and views of them: what the bias was counted as, and where.
        self.biased = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if name in ("convolution", "_convolution"):
            image, weight, bias, transposed = *args[:3], bool(args[6])
            inputs = image.shape[0] * math.prod(image.shape[2:])  # positions
            outputs = output.shape[0] * math.prod(output.shape[2:])
            added = 0 if bias is None else output.numel()
            macs = (inputs if transposed else outputs) * weight.numel()
            tally = self.record(name, macs, outputs * weight.numel() + added)
            self.biased[output] = (tally, added)
        elif name in _PRODUCTS:
            left, right = args[_PRODUCTS[name] : _PRODUCTS[name] + 2]
            if name == "linear":
                right = right.t()
            macs = left.numel() * (right.shape[-1] if right.dim() > 1 else 1)
            self.record(name, macs, macs)
        elif name in _LEAKY_RELU:
            self.record(name, 0, output.numel())
        elif name in _NORMS and args[0] in self.biased:
            tally, added = self.biased.pop(args[0])
            tally.literature_macs -= added
        elif func.is_view and isinstance(output, torch.Tensor) and args[0] in self.biased:
            self.biased[output] = self.biased[args[0]]
        elif not (name in _FREE or func.is_view or torch.Tag.pointwise in func.tags):
            self.record(name, None, 0)
        return output
