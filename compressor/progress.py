"""Progress of long work: a bar on a terminal, plain lines otherwise; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from compressor.launch import leads

_PLAIN_INTERVAL = 10.0  # seconds between plain lines, so that a CI log stays readable


class Progress:
    """Shows how far a loop has come; of several processes the first one does.

    >>> with Progress("prune", total=400) as progress:
    ...     progress.update(1, loss=0.12)

    Args:
        title: what is being done, a word or two.
        total: number of units to do.
        start: units done earlier (a resumed run), not counted in the speed.
    """

    def __init__(self, title: str, total: int, start: int = 0):
        self.title, self.total, self.done, self._start = title, total, start, start
        self._began = self._last_line = time.monotonic()
        self._bar = None
        if leads() and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, desc=title, file=sys.stderr, leave=True)
        else:
            self.note(f"{title}: {start}/{total}" if start else f"{title}: {total} to do")

    def update(self, done: int, **figures: float | str) -> None:
        """Say that `done` units (in all) are finished, with figures worth watching."""
        step, self.done = done - self.done, done
        shown = {k: v if isinstance(v, str) else f"{v:.4g}" for k, v in figures.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            if step:
                self._bar.update(step)
            else:
                self._bar.refresh()
            return
        now = time.monotonic()
        if now - self._last_line >= _PLAIN_INTERVAL:
            self._last_line = now
            pace = (now - self._began) / max(1, done - self._start)
            left = pace * (self.total - done)
            tail = "".join(f"  {key} {value}" for key, value in shown.items())
            self.note(f"{self.title}: {done}/{self.total}  {left:.0f} s left{tail}")

    def note(self, line: str) -> None:
        """Print one line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif leads():
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self.note(f"{self.title}: {self.done}/{self.total} in {time.monotonic() - self._began:.1f} s")
