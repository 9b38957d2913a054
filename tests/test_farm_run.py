"""`pocketgan farm run` with the real adb and simulated phones: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from farm_load import phones, rows, started, write_plan
from phone import Phone

from benchmarks.exported import list_files
from benchmarks.farm.results import write_results
from benchmarks.farm.store import Store
from benchmarks.on_phone import EMULATED
from compressor.files import read_json, sha256
from devices.adb_server import AdbServer

pytest.importorskip("distributed", reason="pip install 'pocketgan[farm]'")
pytestmark = pytest.mark.usefixtures("gathered")


def test_phones_die_workers_and_the_coordinator_are_killed(adb: AdbServer, tmp_path: Path) -> None:
    files, chance = 8, random.Random(0)
    plan = write_plan(tmp_path, files)
    with phones(adb, tmp_path, 3) as there:
        with started(plan, adb) as first:
            first.wait_for(1)
            there[2].fault = "die"  # in the middle of its next command, and gone for good
            first.kill_a_worker(chance)
            first.wait_for(3)
            family = psutil.Process(first.process.pid).children(recursive=True)
        psutil.wait_procs(family, timeout=20)
        assert not [child for child in family if child.is_running()]  # no orphan holds a phone
        kept = {row.job: row for row in rows(first.store)}
        with started(plan, adb) as second:
            answer = second.end()
        assert answer["code"] == 0, answer
        assert answer["measured"] == files and answer["earlier"] == len(kept) >= 3
        ended = {row.job: row for row in rows(first.store)}
        assert len(ended) == files and all(row.status == "measured" for row in ended.values())
        assert all(ended[job] == row for job, row in kept.items())  # not measured again
        digests = {sha256(path) for path in (tmp_path / "models").iterdir()}
        for phone in there[:2]:
            assert phone.left() == []
            stored = {path.name for path in (phone.data / "pocketgan/objects").iterdir()}
            assert digests.isdisjoint(stored) and len(stored) > 5  # the runner stays, models do not
    with Store(first.store, "plan") as store:
        written = write_results(store, tmp_path / "out")
    assert len(set(written)) == files
    names = {file.path.name for file in list_files([tmp_path / "models"])}
    documents = [read_json(path) for path in written]
    assert all(document["format"] == EMULATED for document in documents)
    assert {series["file"] for document in documents for series in document["series"]} == names


def test_a_worker_removes_what_a_killed_one_left(phone: Phone, adb: AdbServer) -> None:
    from benchmarks.farm.phone_worker import PhonePlugin

    root = phone.data / "pocketgan"
    objects = [root / "objects" / f"{number:064x}" for number in range(3)]
    left = [objects[0] / "a-fp32.onnx", objects[1] / "a model-int8.tflite", root / "session-1/x.part"]
    runner = objects[2] / "libruntime.so"
    for path in (*left, runner):
        path.parent.mkdir(parents=True)
        path.touch()
    plugin = PhonePlugin(phone.serial, None, adb.host, adb.port)
    plugin.setup(None)  # type: ignore[arg-type]  # it keeps the worker for later
    plugin.teardown(None)  # type: ignore[arg-type]
    assert [path for path in root.rglob("*") if path.is_file()] == [runner]
    assert list((root / "objects").iterdir()) == [objects[2]]  # no empty folders


def test_a_second_coordinator_is_refused_while_the_first_lives(adb: AdbServer, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, 1)
    with started(plan, adb) as first:  # there is no phone, so it waits for one
        deadline = time.monotonic() + 60
        while not first.store.with_name("farm.sqlite.lock").exists():
            assert first.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        with started(plan, adb) as second:
            answer = second.end()
        assert answer["code"] == answer["exit_code"] == 2 and "another coordinator" in str(answer["error"])
        assert first.process.poll() is None
        family = psutil.Process(first.process.pid).children(recursive=True)
    psutil.wait_procs(family, timeout=20)  # it was killed, and blocks nobody
    lines = json.loads(plan.read_text()) | {"wait_for_phones": 0.1}
    plan.write_text(json.dumps(lines))
    with started(plan, adb) as third:
        answer = third.end()
    assert answer["code"] == 1 and answer["infrastructure"] == 1


@pytest.mark.acceptance
@pytest.mark.parametrize(("files", "count"), [(500, 40)])
def test_many_files_on_many_phones_a_tenth_dying(
    adb: AdbServer, tmp_path: Path, files: int, count: int
) -> None:
    chance = random.Random(6)
    plan = write_plan(tmp_path, files)
    with phones(adb, tmp_path, count) as there, started(plan, adb) as coordinator:
        coordinator.wait_for(count, 1200)
        began, before = time.monotonic(), coordinator.done()
        when = sorted(chance.sample(range(before + 1, files // 2), count // 10))
        dying = chance.sample(there, count // 10)
        for done, phone in zip(when, dying, strict=True):
            coordinator.wait_for(done, 3600)
            phone.fault = "die"
        coordinator.kill_a_worker(chance)
        coordinator.wait_for(files, 3600)
        seconds = time.monotonic() - began
        answer = coordinator.end(600)
        assert all(phone.fault is None for phone in dying)  # they did die
    ended = rows(coordinator.store)
    assert len({row.job for row in ended}) == len(ended) == files
    assert {row.status for row in ended} <= {"measured", "infrastructure"}
    counted = Counter(row.status for row in ended)
    assert counted["measured"] >= files - count // 10  # a death takes the job along at most, and rarely
    early = max(size for done, size in coordinator.memory if done < files // 5)
    peak = max(size for _, size in coordinator.memory)
    lost = str(answer["said"]).count("adb lost it")
    print(
        f"\n{dict(counted)}, {answer['faults']} faults, {lost} phones lost, {(files - before) / seconds:.2f} "
        f"jobs/s; coordinator {early / 2**20:.0f} MiB at a fifth of the jobs, {peak / 2**20:.0f} MiB at most"
    )
    assert peak - early < 16 * 2**20
