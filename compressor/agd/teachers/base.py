"""What a teacher is, and the teacher that is a torch module."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from compressor.agd.teachers.identity import digest
from compressor.errors import PocketganError
from compressor.files import sha256
from compressor.generators import Generator
from compressor.generators.spec import ImageFormat


class Teacher(Protocol):
    """Makes the pictures that a student learns to make; never with gradients.

    Attributes:
        image: how pictures go in and come out.
        identity: says which teacher it is: equal only where the outputs are (a hash of the weights or the
            file, and of how pictures go in).
        notes: what was assumed about it, one sentence each.
        fixed: the only input size (H, W) it takes, or None.
    """

    @property
    def image(self) -> ImageFormat: ...

    @property
    def identity(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def fixed(self) -> tuple[int, int] | None: ...

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in the input range -> (N, C, scale H, scale W) in the output range, float32."""
        ...


class NetworkTeacher:
    """A generator as a teacher: in eval mode, in float32, one picture at a time.

    Args:
        generator: the network; it is copied, and held as it is for what measures it.
        device: where it runs; outputs come back to the CPU.
    """

    fixed: tuple[int, int] | None = None

    def __init__(self, generator: Generator, device: torch.device | str = "cpu"):
        self.generator, self.device = generator, torch.device(device)
        self.image, self.notes = generator.spec.image, generator.notes
        self.module: nn.Module = copy.deepcopy(generator.module).to(self.device).eval().requires_grad_(False)
        told = generator.spec.as_json()
        told["image"].pop("size")  # the outputs do not depend on what size is usual
        code = _code(self.module) if generator.spec.family == "custom" else ""
        described = json.dumps(told, sort_keys=True)
        self.identity = digest("network", generator.sha256, described, code, self.device.type)

    @torch.no_grad()
    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """See `Teacher`."""
        try:
            made = [self.module(picture[None].to(self.device)).float().cpu() for picture in pictures]
        except (RuntimeError, ValueError) as error:
            raise PocketganError(
                f"the teacher does not take pictures of {pictures.shape[2]}x{pictures.shape[3]}",
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                allowed=f"multiples of {self.image.multiple}, as --size says",
            ) from error
        return torch.cat(made)


def _code(module: nn.Module) -> str:
    """Hash of the source files that a user's network is written in, so that a change of them is noticed."""
    places = {type(part).__module__ for part in module.modules()}
    sources = []
    for place in sorted(places):
        file = getattr(sys.modules.get(place), "__file__", None)
        if file and not place.startswith("torch.") and Path(file).is_file():
            sources.append(f"{place} {sha256(Path(file))}")
    return digest(*sources)
