"""What a result was made with: versions, machine, command line."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

from pocketgan import __version__


def environment(command: Sequence[str], seed: int) -> dict[str, Any]:
    """The document of environment.json.

    Args:
        command: the command line that made the result.
        seed: the run's seed.
    """
    from devices.host import facts
    from pocketgan.doctor import packages

    return {
        "pocketgan": __version__,
        "python": platform.python_version(),
        "packages": {package.name: package.installed for package in packages() if package.installed},
        "machine": facts().as_json(),
        "command": list(command),
        "seed": seed,
    }
