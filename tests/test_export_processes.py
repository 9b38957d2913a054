"""Exports in processes of their own: the same files, and what happens when one of them, or we, are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny
import torch
from networks import Small

from compressor.errors import GateError, PocketganError
from compressor.generators import Generator, load
from compressor.surgery import symbolic
from exporters import lanes
from exporters.export import export, read_export
from exporters.worker import Worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
ONNX = {"formats": ("onnx",), "precisions": ("fp32", "int8")}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    tiny.write_job(folder)
    return folder


@pytest.fixture(scope="module")
def small(job: Path) -> Generator:
    return load(job / "tiny.pth", image=None)


@pytest.fixture(scope="module")
def pictures(job: Path) -> list[Path]:
    return sorted((job / "pictures").iterdir())


def children(of: int) -> list[psutil.Process]:
    """The converting processes that a process has."""
    found = []
    for child in psutil.Process(of).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found += [child] if "exporters.worker" in child.cmdline() else []
    return found


def wait_for(what, seconds: float = 60.0):
    """What a function finds, as soon as it finds anything."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_processes_make_the_files_that_one_makes(small, pictures, tmp_path):
    """The plan of INT8, found in one, serves the other."""
    both = {"size": (32, 32), "precisions": ("fp32", "int8")}
    here = export(small, pictures, tmp_path / "here", **both, processes=0)
    there = export(small, pictures, tmp_path / "there", **both, processes=2)
    assert [file.file for file in here.files] == [file.file for file in there.files]
    for ours, theirs in zip(here.files, there.files, strict=True):
        assert (ours.sha256, ours.parity, ours.float_layers) == (
            theirs.sha256,
            theirs.parity,
            theirs.float_layers,
        )
        assert 50 < theirs.peak_mb < 4000 and theirs.seconds > 0
    assert not children(os.getpid())


def test_a_process_tells_how_far_it_is(small, pictures):
    told: list[str] = []
    worker = Worker((small, (32, 32), pictures[:2], pictures[:2], 99.0), 1, told.append)
    plan = worker.ask(lanes._plan_of)
    worker.close()
    tried = 2 * (len(plan.bounds) + sum(point.floated for point in plan.trade if point.chosen))
    assert [each for each in told if "tried" in each] == [
        f"INT8 layers tried {i}/{tried}" for i in range(1, tried + 1)
    ]


def test_a_traced_network_of_annotated_code_can_be_sent():
    """As IMDN's is once it is pruned: its splits are written anew in the traced form."""
    cloudpickle = pytest.importorskip("cloudpickle")
    traced = symbolic(Small().eval())
    there = cloudpickle.loads(cloudpickle.dumps(traced))
    picture = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(there(picture), traced(picture))
    assert list(there.state_dict()) == list(traced.state_dict())


def test_a_process_that_dies_costs_its_file_alone(small, pictures, tmp_path):
    """kill -9 as the system does it when memory runs out."""

    def kill() -> None:
        wait_for(lambda: (tmp_path / "export.json").exists())  # the first file is on record
        children(os.getpid())[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(GateError, match=r"generator-int8\.onnx: the process that made this file died"):
        export(small, pictures, tmp_path, size=(32, 32), **ONNX)
    killer.join()
    whole, dead = read_export(tmp_path).files
    assert whole.passed and "SIGKILL" in dead.error and "--processes 1" in dead.error
    assert {path.name for path in tmp_path.iterdir()} == {"generator-fp32.onnx", "export.json"}
    again = export(small, pictures, tmp_path, size=(32, 32), resume=True, **ONNX)
    assert again.passed and again.files[0] == whole


def test_the_plan_dies_with_its_process_and_both_formats_know(small, pictures, tmp_path):
    """The plan is the first thing that one of two processes does; both are killed in their first."""

    def kill() -> None:
        for child in wait_for(lambda: found if len(found := children(os.getpid())) == 2 else []):
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(GateError, match="3 of 4 files"):
        export(small, pictures, tmp_path, size=(32, 32), precisions=("fp32", "int8"), processes=2)
    killer.join()
    assert {path.name for path in tmp_path.iterdir()} == {"generator-fp32.onnx", "export.json"}


def test_pictures_that_cannot_be_read_end_it_at_once(small, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:60])
    with pytest.raises(PocketganError, match=r"broken\.png"):
        export(small, [broken], tmp_path / "out", size=(32, 32), **ONNX)
    assert not children(os.getpid())


def command(job: Path, out: Path) -> subprocess.Popen:
    line = ["-m", "pocketgan", "export", job / "tiny.pth", "--images", job / "pictures", "--size", "32x32"]
    return subprocess.Popen(
        [sys.executable, *map(str, [*line, "--output-dir", out])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(job, tmp_path, ending):
    running = command(job, tmp_path / "out")
    found = wait_for(lambda: children(running.pid))
    running.send_signal(ending)
    _, said = running.communicate(timeout=30)
    assert running.returncode == (130 if ending == signal.SIGINT else -signal.SIGKILL), said
    _, alive = psutil.wait_procs(found, timeout=20)
    assert not alive


def test_a_network_of_a_script_without_a_main_guard(job, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from torch import nn
            from compressor.generators import Generator, GeneratorSpec, ImageFormat
            from exporters.export import export

            class Mine(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = nn.Conv2d(3, 3, 3, padding=1)

                def forward(self, x):
                    return self.conv(x).tanh()

            spec = GeneratorSpec("custom", {{"factory": "nowhere:mine"}}, ImageFormat(size=(32, 32)))
            made = Generator(spec, Mine().eval().requires_grad_(False), Path("mine.pth"), "0" * 64)
            pictures = sorted(Path({str(job / "pictures")!r}).iterdir())
            result = export(made, pictures, Path("out"), formats=("onnx",), precisions=("fp32",))
            print(result.passed)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "True\n", done.stderr


def test_a_network_that_cannot_be_sent_is_named(small, pictures, tmp_path):
    class Locked(torch.nn.Conv2d):
        def __init__(self):
            super().__init__(3, 3, 1)
            self.lock = threading.Lock()

    held = Generator(small.spec, Locked().eval().requires_grad_(False), small.path, small.sha256)
    with pytest.raises(PocketganError, match=r"(?s)cannot be sent.*--processes 0"):
        export(held, pictures, tmp_path, size=(32, 32), **ONNX)


def test_as_many_processes_as_memory_allows(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for free, expected in ((0, 1), (lanes.MEMORY, 1), (2 * lanes.MEMORY, 2), (9 * lanes.MEMORY, 2)):
        memory = psutil.virtual_memory()._replace(available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert lanes.processes_for(2) == expected
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert lanes.processes_for(2) == 1
