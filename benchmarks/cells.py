"""Tables that take hours: cells that several processes fill side by side, and that survive a kill."""

from __future__ import annotations

from pathlib import Path

DONE = "cell.json"


def claim(folder: Path, done: str = DONE) -> bool:
    """Whether a cell is ours to fill: not done, and not in the hands of a process that still runs.

    Args:
        folder: of the cell; is made.
        done: the file that its end leaves in it.
    """
    import psutil

    folder.mkdir(parents=True, exist_ok=True)
    if (folder / done).exists():
        return False
    try:
        (folder / "claim").open("x").write(str(psutil.Process().pid))
    except FileExistsError:
        holder = int((folder / "claim").read_text() or 0)
        if psutil.pid_exists(holder):
            return False
        (folder / "claim").write_text(str(psutil.Process().pid))
    return True
