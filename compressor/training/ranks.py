"""Training by several processes, on one machine or many, as `torchrun` starts them.

Every process ("rank") draws the same batch and takes its own slice of it; gradients are averaged, so that
all hold equal weights at any moment and one process would have come to the same, up to float order. (The
feature loss is an exception: it divides by mean activations, which each rank knows of its slice alone.)
Rank 0 alone reads checkpoints and writes; the machines must see the same output folder. With one process
every function here does nothing.

(Not DistributedDataParallel: it wraps a module's own parameters, while here a hypernetwork makes the
weights, several losses share one step, and discriminators step in between.)
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from compressor.errors import PocketganError, UsageError
from compressor.launch import leads, local_rank, rank, world

_PATIENCE = timedelta(minutes=10)  # until a silent process counts as lost
T = TypeVar("T")


def join(device: torch.device) -> torch.device:
    """Meet the other processes; afterwards all functions here may be used.

    Args:
        device: what to train on; of several GPUs every process takes that of its local rank.

    Returns:
        The device of this process.

    Raises:
        PocketganError: there are more processes than GPUs on this machine, or the others cannot be reached.
    """
    if world() == 1:
        return device
    if device.type == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise PocketganError(
                "each process needs a GPU of its own",
                got=f"{torch.cuda.device_count()} GPUs for process {local_rank()} (counted from 0)",
                fix="lower --nproc-per-node, or use --device cpu",
            )
        device = torch.device("cuda", local_rank())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        with _reaching():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return device


def check_batch(section: str, batch: int, accumulate: int) -> None:
    """Refuse a batch that cannot be divided among the processes and their micro-batches.

    Raises:
        UsageError: names the batches that can be.
    """
    parts = world() * accumulate
    if batch % parts:
        said = " and ".join(
            [f"{world()} processes"] * (world() > 1) + [f"accumulate {accumulate}"] * (accumulate > 1)
        )
        raise UsageError(
            f"{section}.batch cannot be divided evenly",
            got=f"batch {batch} for {said}",
            allowed=f"multiples of {parts}: {parts}, {2 * parts}, {3 * parts}, ...",
            fix=f"--batch {parts * max(1, round(batch / parts))}",
        )


def mine(batch: torch.Tensor) -> torch.Tensor:
    """This process's slice of a batch that all have drawn alike."""
    share = len(batch) // world()
    return batch[rank() * share : (rank() + 1) * share]


def gather(part: torch.Tensor) -> torch.Tensor:
    """The whole batch, on every process, from the slices; without gradients."""
    if world() == 1:
        return part
    parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(world())]
    with _reaching():
        dist.all_gather(parts, part.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def average(optimiser: torch.optim.Optimizer) -> None:
    """Replace the gradients of an optimiser's parameters by their means over the processes."""
    if world() == 1:
        return
    gradients = [
        parameter.grad
        for group in optimiser.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _sum(flat)
    flat /= world()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def mean(figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Figures averaged over the processes: what one process would have seen of the whole batch."""
    if world() == 1:
        return dict(figures)
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=device)
    _sum(values)
    return dict(zip(figures, (values / world()).tolist(), strict=True))


def from_leader(values: np.ndarray) -> np.ndarray:
    """Rank 0's values, whatever ours were."""
    return values if world() == 1 else np.asarray(_broadcast(values))


def agree(what: str, value: Any) -> None:
    """Insist that all processes hold the same; all raise if one does not.

    Args:
        what: its name, for the message.
        value: an array, or JSON types.

    Raises:
        PocketganError: a process differs from rank 0.
    """
    if world() == 1:
        return
    if isinstance(value, np.ndarray):
        data = value.tobytes()
    else:
        data = json.dumps(value, sort_keys=True, default=str).encode()
    digests: list[Any] = [None] * world()
    with _reaching():
        dist.all_gather_object(digests, hashlib.sha256(data).hexdigest())
    if differing := [number for number, digest in enumerate(digests) if digest != digests[0]]:
        raise PocketganError(
            f"the processes of this training differ in {what}",
            got=f"rank {', '.join(map(str, differing))} differs from rank 0",
            fix="give every machine the same command, files and versions",
        )


def on_leader(work: Callable[[], T]) -> T:
    """Let rank 0 do something while the others wait; its result, or its error, is everyone's."""
    if world() == 1:
        return work()
    result: Any = None
    failure: Exception | None = None
    if leads():
        try:
            result = work()
        except Exception as error:
            failure = error
    told = f"{type(failure).__name__}: {failure}".splitlines()[0] if failure else None
    done, told = _broadcast((result, told))
    if failure is not None:
        raise failure
    if told is not None:
        stopped = PocketganError(f"rank 0 stopped: {told}")
        stopped.told = True
        raise stopped
    value: T = done
    return value


class SharedSum(torch.autograd.Function):
    """The sum of a tensor over all processes; gradients flow back to every one of them."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return _sum(values.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _sum(gradients[0].clone(memory_format=torch.contiguous_format))


def _sum(values: torch.Tensor) -> torch.Tensor:
    with _reaching():
        dist.all_reduce(values)
    return values


def _broadcast(value: Any) -> Any:
    """Any object of rank 0 (our own processes: nothing foreign is unpickled)."""
    box = [value]
    with _reaching():
        dist.broadcast_object_list(box, src=0)
    return box[0]


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises when a process is gone or silent
        raise PocketganError(
            "another process of this training stopped or cannot be reached",
            got=str(error).splitlines()[0],
            fix="see the message of the one that stopped first; then go on with: --resume",
        ) from error


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
