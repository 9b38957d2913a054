"""The errors a user may see.

Every failure that a user can cause or mend is a `PocketganError`; the command line turns it into
one message and an exit code at a single boundary (`pocketgan/cli.py`). Anything else is our defect
and keeps its traceback.
"""

from __future__ import annotations


class PocketganError(Exception):
    """Something the user can mend. Exit code 1.

    Args:
        what: what went wrong, one sentence without a full stop.
        got: what we found (a value, a shape, a key), or None.
        allowed: what would have been accepted, or None.
        fix: what to do next, ideally a command to run, or None.
    """

    exit_code = 1
    told = False  # another process has said it already

    def __init__(self, what: str, *, got: object = None, allowed: object = None, fix: str | None = None):
        self.what, self.got, self.allowed, self.fix = what, got, allowed, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  got: {self.got}"] if self.got is not None else []
        lines += [f"  allowed: {self.allowed}"] if self.allowed is not None else []
        lines += [f"  next: {self.fix}"] if self.fix is not None else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The error as the JSON object that `--json` prints."""
        return {
            "error": self.what,
            "got": None if self.got is None else str(self.got),
            "allowed": None if self.allowed is None else str(self.allowed),
            "next": self.fix,
            "exit_code": self.exit_code,
        }


class UsageError(PocketganError):
    """The command line, a recipe or a function's arguments are wrong. Exit code 2."""

    exit_code = 2


class GateError(PocketganError):
    """A check the user asked for did not pass; everything made so far is kept. Exit code 3."""

    exit_code = 3


def missing_extra(package: str, extra: str) -> PocketganError:
    """The error for an optional dependency that is not installed."""
    return PocketganError(
        f"{package} is not installed", fix=f"pip install 'pocketgan[{extra}]', then: pocketgan doctor"
    )
