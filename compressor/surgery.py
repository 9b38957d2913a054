"""Changing the widths of a network's layers while its structure stays."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx, nn

from compressor.errors import PocketganError
from compressor.tracing.steps import SIZED_MOVES, SPLITS, argument

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
KERNELS = (*CONVOLUTIONS, nn.Linear)
NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.BatchNorm1d, nn.GroupNorm)


def resize(
    module: nn.Module,
    widths: Mapping[str, tuple[int, int]],
    splits: Mapping[str, tuple[int, ...]],
) -> nn.Module:
    """Give layers new channel counts (fresh weights) and numbers written in the forward new values.

    Args:
        module: the network at its original widths; changed in place.
        widths: (input, output) channels by module name.
        splits: by the name of the step's node in the traced graph: the sizes of a split's or chunk's
            parts; (place in the index, start, stop) of a slice or narrow; (axis, size) of a view,
            reshape, expand, or of a parameter that the forward uses itself; of a view also several pairs.

    Returns:
        The same module, or, where splits change, its traced form (`torch.fx.GraphModule`), in
        which the sizes that were written in Python code can be replaced.

    Raises:
        PocketganError: a name or a kind of layer does not fit the network.
    """
    for name, (inputs, outputs) in widths.items():
        try:
            layer = module.get_submodule(name)
        except AttributeError as error:
            raise PocketganError("the widths name a layer that the network lacks", got=name) from error
        _replace(module, layer, _resized(name, layer, inputs, outputs))
    return _rewritten(module, splits) if splits else module


def symbolic(module: nn.Module) -> fx.GraphModule:
    """The traced form of a network; of a network in traced form, itself, so that names stay."""
    if isinstance(module, fx.GraphModule):
        return module
    tracer = _Tracer()
    graph = tracer.trace(module)
    for node in graph.nodes:
        if isinstance(node.type, str):  # an annotation, which torch.fx takes for a type when it is pickled
            node.type = None
    return Traced(tracer.root, graph, type(module).__name__)


class Traced(fx.GraphModule):
    """A traced network whose copies have the same saved parameters and buffers as itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Traced:
        made = cast(Traced, super().__deepcopy__(memo))
        _keep_state(self, made)
        return made


class _Tracer(fx.Tracer):
    # Buffers stay buffers in sums with parameters and with each other, instead of becoming constants.
    proxy_buffer_attributes = True


def _resized(name: str, layer: nn.Module, inputs: int, outputs: int) -> nn.Module:
    device, dtype = next(((p.device, p.dtype) for p in layer.parameters()), (None, None))
    if isinstance(layer, nn.Linear):
        return nn.Linear(inputs, outputs, bias=layer.bias is not None, device=device, dtype=dtype)
    if isinstance(layer, CONVOLUTIONS):
        # Where each group reads one channel, whole groups are removed.
        groups = inputs if 1 < layer.groups == layer.in_channels else min(layer.groups, inputs)
        if inputs % groups or outputs % groups:
            got = f"{name}: {inputs} and {outputs} channels in {groups} groups"
            raise PocketganError("a grouped convolution's channels do not fit its groups", got=got)
        settings: dict[str, Any] = {
            name: getattr(layer, name)
            for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        if isinstance(layer, nn.ConvTranspose2d):
            settings["output_padding"] = layer.output_padding
        bias = layer.bias is not None
        return type(layer)(inputs, outputs, groups=groups, bias=bias, device=device, dtype=dtype, **settings)
    if isinstance(layer, nn.GroupNorm):
        together = layer.num_channels // layer.num_groups
        if outputs % together:
            got = f"{name}: {outputs} channels in groups of {together}"
            raise PocketganError("a norm's channels do not fit its groups", got=got)
        return nn.GroupNorm(outputs // together, outputs, layer.eps, layer.affine, device=device, dtype=dtype)
    if isinstance(layer, NORMS):
        names = ("eps", "momentum", "affine", "track_running_stats")
        settings = {name: getattr(layer, name) for name in names}
        return type(layer)(outputs, device=device, dtype=dtype, **settings)
    if isinstance(layer, nn.PReLU):
        return nn.PReLU(outputs, device=device, dtype=dtype)
    raise PocketganError(f"a layer of kind {type(layer).__name__} cannot change its width", got=name)


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of `old`, everywhere where it stands."""
    new.train(old.training)
    for parent in list(module.modules()):
        for leaf, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, leaf, new)


def _rewritten(module: nn.Module, splits: Mapping[str, tuple[int, ...]]) -> nn.Module:
    traced = symbolic(module)
    nodes = {node.name: node for node in traced.graph.nodes}
    for name, sizes in splits.items():
        node = nodes.get(name)
        if node is None:
            raise PocketganError("the splits name a step that the network lacks", got=name)
        try:
            _rewrite(traced, node, sizes)
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise PocketganError("these sizes do not fit the step", got=f"{name}: {sizes}") from error
    _keep_state(module, traced)
    traced.recompile()
    return traced


def _rewrite(traced: fx.GraphModule, node: fx.Node, sizes: tuple[int, ...]) -> None:
    """Write new numbers into one step."""
    key: Any = node.target
    source = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("tensor"))
    if node.op == "get_attr":
        axis, size = sizes
        owner, _, leaf = str(node.target).rpartition(".")
        holder = traced.get_submodule(owner)
        old = getattr(holder, leaf)
        new = old.detach().narrow(axis, 0, size).clone()
        setattr(holder, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
    elif key in SPLITS:
        # A chunk into unequal parts is a split.
        dim = argument(node, 2, "dim", 0)
        node.op, node.target = "call_function", torch.split
        node.args, node.kwargs = (source, list(sizes)), {"dim": dim}
    elif key is operator.getitem:
        position, start, stop = sizes
        index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
        node.args = (source, (*index[:position], slice(start, stop), *index[position + 1 :]))
    elif key in ("narrow", torch.narrow):
        dim = argument(node, 1, "dim", 0)
        node.args, node.kwargs = (source, dim, sizes[1], sizes[2] - sizes[1]), {}
    elif key in SIZED_MOVES:
        written = dict(zip(sizes[::2], sizes[1::2], strict=True))
        if key in ("unflatten", torch.unflatten):
            dim, inner = argument(node, 1, "dim", 0), list(argument(node, 2, "sizes", ()))
            for axis, size in written.items():
                inner[axis - dim] = size
            node.args, node.kwargs = (source, dim, inner), {}
            return
        shape = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
        listed = list(shape[0]) if isinstance(shape[0], (tuple, list)) else list(shape)
        for axis, size in written.items():
            listed[axis] = size
        node.args, node.kwargs = (source, listed), {}
    else:
        raise TypeError(key)


def _keep_state(module: nn.Module, traced: fx.GraphModule) -> None:
    """Give a traced form the same saved parameters and buffers as the module, even those it does not use."""
    wanted = module.state_dict()
    for name in traced.state_dict().keys() - wanted.keys():
        owner, _, leaf = name.rpartition(".")
        traced.get_submodule(owner)._non_persistent_buffers_set.add(leaf)
    first = {id(part): name for name, part in module.named_modules()}
    for name in sorted(wanted.keys() - traced.state_dict().keys()):
        path, _, leaf = name.rpartition(".")
        holder, way = cast(nn.Module, traced), path.split(".") if path else []
        for depth, part in enumerate(way, start=1):
            theirs = module.get_submodule(".".join(way[:depth]))
            if part not in holder._modules:
                alias = first[id(theirs)] != ".".join(way[:depth])  # the same module under a second name
                holder.add_module(part, traced.get_submodule(first[id(theirs)]) if alias else nn.Module())
            holder = holder.get_submodule(part)
        if leaf not in holder._parameters and leaf not in holder._buffers:
            value = copy.deepcopy(getattr(module.get_submodule(path), leaf))
            if isinstance(value, nn.Parameter):
                holder.register_parameter(leaf, value)
            else:
                holder.register_buffer(leaf, value)
