"""A whole `pocketgan run` killed again and again at any moment, resumed, and compared with one left alone.

    python -m benchmarks.chaos --kills 50 --record benchmarks/results/chaos.json

The quickstart's generator and photographs, with few steps and small pictures: six files of the result, two
of the original, in ONNX and TFLite. Each time the run is killed with SIGKILL at a
random moment, every other time together with the processes that it started, and goes on with --resume; a run
that reaches its end is compared, and another one begins until the kills are used up. What the runs found must
be the same: models and exported files byte for byte, records but for times. A stopped call goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from compressor.errors import PocketganError
from compressor.files import read_json, sha256, write_json
from compressor.progress import Progress

STEPS = (
    "generator.size=[128, 128]", "prune.steps=24", "distill.steps=24", "prune.crop=64", "distill.crop=64",
    "export.calibration=4", "bench.rounds=5", "bench.threads=[1]",
)  # fmt: skip
TIMES = {  # keys of records that say when, how long, how much memory, or by which call
    "seconds", "ended", "command", "began", "peak_mb", "init_ms", "first_ms", "warmup_ms", "samples_ms",
    "peak_rss_mb", "base_rss_mb", "load_before", "load_after", "rounds", "time", "date",
}  # fmt: skip
UNCOMPARED = (".lock", "report.html")  # the page shows times on every line
_PART = 2  # a process lives for up to this part of an undisturbed run, and its start
_PREPARE = "import pathlib, sys; from pocketgan.quickstart.prepare import prepare; "
_PREPARE += "prepare(pathlib.Path(sys.argv[1]), resume=True)"
_FINISHED = (0, 3)  # 3: so little training may leave too little parity, but always the same


@click.command()
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Further settings of the recipe.")
@click.option(
    "--output-dir", "output", type=click.Path(path_type=Path), default=Path("runs/chaos"), show_default=True
)
@click.option("--record", type=click.Path(path_type=Path), help="File for what happened, as JSON.")
def main(kills: int, seed: int, settings: tuple[str, ...], output: Path, record: Path | None) -> None:
    """Kill, resume and compare, and print what happened."""
    output = output.absolute()
    line = [*(part for value in (*STEPS, *settings) for part in ("--set", value))]
    told = _settled(output, {"seed": seed, "settings": [*STEPS, *settings]})
    subprocess.run([sys.executable, "-c", _PREPARE, str(output / "job")], check=True)
    if "whole" not in told:
        told["whole"] = _undisturbed(output, line)
        write_json(output / "chaos.json", told)
    with Progress("chaos", kills, start=len(told["kills"])) as progress:
        while len(told["kills"]) < kills or told["open"]:
            code = _one_life(output, line, told, kill=len(told["kills"]) < kills)
            if code is not None:
                _compare(output, told, code)
            write_json(output / "chaos.json", told)
            progress.update(min(len(told["kills"]), kills), runs=len(told["runs"]))
    if record is not None:
        write_json(record, {**_circumstances(), **told})
    click.echo(summary(told))
    if any(run["differing"] for run in told["runs"]):
        raise SystemExit(1)


def _settled(output: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call left, or a new record."""
    if not (output / "chaos.json").exists():
        return {**asked, "kills": [], "runs": [], "open": False}
    told: dict[str, Any] = read_json(output / "chaos.json")
    if {key: told[key] for key in asked} != asked:
        raise PocketganError(
            f"{output} was begun with another seed or other settings",
            got=asked,
            allowed={key: told[key] for key in asked},
            fix="go on with those, or choose another --output-dir",
        )
    return told


def _undisturbed(output: Path, line: list[str]) -> dict[str, Any]:
    """Seconds until a run writes its first file, and of all of it."""
    folder = output / "whole"
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was stopped: this run has no breaks
    began, start = time.monotonic(), 0.0
    process = _begin(output, folder, line)
    try:
        while process.poll() is None:
            if not start and (folder / "stages.json").exists():
                start = time.monotonic() - began
            time.sleep(0.02)
    finally:
        _end(process, alone=False)
    if process.returncode not in _FINISHED:
        raise PocketganError("the undisturbed run failed", got=_said(output))
    return {
        "code": process.returncode,
        "start": round(start, 2),
        "seconds": round(time.monotonic() - began, 2),
    }


def _one_life(output: Path, line: list[str], told: dict[str, Any], *, kill: bool) -> int | None:
    """One process of the run, killed at its moment; the exit code of one that came to its end before."""
    folder, number = output / "cut", len(told["kills"])
    if not told["open"]:
        shutil.rmtree(folder, ignore_errors=True)
        told["open"] = True
        write_json(output / "chaos.json", told)
    moments = random.Random(f"{told['seed']} {number} {len(told['runs'])}")
    patience = moments.uniform(0, told["whole"]["start"] + told["whole"]["seconds"] / _PART)
    alone = moments.random() < 0.5
    _wait_for_orphans(folder)
    began = time.monotonic()
    process = _begin(output, folder, line)
    try:
        process.wait(patience if kill else None)
    except subprocess.TimeoutExpired:
        _end(process, alone=alone)
        lived = round(time.monotonic() - began, 2)
        hit = {"run": len(told["runs"]), "stage": _stage(folder), "seconds": lived, "alone": alone}
        told["kills"].append(hit)
        return None
    except BaseException:
        _end(process, alone=False)
        raise
    if process.returncode not in _FINISHED:
        raise PocketganError(f"a resumed run failed after {number} kills", got=_said(output))
    return process.returncode


def _begin(output: Path, folder: Path, line: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pocketgan", "run", str(output / "job" / "recipe.yaml"), "--resume"]
    with (output / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--output-dir", str(folder), *line], stdout=log, stderr=log, start_new_session=True
        )


def _end(process: subprocess.Popen[bytes], *, alone: bool) -> None:
    """SIGKILL to a process, or to all of its session."""
    with contextlib.suppress(ProcessLookupError):
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_orphans(folder: Path) -> None:
    """A run of a call that was itself killed may still hold the folder."""
    if (folder / ".lock").exists():
        with (folder / ".lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def _stage(folder: Path) -> str:
    """The stage that a kill hit: the last one begun, or what is between it and the next."""
    if not (folder / "stages.json").exists():
        return "start"
    name, state = list(read_json(folder / "stages.json").items())[-1]
    return name if state["state"] == "running" else f"after {name}"


def _said(output: Path) -> str:
    return (output / "log").read_text(errors="replace")[-1500:]


def _compare(output: Path, told: dict[str, Any], code: int) -> None:
    differing = differences(output / "whole", output / "cut")
    differing += ["the exit code"] if code != told["whole"]["code"] else []
    if differing:
        shutil.copytree(output / "cut", output / f"differs-{len(told['runs'])}", dirs_exist_ok=True)
    kills = sum(kill["run"] == len(told["runs"]) for kill in told["kills"])
    told["runs"].append({"kills": kills, "differing": differing})
    told["open"] = False


def differences(left: Path, right: Path) -> list[str]:
    """Names of the files that differ between two run folders by more than times."""
    names = [
        {str(path.relative_to(side)) for path in side.rglob("*") if path.is_file()} for side in (left, right)
    ]
    odd = [f"{name}, which only one has" for name in sorted(names[0] ^ names[1])]
    both = sorted(name for name in names[0] & names[1] if name not in UNCOMPARED)
    return odd + [name for name in both if _content(left / name, left) != _content(right / name, right)]


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(json.dumps(_timeless(read_json(path))).replace(str(folder), "RUN"))
    if path.suffix == ".yaml":
        return path.read_text(encoding="utf-8").replace(str(folder), "RUN")
    return sha256(path)


def _timeless(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _timeless(value) for key, value in document.items() if key not in TIMES}
    return [_timeless(item) for item in document] if isinstance(document, list) else document


def _circumstances() -> dict[str, Any]:
    from devices.host import facts

    command = ["python", "-m", "benchmarks.chaos", *sys.argv[1:]]
    return {"command": command, "date": time.strftime("%Y-%m-%d"), "machine": facts().as_json()}


def summary(told: dict[str, Any]) -> str:
    """What happened, in a few lines."""
    stages = Counter(kill["stage"] for kill in told["kills"])
    alone = sum(kill["alone"] for kill in told["kills"])
    kills, runs, whole = len(told["kills"]), len(told["runs"]), told["whole"]["seconds"]
    lines = [
        f"{kills} kills over {runs} runs; undisturbed, a run takes {whole:.0f} s",
        f"{alone} killed the run alone, the others its processes too",
        "hit: " + ", ".join(f"{stage} {count}" for stage, count in stages.most_common()),
    ]
    for number, run in enumerate(told["runs"]):
        said = ", ".join(run["differing"]) or "identical"
        lines.append(f"run {number}: {run['kills']} kills, {said}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
