"""`pocketgan doctor`: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import PocketganError
from pocketgan.options import Answer, command
from pocketgan.texts import table

if TYPE_CHECKING:
    from pocketgan.doctor import Diagnosis


@command("doctor")
def doctor_command() -> Answer:
    """Look at packages and machine; exit code 0 when the base install is complete."""
    from pocketgan.doctor import diagnose

    found = diagnose(Path.cwd())
    problem = None
    if not found.healthy:
        problem = PocketganError("the base install is not complete", fix=found.mend)
    return Answer(_text(found), found.as_json(), problem)


def _text(found: Diagnosis) -> str:
    rows = [
        (
            "ok" if package.fits else "WRONG" if package.installed else "missing",
            package.name,
            package.installed or "-",
            package.required,
            package.extra,
        )
        for package in found.packages
    ]
    machine, torch = found.machine, found.machine["torch"]
    lines = [
        table(rows, head=("", "package", "installed", "required", "part of")),
        "",
        f"Python  {machine['python']}, {machine['cores']} cores",
        "torch   not there"
        if torch is None
        else f"torch   built for {torch['build']}, {torch['threads']} threads, GPU: {torch['gpu'] or 'none'}",
        f"adb     {machine['adb'] or 'not there: no phone can be reached over USB'}",
        f"disk    {machine['disk_free_bytes'] / 1e9:.1f} GB free here",
        "",
        *(f"{extra} is not complete, which stops {what}" for extra, what in found.blocked.items()),
        f"mend it: {found.mend}" if found.mend else "Nothing is missing that a user needs.",
    ]
    return "\n".join(lines)
