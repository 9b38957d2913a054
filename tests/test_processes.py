"""Several processes that train together come to what one process comes to, and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes
from safetensors.torch import load_file

from compressor.errors import UsageError
from compressor.options import PruneOptions
from compressor.training import ranks

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform != "linux", reason="needs torch.distributed's gloo"
)


def _environment() -> dict[str, str]:
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same jobs done by one process (in `one`) and by two (in `two`)."""
    data = tmp_path_factory.mktemp("processes")
    two_processes.write_inputs(data)
    one = data / "one"
    with pytest.MonkeyPatch.context() as patched:
        two_processes.calm(patched.setattr)
        (data / "student").symlink_to(one / "prune")
        for name, job in two_processes.JOBS.items():
            job(data, one / name)
    done = subprocess.run(
        [sys.executable, HERE / "two_processes.py", data], env=_environment(), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return data


def apart(ours: Path, theirs: Path) -> float:
    """The largest difference between two files of weights, which must have equal names and shapes."""
    a, b = load_file(ours), load_file(theirs)
    assert {name: value.shape for name, value in a.items()} == {name: b[name].shape for name in b}
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("model", ["prune", "distil", "pix2pix"])
def test_two_processes_come_to_what_one_does(folder, model):
    one, two = folder / "one" / model, folder / "two" / model
    assert apart(one / "weights.safetensors", two / "weights.safetensors") < 1e-5
    assert (one / "architecture.json").read_text() == (two / "architecture.json").read_text()
    ours, theirs = records(one), records(two)
    compare(ours.pop("trajectory"), theirs.pop("trajectory"))
    if model != "distil":  # whose record has more losses, compared above
        assert ours == theirs


def test_two_processes_learn_the_ranges_that_one_does(folder):
    """Nearer to each other than to where they began: 2e-5 of the widest range."""
    one, two = folder / "one" / "qat", folder / "two" / "qat"
    assert apart(one / "weights.safetensors", two / "weights.safetensors") < 1e-5
    ours, theirs = (json.loads((side / "quantisation.json").read_text())["layers"] for side in (one, two))
    assert ours.keys() == theirs.keys() and len(ours) > 5
    for name, layer in ours.items():
        for part, span in layer.items():
            if span is not None:
                assert theirs[name][part] == pytest.approx(span, rel=5e-6, abs=1e-7), (name, part)


@pytest.mark.parametrize("name", ["A_to_B", "B_to_A"])
def test_two_processes_play_cyclegan_as_one(folder, name):
    """The pools are shared, or the second step would differ. (Later ones do: its L1 distances double the
    rounding errors of such small pictures with every step.)"""
    ours, theirs = (records(folder / count / "cyclegan" / name) for count in ("one", "two"))
    compare(ours["trajectory"][:4], theirs["trajectory"][:4])
    assert ours["layers"] == theirs["layers"]


def test_two_processes_search_as_one(folder):
    one, two = folder / "one" / "search", folder / "two" / "search"
    assert apart(one / "weights.safetensors", two / "weights.safetensors") < 1e-5
    ours, theirs = (json.loads((side / "search.json").read_text()) for side in (one, two))
    compare(ours["trajectory"], theirs["trajectory"])
    compare(*([flat(each) for each in side["candidates"]] for side in (ours, theirs)))
    assert ours["positions"] == theirs["positions"]


def flat(candidate: dict[str, Any]) -> dict[str, Any]:
    """Every figure of a candidate by a name of its own."""
    return {
        f"{name}{index}": value
        for name, values in candidate.items()
        for index, value in enumerate(values if isinstance(values, list) else [values])
    }


def records(model: Path) -> dict[str, Any]:
    record = model / "prune.json"
    document: dict[str, Any] = json.loads((record if record.exists() else model / "distill.json").read_text())
    return document


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for here, there in zip(ours, theirs, strict=True):
        assert here.pop("phase", "") == there.pop("phase", "")
        assert here == pytest.approx(there, rel=1e-4, abs=1e-5)


def test_discriminators_with_batch_norm_agree_too(folder):
    """Pix2Pix's has batch statistics, which are taken over the slices of all processes."""
    one, two = (folder / count / "pix2pix" / "discriminator.safetensors" for count in ("one", "two"))
    assert apart(one, two) < 1e-5
    assert any("running_var" in name for name in load_file(one))


def test_a_killed_group_goes_on_to_the_same_result(folder):
    whole, part = folder / "two" / "prune", folder / "two" / "part"
    for name in ("weights.safetensors", "prune.json", "architecture.json"):
        assert (whole / name).read_bytes() == (part / name).read_bytes()
    assert not (part / "checkpoint.pt").exists()


def test_the_death_of_one_stops_the_others(folder):
    took, message = (folder / "two" / "bereaved.txt").read_text().split("\n", 1)
    assert "another process of this training stopped" in message and "--resume" in message
    assert float(took.removesuffix(" s")) < 60


def test_processes_with_different_inputs_refuse_to_start(folder):
    for number in range(2):
        assert "differ in the pictures" in (folder / "two" / f"estranged{number}.txt").read_text()


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    ranks.check_batch("prune", 3, 1)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match="multiples of 2: 2, 4, 6"):
        ranks.check_batch("prune", 3, 1)
    with pytest.raises(UsageError, match="2 processes and accumulate 2"):
        ranks.check_batch("prune", 6, 2)
    ranks.check_batch("prune", 8, 2)
    with pytest.raises(UsageError, match="micro-batches"):
        PruneOptions(batch=3, accumulate=2)


def test_torchrun_prunes_and_rank_0_alone_answers(folder):
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pocketgan"]
    small = ["prune", folder / "small.safetensors", "--factory", two_processes.FACTORY, "--size", "32x32"]
    small += ["--multiple", "4", "--images", folder / "A", "--budget", "macs=50%", "--steps", "8", "--json"]
    out = ["--output-dir", folder / "torchrun", "--device", "cpu"]
    done = subprocess.run(
        list(map(str, [*line, *small, *out])), env=_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)  # one document, not two
    assert answer == {"folder": str(out[1]), **json.loads((out[1] / "prune.json").read_text())}
    assert answer["share"] <= 0.5 and done.stderr.count("prune: 8 to do") == 1


def test_what_several_processes_cannot_do_is_refused(monkeypatch):
    from click.testing import CliRunner

    from pocketgan.cli import main

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    result = CliRunner().invoke(main, ["bench", "."])
    assert result.exit_code == 2 and "several processes cannot bench together" in result.output
    monkeypatch.setenv("RANK", "1")
    assert CliRunner().invoke(main, ["bench", "."]).output == ""  # rank 0 has said it
