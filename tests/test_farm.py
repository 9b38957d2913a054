"""A farm's parts: plans, the result store, addresses and keys, the scheduling of jobs."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.farm.cluster import Ended, FarmPhone
from benchmarks.farm.coordinator import carry_out
from benchmarks.farm.job import attempt, keep
from benchmarks.farm.link import Link
from benchmarks.farm.plan import Job, Plan, list_jobs
from benchmarks.farm.store import Row, Store
from compressor.errors import PocketganError, UsageError
from devices.local import LocalTransport
from pocketgan.farm_plan import read_plan

pytest.importorskip("sqlalchemy", reason="pip install 'pocketgan[farm]'")

ROW = Row("0" * 32, "a.onnx", "any", "measured", "S1", "SM8650", "host", 1, 2.5, None, {"series": [1.5]})


def models(folder: Path) -> None:
    for name in ("a/one-fp32.onnx", "a/two-int8.onnx", "b/one-fp32.tflite", "b/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())


# Plans


def test_a_file_is_a_job_and_a_folder_is_one_whose_files_take_turns(tmp_path: Path) -> None:
    models(tmp_path)
    plan = Plan(("a/*.onnx", "b"), phones=("any", "soc:SM8650"))
    jobs = list_jobs(plan, tmp_path)
    assert [(job.name, job.target) for job in jobs] == [
        (name, target)
        for name in ("a/one-fp32.onnx", "a/two-int8.onnx", "b")
        for target in ("any", "soc:SM8650")
    ]
    assert [file.group for file in jobs[0].files] == ["a"] and jobs[2].files[0].precision == "int8"
    assert [Path(file.path).name for file in jobs[4].files] == ["one-fp32.tflite"]
    everything = list_jobs(Plan(("a", "b", "**/*.onnx")), tmp_path)
    assert [len(job.files) for job in everything] == [2, 1, 1, 1]


def test_a_jobs_key_names_what_its_figures_depend_on(tmp_path: Path) -> None:
    models(tmp_path)
    plan = Plan(("a/one-fp32.onnx",))
    (job,) = list_jobs(plan, tmp_path)
    same = replace(plan, retries=7, timeout=9.0, wait_for_phones=1.0)
    assert list_jobs(same, tmp_path)[0].key == job.key
    keys = {job.key}
    for other in (replace(plan, rounds=6), replace(plan, phones=("serial:X",)), replace(plan, threads=(2,))):
        keys.add(list_jobs(other, tmp_path)[0].key)
    (tmp_path / "a/one-fp32.onnx").write_bytes(b"another network")
    assert len(keys | {list_jobs(plan, tmp_path)[0].key}) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [a]\nround: 3", ["line 2", "'round'", "did you mean 'rounds'"]),
        ("models: [a]\n\nrounds: 2", ["line 3", "rounds", "5 or more"]),
        ("phones: [any]", ["'models' is missing"]),
        ("models: []", ["line 1", "models is empty"]),
        ("models:\n  - a\n  - zzz/*.onnx", ["line 3", "matches nothing", "zzz/*.onnx"]),
        ("models: [a]\nphones:\n  - pixel", ["phones", "'pixel'", "soc:PART"]),
        ("models: [a]\nrunner: gpu", ["line 2", "runner", "arm64"]),
        ("models: [a]\ntimeout: 0", ["line 2", "timeout", "more than 0"]),
        ("models: &x [a]", ["line 1", "anchors"]),
    ],
)
def test_a_wrong_plan_names_line_and_remedy(text: str, words: list[str], tmp_path: Path) -> None:
    models(tmp_path)
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(tmp_path / "plan.yaml")
    for word in words:
        assert word in str(caught.value)


# The store


def test_a_finished_job_is_written_once_and_a_fault_may_be_made_good(tmp_path: Path) -> None:
    with (
        Store(tmp_path / "farm.sqlite", "nightly") as store,
        Store(tmp_path / "farm.sqlite", "other") as other,
    ):
        fault = replace(ROW, status="infrastructure", document=None, error={"error": "gone"})
        assert store.record(fault) and store.record(fault) and store.finished() == {}
        assert store.record(ROW) and store.finished() == {ROW.job: "measured"}
        for late in (replace(ROW, serial="S2"), fault, replace(ROW, status="refused")):
            assert not store.record(late)
        assert list(store.rows(documents=True)) == [ROW] and list(store.rows()) == [
            replace(ROW, document=None)
        ]
        assert list(other.rows()) == [] and other.record(ROW)
        store.note_attempt(fault)
        assert [row.error for row in store.attempts()] == [{"error": "gone"}] and not list(other.attempts())


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"no database at all" * 100)
    with pytest.raises(PocketganError, match="cannot be used"):
        Store(tmp_path / "junk", "run")
    for url in ("nonsense://x", "not a url", "postgresql+zzz://x/y"):
        with pytest.raises(PocketganError):
            Store(url, "run")
    Store(tmp_path / "farm.sqlite", "run").__exit__()
    with sqlite3.connect(tmp_path / "farm.sqlite") as connection:
        connection.execute("insert into farm_schema values (99)")
    with pytest.raises(PocketganError, match="later pocketgan"):
        Store(tmp_path / "farm.sqlite", "run")


def test_one_coordinator_holds_a_store_however_the_last_one_died(tmp_path: Path) -> None:
    """By processes of their own, the first of which is killed."""
    script = (
        "import sys, pathlib\n"
        "from benchmarks.farm.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1]), 'run') as store, store.alone():\n"
        "    print('holds', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    path = tmp_path / "farm.sqlite"
    line = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "holds\n"
        with Store(path, "run") as store, Store(tmp_path / "other.sqlite", "run") as other, other.alone():
            assert store.record(ROW) and list(store.rows())  # others may look, and even write
            with pytest.raises(UsageError, match="another coordinator") as caught, store.alone():
                pass
            assert caught.value.exit_code == 2
            first.kill()
            first.wait()
            with store.alone():
                assert store.finished() == {ROW.job: "measured"}
            with store.alone():  # and it was let go
                pass


# Addresses and keys


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("farm:8786", "no scheduler"),
        ("tcp://farm", "no scheduler"),
        ("tcp://farm:99999", "no scheduler"),
        ("tcp://$(reboot):1", "no scheduler"),
        ("tls://farm:8786", "--tls-ca"),
        ("tcp://farm:8786", "runs code"),
        ("tcp://192.0.2.1:8786", "runs code"),
    ],
)
def test_a_scheduler_is_reached_safely_or_not_at_all(address: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        Link(address)
    assert word in str(caught.value)


def test_this_machine_and_a_network_of_ones_own_need_no_keys(tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:8786"):
        assert Link(address).scheduler == address
    assert Link("tcp://farm:8786", insecure=True).insecure
    with pytest.raises(UsageError, match="tls://"):
        Link("tcp://127.0.0.1:8786", ca=tmp_path)


# Jobs on their host


@pytest.mark.usefixtures("gathered")
def test_a_job_whose_file_is_not_there_says_so_until_it_is_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.farm.job.cache_folder", lambda: tmp_path / "cache")
    models(tmp_path)
    (job,) = list_jobs(Plan(("a/one-fp32.onnx",)), tmp_path)
    order = job.order(Plan(("a",)))
    content = Path(job.files[0].path).read_bytes()
    Path(job.files[0].path).write_bytes(b"another network")  # the path holds something else on this host
    with_file = LocalTransport(tmp_path)
    assert attempt(order, with_file)["missing"] == [job.files[0].sha256]
    with pytest.raises(PocketganError, match="whole"):
        keep(job.files[0].sha256, "one-fp32.onnx", content[:-1])
    with pytest.raises(PocketganError, match="no SHA-256"):
        keep("../../x", "one-fp32.onnx", content)
    keep(job.files[0].sha256, "one-fp32.onnx", content)
    outcome = attempt(order, with_file)  # found; it is no network, which no other phone would change
    assert outcome["status"] == "failed" and "one-fp32" in outcome["error"]["error"]


# The coordinator, against a farm that fails as a seed says


class Unreliable:
    """Stands for `Farm`: jobs end in any order as measured, refused, in faults or lost."""

    def __init__(self, phones: int, chance: random.Random):
        self.all = [
            FarmPhone(f"tcp://{n}", f"host/{n}", frozenset({"any", ("soc:A", "soc:B")[n % 2]}))
            for n in range(phones)
        ]
        self.chance, self.flying, self.most, self.sent = chance, dict[str, Mapping[str, Any]](), 0, 0

    def phones(self) -> list[FarmPhone]:
        return self.all

    def send(self, order: Mapping[str, Any], workers: Sequence[str] | None = None) -> str:
        self.sent += 1
        self.flying[str(self.sent)] = order
        self.most = max(self.most, len(self.flying))
        return str(self.sent)

    def wait(self, seconds: float) -> list[Ended]:
        if not self.flying:
            return []
        key = self.chance.choice(sorted(self.flying))
        order = self.flying.pop(key)
        how = self.chance.choice(["measured", "refused", "infrastructure", "killed", "lost"])
        if how == "lost":
            return [Ended(key, lost=True)]
        if how == "killed":
            return [Ended(key, fault="KilledWorker")]
        fits = [phone for phone in self.all if order["target"] in phone.kinds]
        return [Ended(key, {"status": how, "serial": fits[0].name, "phone": fits[0].name, "document": {}})]

    def withdraw(self, key: str) -> None:
        del self.flying[key]


@pytest.mark.parametrize(("jobs", "phones"), [(1, 1), (9, 1), (12, 2), (12, 4)])
def test_every_job_ends_once_whatever_the_farm_does(jobs: int, phones: int, tmp_path: Path) -> None:
    plan, chance = Plan(("x",), wait_for_phones=1e-6), random.Random(jobs * phones)
    todo = [Job(f"{n:032}", f"job {n}", ("any", "soc:A", "soc:B")[n % 3], ()) for n in range(jobs)]
    with Store(tmp_path / "farm.sqlite", "run") as store:
        farm = Unreliable(phones, chance)
        result = carry_out(plan, todo, store, farm)  # type: ignore[arg-type]
        rows = list(store.rows())
        assert sorted(row.job for row in rows) == [job.key for job in todo]
        assert sum(result.ended.values()) == jobs and farm.most <= phones and not farm.flying
        if phones == 1:  # nobody is soc:B
            assert {row.status for row in rows if row.target == "soc:B"} <= {"infrastructure"}
        assert all(row.attempts <= plan.retries + 1 for row in rows)
        assert result.faults == len(list(store.attempts()))
        again = carry_out(plan, todo, store, Unreliable(phones, chance))  # type: ignore[arg-type]
        assert again.earlier == sum(row.status != "infrastructure" for row in rows)
