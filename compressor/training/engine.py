"""How forward passes are run: precision, memory layout, compiling, and the parts a batch is taken in."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from compressor.launch import leads
from compressor.training import ranks


class EngineOptions(Protocol):
    """What every task's settings say about it; see `compressor.options`."""

    @property
    def precision(self) -> str: ...

    @property
    def channels_last(self) -> bool: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def compile(self) -> bool: ...


class Engine:
    """Runs networks as the options say, and divides batches.

    Weights, hypernetworks, losses and optimisers stay in float32 whatever the precision.

    Args:
        options: precision, channels_last, accumulate, compile.
        device: where everything lies.
    """

    def __init__(self, options: EngineOptions, device: torch.device):
        self.options, self.device = options, device
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format

    def parts(self, *batches: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """This process's slice of batches (N, C, H, W), in `accumulate` micro-batches, on the device."""
        count = self.options.accumulate
        slices = [ranks.mine(batch).to(self.device).chunk(count) for batch in batches]
        return [
            tuple(part.contiguous(memory_format=self.layout) for part in parts)
            for parts in zip(*slices, strict=True)
        ]

    def forward(
        self, module: nn.Module, weights: Callable[[], Mapping[str, torch.Tensor]] | None = None
    ) -> Forward:
        """A module as the function to train with; see `Forward`."""
        return Forward(self, module, weights)

    def arrange(self, module: nn.Module) -> nn.Module:
        """Put a module's kernels into the memory layout asked for."""
        if self.options.channels_last:
            placed: Any = module  # torch's stubs do not know this use of `to`
            placed.to(memory_format=self.layout)
        return module

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.options.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


class Forward:
    """A network as a function, (N, C, H, W) float32 -> float32.

    Args:
        engine: how to run it.
        module: the network; only called, so that its names stay what they are.
        weights: makes parameters that take the place of the module's own, such as a hypernetwork's. They
            are made once and used until `renew`: before every backward pass but the first of a step.
    """

    def __init__(
        self,
        engine: Engine,
        module: nn.Module,
        weights: Callable[[], Mapping[str, torch.Tensor]] | None = None,
    ):
        self.engine, self.module, self._weights = engine, module, weights
        self._made: dict[str, torch.Tensor] | None = None
        self._with_gradients = False
        self._run = _Compiled(self._plain) if engine.options.compile else self._plain

    def renew(self) -> Forward:
        """Make the weights anew at the next use: they have changed, or their graph has been used up."""
        self._made = None
        return self

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        made = self._weights_of_now()
        with self.engine.autocast():
            output: torch.Tensor = self._run(made, pictures)
        return output.float()

    def _plain(self, made: dict[str, torch.Tensor], pictures: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = (
            torch.func.functional_call(self.module, made, (pictures,), tie_weights=False)
            if made
            else self.module(pictures)
        )
        return output

    def _weights_of_now(self) -> dict[str, torch.Tensor]:
        if self._weights is None:
            return {}
        if self._made is None or self._with_gradients != torch.is_grad_enabled():
            layout = self.engine.layout
            self._made = {
                name: weight.contiguous(memory_format=layout) for name, weight in self._weights().items()
            }
            self._with_gradients = torch.is_grad_enabled()
        return self._made


def renew(generators: Mapping[str, Any]) -> None:
    """`Forward.renew` for those of some networks that are a `Forward`; plain modules need none."""
    for generator in generators.values():
        if isinstance(generator, Forward):
            generator.renew()


class _Compiled:
    """A function through torch.compile, or as it is where that cannot be done here, with a note."""

    def __init__(self, plain: Callable[..., torch.Tensor]):
        self.plain = plain
        self.fast: Callable[..., torch.Tensor] | None = torch.compile(plain)

    def __call__(self, *arguments: Any) -> torch.Tensor:
        if self.fast is not None:
            from torch._dynamo.exc import TorchDynamoException

            try:
                return self.fast(*arguments)
            except TorchDynamoException as error:
                self.fast = None
                if leads():
                    reason = next(
                        (line for line in str(error).splitlines() if line.strip()), "no reason given"
                    )
                    print(
                        f"torch.compile cannot be used here; training goes on without it: {reason}",
                        file=sys.stderr,
                        flush=True,
                    )
        return self.plain(*arguments)
