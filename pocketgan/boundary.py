"""The one boundary for errors: whatever a command raised becomes a message, a next step and an exit code."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterator

import click

from compressor.errors import PocketganError, UsageError

_OURS = ("pocketgan", "benchmarks", "devices", "exporters", "compressor")
_OUT_OF_MEMORY = re.compile("can't allocate memory|CUDA out of memory|bad_alloc")  # torch's, native code's
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stopped(PocketganError):
    """Ctrl-C."""

    exit_code = 130


def explain(error: Exception, arguments: list[str], *, can_resume: bool) -> PocketganError:
    """The error as one that a user can read.

    Args:
        error: what a command raised.
        arguments: the command line, program name first.
        can_resume: whether the command knows --resume.
    """
    match error:
        case PocketganError():
            return error
        case click.Abort():
            resume = [] if "--resume" in arguments else ["--resume"]
            again = shlex.join([*arguments, *resume])
            return Stopped(f"stopped; go on with: {again}" if can_resume else "stopped")
        case click.ClickException():
            path = (
                error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else arguments[0]
            )
            return UsageError(error.format_message(), fix=f"{path} --help")
    causes = list(_chain(error))
    if any(_is_disk_full(cause) for cause in causes):
        return PocketganError(
            f"the disk is full{_where(error)}",
            fix="free some space; what was finished is kept"
            + (": go on with " + shlex.join([*arguments, "--resume"]) if can_resume else ""),
        )
    if any(isinstance(cause, MemoryError) or _OUT_OF_MEMORY.search(str(cause)) for cause in causes):
        return PocketganError("not enough memory", fix="use smaller pictures (--size, --crop) or --batch 1")
    match error:
        case ModuleNotFoundError(name=str(name)) if name.split(".")[0] not in _OURS:
            return PocketganError(f"the Python package {name} is not installed", fix="pocketgan doctor")
        case OSError(errno=int()):
            return PocketganError(f"{error.strerror or error}{_where(error)}")
    return PocketganError(
        f"a defect in pocketgan: {type(error).__name__}: {error}",
        fix="please report it with the traceback that -v shows",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    # Native writers (safetensors, torch) raise their own kinds, with the system's words inside.
    return getattr(error, "errno", None) in _DISK_FULL or "No space left on device" in str(error)


def _where(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f": {name}" if name else ""
