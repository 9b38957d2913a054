"""Two processes on the CPU (gloo) that train together, for tests: `python two_processes.py FOLDER`.

FOLDER holds small.safetensors, student (a model folder), pictures, A and B. Processes are forked from this
one, which has imported torch already; each set of jobs gets a process group of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny_space
import torch
import torch._dynamo  # slow; optimisers import it at their first step
from networks import Small
from safetensors.torch import save_file

from compressor.adversarial.fresh import fresh
from compressor.agd.options import SearchOptions
from compressor.agd.search import search
from compressor.agd.teachers import NetworkTeacher
from compressor.budget import Budget
from compressor.coronet import prune as searching
from compressor.coronet.cyclegan import prune_cyclegan
from compressor.coronet.pix2pix import prune_pix2pix
from compressor.data.images import write_image
from compressor.data.pairs import find_pairs
from compressor.errors import PocketganError
from compressor.generators import Generator, load
from compressor.generators.spec import ImageFormat
from compressor.launch import leads, rank
from compressor.options import AdversarialOptions, DistilOptions, PruneOptions
from compressor.training import loop as loops
from compressor.training.distil import distil

FACTORY = "networks:Small"
FORMAT = ImageFormat(size=(32, 32), multiple=4)
HALF = Budget.parse("macs=50%")


def write_inputs(folder: Path) -> None:
    """What the jobs need, but for the student."""
    draw = np.random.default_rng(0)
    for index in range(4):
        coarse = np.kron(draw.random((4, 4, 3)), np.ones((8, 8, 1))).astype(np.float32)
        write_image(folder / "A" / f"{index}.png", coarse)
        write_image(folder / "B" / f"{index}.png", 1 - coarse)
    torch.manual_seed(0)
    save_file(Small().state_dict(), folder / "small.safetensors")


PRUNE = PruneOptions(steps=8, batch=2, device="cpu")
DISTIL = DistilOptions(steps=8, batch=2, device="cpu")
SEARCH = SearchOptions(
    pretrain=4, steps=6, batch=2, crop=16, finalists=3, descendants=4, trials=3, trial_steps=4, validation=2,
    device="cpu",
)  # fmt: skip
GAME = AdversarialOptions(
    epochs=3, epochs_decay=2, search_epochs=3, scratch=True, discriminator_width=4, discriminator_layers=2,
    check_every=1, pool=3, batch=2, device="cpu",
)  # fmt: skip
Job = Callable[[Path, Path], None]  # (inputs, folder for the result)


def generator(data: Path) -> Generator:
    return load(data / "small.safetensors", factory=FACTORY, image=FORMAT)


def calm(patch: Callable[[object, str, object], None]) -> None:
    """Let rounding errors stay as small as they are, so that results can be compared closely.

    Adam makes whole steps of gradients that are nothing but rounding errors: those of a bias before an
    instance norm, and of the first step of pruning, where student and teacher are equal. Here its epsilon
    is large, and pruning aims at another teacher than it starts from.
    """
    patch(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=1e-3))
    begin = searching._Search.__init__

    def begin_elsewhere(self: searching._Search, *arguments: object) -> None:
        begin(self, *arguments)
        with torch.no_grad():
            for parameter in self.teacher.parameters():
                parameter.mul_(1.1)

    patch(searching._Search, "__init__", begin_elsewhere)


def job_prune(data: Path, out: Path, resume: bool = False) -> None:
    searching.prune(generator(data), sorted((data / "A").iterdir()), HALF, out, PRUNE, resume=resume)


def job_distil(data: Path, out: Path) -> None:
    student = load(data / "student", factory=FACTORY)
    distil(student, generator(data), sorted((data / "A").iterdir()), out, DISTIL)


def job_qat(data: Path, out: Path) -> None:
    student = load(data / "student", factory=FACTORY)
    options = dataclasses.replace(DISTIL, qat=True)
    distil(student, generator(data), sorted((data / "A").iterdir()), out, options)


def job_pix2pix(data: Path, out: Path) -> None:
    made = fresh("unet", {"depth": 4, "width": 6}, size=(32, 32))
    prune_pix2pix(made, find_pairs(data / "A", data / "B"), HALF, out, GAME)


def job_cyclegan(data: Path, out: Path) -> None:
    ours, theirs = (fresh("resnet", {"width": 8, "blocks": 1}, seed=i, size=(32, 32)) for i in (0, 1))
    a, b = (sorted((data / side).iterdir()) for side in "AB")
    prune_cyclegan(ours, theirs, a, b, HALF, out, GAME)


def job_search(data: Path, out: Path) -> None:
    """The supernet, the architecture, the candidates and their trials, half a batch each."""
    space, pictures = tiny_space.space(tiny_space.TRANSLATION), sorted((data / "A").iterdir())
    teacher = NetworkTeacher(generator(data))
    search(space, teacher, pictures, [Budget.parse("params=1200")], out, SEARCH)


JOBS: dict[str, Job] = {
    "prune": job_prune, "distil": job_distil, "qat": job_qat, "pix2pix": job_pix2pix,
    "cyclegan": job_cyclegan, "search": job_search,
}  # fmt: skip


def _at_step(steps: int, act: Callable[[], None]) -> None:
    """Save after every step, and do something after some."""
    loops._SAVE_EVERY = 0.0
    save = loops.Loop._save

    def save_then_act(self: loops.Loop, step: int) -> None:
        save(self, step)
        if step == steps:
            act()

    loops.Loop._save = save_then_act


def killed(data: Path, out: Path) -> None:
    """kill -9 of the whole group after 5 steps."""

    def kill() -> None:
        if leads():
            os.killpg(0, signal.SIGKILL)

    _at_step(5, kill)
    job_prune(data, out)


def resumed(data: Path, out: Path) -> None:
    job_prune(data, out, resume=True)


def bereaved(data: Path, out: Path) -> None:
    """Rank 1 dies in the third step; what rank 0 says is written to OUT.txt."""
    if rank() == 1:
        _at_step(3, lambda: os._exit(1))
    began = time.monotonic()
    try:
        job_prune(data, out)
    except PocketganError as error:
        out.with_suffix(".txt").write_text(f"{time.monotonic() - began:.1f} s\n{error}")


def estranged(data: Path, out: Path) -> None:
    """Rank 1 sees other pictures."""
    pictures = sorted((data / "BA"[rank()]).iterdir())[rank() :]
    try:
        searching.prune(generator(data), pictures, HALF, out, PRUNE)
    except PocketganError as error:
        out.with_name(f"{out.name}{rank()}.txt").write_text(str(error))


def together(jobs: dict[str, Job], data: Path, folder: Path) -> list[int]:
    """Do jobs in two processes; their exit codes, negative for a signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: list[int] = []
    for number in range(2):
        child = os.fork()
        if child:
            os.setpgid(child, children[0] if children else child)
            children.append(child)
            continue
        os.environ |= {
            "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        code = 1
        try:
            for name, job in jobs.items():
                job(data, folder / name)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    data = Path(sys.argv[1])
    folder = data / "two"
    torch.set_num_threads(1)
    calm(setattr)
    assert together(JOBS, data, folder) == [0, 0]
    assert together({"part": killed}, data, folder) == [-signal.SIGKILL] * 2
    assert together({"part": resumed}, data, folder) == [0, 0]
    assert together({"bereaved": bereaved}, data, folder) == [0, 1]
    assert together({"estranged": estranged}, data, folder) == [0, 0]


if __name__ == "__main__":
    main()
