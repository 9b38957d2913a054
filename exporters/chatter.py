"""Keeps what converters print out of the way, and at hand when they fail.

They write to stdout and stderr from Python and from C++ alike, and stdout belongs to `--json`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from compressor.errors import PocketganError

_KEPT = 2000  # characters of chatter shown with an error


@contextlib.contextmanager
def kept_quiet(what: str) -> Iterator[None]:
    """Send everything printed inside the block to a file; a failure is raised with its last lines.

    Args:
        what: what is being done, for the error: "converting to TFLite".

    Raises:
        PocketganError: the block raised an `Exception` that is not one already.
    """
    with tempfile.TemporaryFile("w+b") as record:
        try:
            with _redirected(record.fileno()):
                yield
        except PocketganError:
            raise
        except Exception as error:
            record.seek(0)
            said = record.read().decode("utf-8", "replace").strip()[-_KEPT:]
            first = (str(error).strip() or "no message").splitlines()[0][:500]
            raise PocketganError(
                f"{what} failed", got=f"{type(error).__name__}: {first}" + (f"\n{said}" if said else "")
            ) from error


@contextlib.contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    log_level = logging.root.manager.disable
    try:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        with (
            os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(log_level)
        for target, original in zip((1, 2), saved, strict=True):
            os.dup2(original, target)
            os.close(original)
