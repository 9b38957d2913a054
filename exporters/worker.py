"""A process of its own that makes files: a converter that crashes or eats all memory takes nothing along.

`python -m exporters.worker DESCRIPTOR` is the child; `Worker` is the parent's handle on it. They send each
other pickled objects through a socket. The child ends when its parent does, however that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from compressor.errors import PocketganError, missing_extra

if TYPE_CHECKING:
    from exporters.job import Job

T = TypeVar("T")

_SAID, _ANSWER = "said", "answer"  # the child sends pairs of one of them and what it says


class Worker:
    """Holds one `Job` in a new process.

    Args:
        setup: the job's arguments. A network of a class that was made in a script or a notebook is sent
            whole; of any other class the process imports the module, by the paths that are known here.
        threads: of PyTorch, where the environment says nothing (OMP_NUM_THREADS).
        tell: what the process says of long work, while `ask` waits.

    Raises:
        PocketganError: the network cannot be sent to another process.
    """

    def __init__(self, setup: tuple[Any, ...], threads: int, tell: Callable[[str], object] = lambda _: None):
        try:
            import cloudpickle
        except ModuleNotFoundError as error:
            raise missing_extra("cloudpickle", "export") from error
        try:
            job = cloudpickle.dumps(setup)
        except Exception as error:  # pickling runs the user's own code, which may raise anything
            raise PocketganError(
                "the network cannot be sent to the process that converts it",
                got=f"{type(error).__name__}: {error}",
                fix="--processes 0 converts it in this one",
            ) from error
        self._tell = tell
        self._pipe, theirs = Pipe()
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        paths = [
            str(Path(__file__).resolve().parent.parent),
            *(str(Path(path).resolve()) for path in sys.path),
        ]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "exporters.worker", str(theirs.fileno())],
            stdin=subprocess.PIPE,  # closes when this process ends
            stdout=self._complaints,
            stderr=self._complaints,
            pass_fds=[theirs.fileno()],
            env={"OMP_NUM_THREADS": str(threads), **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C goes to the parent, which ends the child
        )
        theirs.close()
        self._send(job)

    def ask(self, question: Callable[[Job], T]) -> T:
        """What a function, sent there, makes of the job.

        Raises:
            PocketganError: the function raised it, or the process died.
        """
        self._send(question)
        try:
            while (received := self._pipe.recv())[0] == _SAID:
                self._tell(received[1])
            answer = received[1]
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, PocketganError):
            raise answer
        return answer

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._child.kill()

    def close(self) -> None:
        """End the process and wait for its end."""
        self.kill()
        self._child.wait()
        self._pipe.close()
        self._complaints.close()
        if self._child.stdin:
            self._child.stdin.close()

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._died() from error

    def _died(self) -> PocketganError:
        code = self._child.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return PocketganError(
            "the process that made this file died",
            got="; ".join([how, *(line[:300] for line in said[-1:])]),
            fix="memory may have run out: --processes 1, or a smaller size"
            if code == -signal.SIGKILL
            else "pocketgan doctor tells whether the tools fit each other",
        )


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """The child's whole life: take the job, then answer until the parent hangs up."""
    import pickle

    pipe = Connection(int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from exporters.job import Job

    job = Job(*pickle.loads(pipe.recv()))
    job.tell = lambda what: pipe.send((_SAID, what))
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        try:
            answer = question(job)
        except PocketganError as error:
            answer = error
        pipe.send((_ANSWER, answer))


if __name__ == "__main__":
    main()
