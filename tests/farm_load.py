"""A farm under load: the real command as a process of its own, simulated phones that die, workers killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from phone import Phone
from phone_fixtures import wait_until_ready

from benchmarks.farm.store import Row, Store
from devices.adb_server import AdbServer

REPOSITORY = Path(__file__).resolve().parent.parent
SELF_TEST = REPOSITORY / "devices/runner/selftest.tflite"


@contextlib.contextmanager
def phones(adb: AdbServer, folder: Path, count: int) -> Iterator[list[Phone]]:
    """Simulated phones, Snapdragon and Dimensity by turns, connected."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            phone = stack.enter_context(Phone(folder / f"phone-{number}", ("SM8650", "MT6989")[number % 2]))
            adb.connect(phone.serial)
            stack.callback(adb.disconnect, phone.serial)
            made.append(phone)
        for phone in made:
            wait_until_ready(adb, phone.serial)
        yield made


def write_plan(folder: Path, files: int, **settings: object) -> Path:
    """A plan of many small TFLite files, each of another content."""
    (folder / "models").mkdir(parents=True)
    for number in range(files):
        content = SELF_TEST.read_bytes() + number.to_bytes(
            4, "little"
        )  # what follows a flatbuffer is not read
        (folder / "models" / f"model-{number:03d}-fp32.tflite").write_bytes(content)
    plan = folder / "plan.yaml"
    lines = {"models": ["models/*.tflite"], "rounds": 5, "warmup": 0, "allow_emulated": True} | settings
    plan.write_text(json.dumps(lines, indent=1))  # JSON is YAML
    return plan


@dataclass
class Coordinator:
    """`pocketgan farm run` as a process; `memory` is its resident set (bytes) at each look."""

    process: subprocess.Popen[str]
    store: Path
    memory: list[tuple[int, int]] = field(default_factory=list)

    def done(self) -> int:
        """Jobs whose row is written."""
        if not self.store.exists():
            return 0
        with contextlib.suppress(psutil.Error):
            count = len(rows(self.store))
            self.memory.append((count, psutil.Process(self.process.pid).memory_info().rss))
            return count
        return len(rows(self.store))

    def wait_for(self, count: int, seconds: float = 600) -> None:
        """Until so many jobs are done or the command ends."""
        deadline = time.monotonic() + seconds
        while self.done() < count and self.process.poll() is None:
            assert time.monotonic() < deadline, "the farm stands still"
            time.sleep(0.3)

    def kill_a_worker(self, chance: random.Random) -> None:
        """SIGKILL one of the processes that hold a phone."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        forked = {child.pid for child in family if any("forkserver" in word for word in child.cmdline())}
        chance.choice([child for child in family if child.ppid() in forked]).kill()

    def end(self, seconds: float = 600) -> dict[str, object]:
        """Its JSON document."""
        out, said = self.process.communicate(timeout=seconds)
        assert out.strip(), said
        return {**json.loads(out), "code": self.process.returncode, "said": said}


@contextlib.contextmanager
def started(plan: Path, adb: AdbServer) -> Iterator[Coordinator]:
    line = ["-m", "pocketgan", "farm", "run", str(plan), "--adb-server", f"{adb.host}:{adb.port}", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield Coordinator(process, plan.parent / plan.stem / "farm.sqlite")
    finally:
        process.kill()
        process.communicate()


def rows(store: Path) -> list[Row]:
    with Store(store, "plan") as opened:
        return list(opened.rows())
