"""How much memory this process holds, as the kernel counts it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def memory_mb(field: str) -> float:
    """VmRSS (held now) or VmHWM (its peak) of this process in MiB; where there is no /proc, the peak."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    import resource  # its maximum counts a parent's pages too, where a process was forked

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1024
    )


def forget_peak() -> None:
    """VmHWM starts anew at what is held now (Linux; elsewhere it cannot, and nothing happens)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
