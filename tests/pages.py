"""The documentation's own commands: what each page asks for, and a folder in which they can be run.

A block fenced as `shell` is run as it stands. A comment right before it may say otherwise:

    <!-- not run: why it cannot be -->
    <!-- run: acceptance -->        it takes long; the block runs with -m acceptance
    <!-- run: acceptance, in a clone -->        so does this, in a fresh clone, with nothing installed

A block with a title, such as `yaml title="recipe.yaml"`, is a file that the page has the reader write.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<kind>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: its language, "" if none is named.
        file: the file that it is, from its title.
        text: its lines.
        note: the comment before it.
    """

    kind: str
    file: str | None
    text: str
    note: str

    @property
    def is_run(self) -> bool:
        return self.kind == "shell" and not self.is_in_clone and not self.note.startswith("not run")

    @property
    def is_in_clone(self) -> bool:
        return self.note == "run: acceptance, in a clone"

    @property
    def is_long(self) -> bool:
        return self.note.startswith("run: acceptance")


def blocks(page: Path) -> Iterator[Block]:
    """A page's fenced blocks, in order."""
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        kind, _, rest = found["kind"].strip().partition(" ")
        title = re.fullmatch(r'title="([^"]+)"', rest)
        yield Block(kind, title[1] if title else None, found["text"], found["note"] or "")


def prepare(folder: Path, exported: Path | None = None) -> None:
    """What the pages' reader has: checkpoints and pictures, small here, and a folder of exported files."""
    import torch
    from PIL import Image

    from compressor.generators.families import construct

    torch.manual_seed(0)
    for name, family, arguments in (
        ("horse2zebra.pth", "resnet", {"width": 8, "blocks": 1, "bias": True}),
        ("esrgan_x4.pth", "rrdbnet", {"features": 8, "blocks": 1, "growth": 8}),
    ):
        torch.save(construct(family, arguments).state_dict(), folder / name)
    for name, side in (("horses", 256), ("small", 64)):
        (folder / name).mkdir()
        rows, columns = np.mgrid[0:side, 0:side] / side
        for number in range(6):
            waves = [np.sin((number + 2) * rows * k * 3 + columns * 9) for k in (1, 2, 3)]
            Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(folder / name / f"{number}.png")
    if exported is not None:
        (folder / "exported").symlink_to(exported)


def surroundings() -> dict[str, str]:
    """The environment of a process that finds the packages of this checkout, wherever it starts."""
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def follow(page: Path, folder: Path, *, long: bool) -> None:
    """Write a page's files and run its blocks in `folder`, in order; `long` ones too if asked."""
    folder = folder.resolve()
    (folder / "bin").mkdir()
    for name, arguments in (("pocketgan", "-m pocketgan"), ("python3", "")):  # an installation's
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        command.chmod(0o755)
    environment = surroundings() | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.is_run and (long or not block.is_long):
            done = subprocess.run(
                ["bash", "-euc", block.text], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{page.name}:\n{block.text}\n{done.stdout}\n{done.stderr}"
