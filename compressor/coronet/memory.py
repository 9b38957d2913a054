"""Peak activation memory: the bytes of all activations alive at once, as a function of the channels kept.

The network is walked in the order in which PyTorch would run it, one step after the other. A tensor lives
from the step that makes it until the last step that reads it (liveness analysis, as every runtime's memory
planner does it); the picture that comes in lives until its last reader, what goes out until the end. What
is assumed:

- FP32, one picture of the usual input size, every step's result in memory of its own.
- Results that share memory in PyTorch share it here: views (split, chunk, slices, reshape), in-place steps
  (ReLU(inplace=True), +=) and steps that do nothing (Identity, dropout outside training).
- A step's inputs and result are alive at the same time. What a step needs inside itself (a convolution's
  scratch space, its padded copy) is not counted, nor are weights, and no step is fused with the next.

A runtime that fuses or works in place needs less, one with scratch space more. With every channel's bytes
known, each step's live bytes are a linear function of the channels kept, and the peak is their maximum.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor.graph import ChannelGraph, trace
from compressor.surgery import symbolic
from compressor.tracing.identities import Followed
from compressor.tracing.walker import Walker

_SHARP = 8  # power of the norm that stands for the maximum where a slope is asked for


@dataclass(frozen=True)
class MemoryModel:
    """Peak activation memory of a pruned network.

    peak = max over steps of (fixed + sum over kinds of bytes * kept channels of that kind); channels that
    live in the same tensors are of one kind, and steps that never decide the peak are left out.

    Attributes:
        kinds: (classes,) int64, the kind of each channel class.
        bytes: (steps, kinds) that a kept class of a kind needs while a step runs.
        fixed: (steps,) that no choice of channels changes.
    """

    kinds: np.ndarray
    bytes: np.ndarray
    fixed: np.ndarray

    def __call__(self, keep: np.ndarray) -> int:
        """Peak bytes when the classes where `keep` (classes,) bool is true are kept."""
        return round(float(self._steps(keep).max()))

    def marginal(self) -> np.ndarray:
        """(classes,) about what a class saves: the slope of a smooth maximum (the 8-norm) at full width.

        The maximum's own slope would see the one step at the peak and call all other channels free,
        though they decide the peak as soon as those are gone.
        """
        steps = self._steps(np.ones(len(self.kinds)))
        weights = (steps / steps.max()) ** (_SHARP - 1)
        slope: np.ndarray = (weights @ self.bytes)[self.kinds]
        return slope

    def _steps(self, keep: np.ndarray) -> np.ndarray:
        kept = np.bincount(self.kinds, weights=keep.astype(float), minlength=self.bytes.shape[1])
        steps: np.ndarray = self.fixed + self.bytes @ kept
        return steps


def peak_memory(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Peak bytes of the activations of a network as it is, for an input of (1, C, H, W).

    Raises:
        PocketganError: the network cannot be traced; see `compressor.graph.trace`.
    """
    graph = trace(module, input_shape)
    return memory_model(graph, module, input_shape)(np.ones(graph.classes, bool))


def memory_model(graph: ChannelGraph, module: nn.Module, input_shape: Sequence[int]) -> MemoryModel:
    """The memory of a network's activations.

    Args:
        graph: the network's channel classes, from `compressor.graph.trace`.
        module: the network.
        input_shape: (1, C, H, W).
    """
    walker = _Lives(symbolic(copy.deepcopy(module).to("meta").eval()), module.state_dict().keys())
    with torch.no_grad():
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
        walker.run(torch.empty(tuple(input_shape), device="meta", dtype=dtype))
    roots, classes = walker.channels.roots(), _classes(walker, graph)
    per_class = np.zeros((len(walker.lives), graph.classes))
    fixed = np.zeros(len(walker.lives))
    for index, life in enumerate(walker.lives):
        fixed[index] = life.bytes
        if life.ids is not None:
            known = [classes[root] for root in roots[life.ids].tolist() if root in classes]
            each = life.bytes / len(life.ids)
            per_class[index] = each * np.bincount(known, minlength=graph.classes)
            fixed[index] -= each * len(known)
    columns, kinds = np.unique(per_class, axis=1, return_inverse=True)
    alive = np.array(
        [[life.born <= step <= life.dies for life in walker.lives] for step in walker.steps], float
    )
    steps = _deciding(np.column_stack([alive @ columns, alive @ fixed]))
    return MemoryModel(kinds.reshape(-1), steps[:, :-1], steps[:, -1])


@dataclass
class _Life:
    """One piece of memory: its bytes, the channels in it (or None), and its first and last step."""

    storage: torch.UntypedStorage  # held, so that its address stays its own
    bytes: int
    ids: np.ndarray | None
    born: int
    dies: int


class _Lives(Walker):
    """Follows the channels, and notes when each piece of memory is made and last read."""

    def __init__(self, traced: fx.GraphModule, state: Container[str]):
        super().__init__(traced, state)
        self.lives: list[_Life] = []
        self.steps: list[int] = []
        self._at = -1
        self._where: dict[int, _Life | None] = {}  # by the storage's address; None for weights
        self._weights: list[torch.UntypedStorage] = []

    def run_node(self, n: fx.Node) -> Any:
        self._at += 1
        for source in n.all_input_nodes:
            for value in _tensors(self.env[source]):
                if life := self._where.get(value.untyped_storage()._cdata):
                    life.dies = self._at
        result = super().run_node(n)
        if n.op == "get_attr":
            for value in _tensors(result):
                self._weights.append(value.untyped_storage())
                self._where[self._weights[-1]._cdata] = None
        elif n.op != "output":
            self.steps.append(self._at)
            self._note(result, self.ids.get(n))
        return result

    def _note(self, result: Any, found: Any) -> None:
        for value in _tensors(result):
            storage = value.untyped_storage()
            if storage._cdata in self._where:
                continue
            ids = found.ids if isinstance(found, Followed) and isinstance(result, torch.Tensor) else None
            life = _Life(storage, storage.nbytes(), ids, self._at, self._at)
            self._where[storage._cdata] = life
            self.lives.append(life)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        for item in value:
            yield from _tensors(item)


def _classes(walker: Walker, graph: ChannelGraph) -> dict[int, int]:
    """The class of every root identity that a layer makes or reads."""
    roots, found = walker.channels.roots(), dict[int, int]()
    for name, use in walker.layers.items():
        layer = graph.layers[name]
        for ids, classes in ((use.inputs, layer.inputs), (use.outputs, layer.outputs)):
            found.update(zip(roots[ids].tolist(), classes.tolist(), strict=True))
    return found


def _deciding(steps: np.ndarray) -> np.ndarray:
    """The rows that no other row equals or exceeds everywhere."""
    kept: list[np.ndarray] = []
    for row in sorted(np.unique(steps, axis=0), key=lambda row: -row.sum()):
        if not any((other >= row).all() for other in kept):
            kept.append(row)
    return np.array(kept)
