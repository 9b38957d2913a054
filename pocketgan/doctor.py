"""What is installed, what is missing or of the wrong version, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from compressor.errors import PocketganError

BLOCKED = {
    "base": "everything",
    "compress": "inspect, prune, distill, eval",
    "export": "export, bench, run, quickstart",
    "watch": "only --tensorboard",
    "farm": "only farm",
    "docs": "only the site of the documentation",
    "test": "only the tests",
}
OPTIONAL = ("watch", "farm", "docs", "test")  # not missed by those who did not ask for it


@dataclass(frozen=True)
class Package:
    """One requirement of ours.

    Attributes:
        name: the distribution.
        extra: "base", or the extra that asks for it.
        required: the version range.
        installed: the version found, or None.
        fits: whether that is within the range.
    """

    name: str
    extra: str
    required: str
    installed: str | None
    fits: bool


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        packages: all of ours, in pyproject's order.
        blocked: what does not work, by the extra that is incomplete.
        mend: the command that mends it, or None when nothing is amiss.
        machine: torch's build and threads, GPU, adb, free disk space (bytes).
    """

    packages: tuple[Package, ...]
    blocked: dict[str, str]
    mend: str | None
    machine: dict[str, Any]

    @property
    def healthy(self) -> bool:
        """The base install is complete."""
        return "base" not in self.blocked

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as JSON types."""
        return {"healthy": self.healthy, **asdict(self)}


def packages() -> tuple[Package, ...]:
    """Every requirement of the installed pocketgan, with what is there of it.

    Raises:
        PocketganError: pocketgan itself is not installed, only lying in a folder.
    """
    # What pip installed has a RECORD; an old egg-info beside the sources has none and may be stale.
    ours = [d for d in importlib.metadata.distributions(name="pocketgan") if d.read_text("RECORD")]
    if not ours:
        raise PocketganError("pocketgan is not installed", fix="pip install '.[all]' in its folder")
    stated = ours[0].requires or []
    extras = ours[0].metadata.get_all("Provides-Extra") or []
    found = []
    for requirement in map(Requirement, stated):
        if canonicalize_name(requirement.name) == "pocketgan":
            continue  # extras that include others
        extra = next((e for e in extras if _applies(requirement, e)), None)
        if _applies(requirement, ""):
            extra = "base"
        if extra is None:
            continue  # for another Python or system
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
        found.append(Package(requirement.name, extra, str(requirement.specifier), installed, fits))
    return tuple(found)


def diagnose(folder: Path) -> Diagnosis:
    """Look at packages and machine.

    Args:
        folder: whose disk's free space is told.
    """
    found = packages()
    amiss = [package for package in found if not package.fits]
    needed = [f"{package.name}{package.required}" for package in amiss if package.extra not in OPTIONAL]
    mend = shlex.join([sys.executable, "-m", "pip", "install", *needed]) if needed else None
    return Diagnosis(
        packages=found,
        blocked={extra: what for extra, what in BLOCKED.items() if any(p.extra == extra for p in amiss)},
        mend=mend,
        machine=_machine(folder),
    )


def _applies(requirement: Requirement, extra: str) -> bool:
    environment: dict[str, str] = {**default_environment(), "extra": extra}  # type: ignore[dict-item]
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _machine(folder: Path) -> dict[str, Any]:
    from devices.host import usable_cores

    return {
        "python": sys.version.split()[0],
        "cores": usable_cores(),
        "torch": _torch(),
        "adb": shutil.which("adb"),
        "disk_free_bytes": shutil.disk_usage(folder).free,
    }


def _torch() -> dict[str, Any] | None:
    """Torch's build, or None where it is absent or does not load."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    return {
        "build": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }
