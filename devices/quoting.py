"""Words that users, files and phones gave, as text that means nothing to a shell.

`command_line` is the only place that makes shell text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from compressor.errors import UsageError


def command_line(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Words as one line of POSIX shell in which each word stands for itself.

    Raises:
        UsageError: a word holds a NUL, or a variable's name is none.
    """
    if not argv:
        raise UsageError("there is no command to run")
    for name in environment or {}:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError("this is no name for an environment variable", got=repr(name))
    words = [*(f"{name}={value}" for name, value in (environment or {}).items()), *argv]
    if any("\0" in word for word in words):
        raise UsageError("a command cannot hold a NUL character", got=repr(argv[0]))
    return shlex.join(["env", *words] if environment else words)


def plain_name(name: str) -> str:
    """A file name that means nothing to a shell, a terminal or a page: letters, digits and `._+-`."""
    cleaned = re.sub(r"[^A-Za-z0-9._+-]", "_", name)[-96:].lstrip(".-")
    return cleaned or "file"
