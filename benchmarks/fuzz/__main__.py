"""Readers of checkpoints, settings, records, phones' answers and exported files, fed with damaged inputs.

    python -m benchmarks.fuzz --examples 10000 --record benchmarks/results/fuzz.json

Good files are damaged in their bytes, their lines and words, and the trees they mean (hypothesis draws how).
A reader may take what comes or refuse it with an error of ours. Another error, a crash, 20 s of processor
time, 1 GiB of memory, or a program started by a file is a finding, whose input is kept. A stopped call goes
on.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.fuzz.batch import HELD_MB, LONGEST
from benchmarks.fuzz.targets import TARGETS
from compressor.errors import PocketganError
from compressor.files import read_json, write_json
from compressor.progress import Progress

BATCH = 2500
_SILENT = 300.0  # seconds without a new input after which a batch hangs in code that no signal reaches
_DEATHS = 20  # of a target's processes after which it is left


@click.command()
@click.option("--examples", default=10_000, show_default=True, help="Inputs of each target.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(TARGETS)), help="These targets.")
@click.option(
    "--output-dir", "output", type=click.Path(path_type=Path), default=Path("runs/fuzz"), show_default=True,
    help="Batches done, and the inputs of findings.",
)  # fmt: skip
@click.option("--record", type=click.Path(path_type=Path), help="File for the counts as JSON.")
def main(examples: int, seed: int, only: tuple[str, ...], output: Path, record: Path | None) -> None:
    """Read what is missing of the inputs, and print and record all counts."""
    rows: dict[str, Any] = {}
    with Progress("fuzz", examples * len(only or TARGETS)) as progress:
        for name in only or TARGETS:
            before = sum(row["inputs"] for row in rows.values())
            for row in batches(name, examples, seed, output / name.replace(" ", "-")):
                rows[name] = row
                progress.update(before + row["inputs"], target=name, findings=len(row["findings"]))
    if record is not None:
        write_record(record, rows, examples, seed)
    click.echo(table(rows))
    if any(row["findings"] for row in rows.values()):
        raise SystemExit(f"there are findings; their inputs lie in {output}")


def batches(name: str, examples: int, seed: int, folder: Path) -> Any:
    """Yield a target's counts after each batch, those of an earlier call included."""
    done: list[dict[str, Any]] = []
    number = deaths = 0
    while sum(part["inputs"] for part in done) < examples and deaths < _DEATHS:
        kept = folder / f"{number:03}.json"
        if not kept.exists():
            size = min(BATCH, examples - sum(part["inputs"] for part in done))
            write_json(kept, batch(name, size, 1000 * seed + number, folder / f"findings-{number:03}"))
        done.append(read_json(kept))
        deaths += bool(done[-1].get("died"))
        number += 1
        yield merged(name, done)


def batch(name: str, examples: int, seed: int, keep: Path) -> dict[str, Any]:
    """One batch in a process of its own; `keep` gets the inputs of its findings.

    Raises:
        PocketganError: it could not begin.
    """
    with tempfile.TemporaryDirectory(prefix="pocketgan-fuzz-") as scratch:
        folder, began = Path(scratch) / name, time.monotonic()
        log = Path(scratch) / "log"
        command = [sys.executable, "-m", "benchmarks.fuzz.batch", scratch, str(examples), str(seed), name]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
            try:
                died = _wait(process, folder / "count")
            finally:
                process.kill()
                process.wait()
        if (folder / "batch.json").exists():
            found: dict[str, Any] = read_json(folder / "batch.json")
        else:
            said = log.read_text(errors="replace").strip().splitlines()[-1:]
            if not (folder / "count").exists() or "KeyboardInterrupt" in said:
                raise PocketganError(f"fuzzing {name} could not begin", got=f"{died}: {''.join(said)}")
            (folder / "findings").mkdir(exist_ok=True)
            shutil.copytree(folder / "input", folder / "findings" / "death")
            last = {"kind": died, "place": "the process", "message": "".join(said)[:300], "count": 1}
            inputs = int((folder / "count").read_text() or 0) + 1
            found = {"inputs": inputs, "accepted": 0, "refused": 0, "added_mb": 0.0, "died": died}
            found["processor_seconds"] = 0.0
            found |= {"seconds": round(time.monotonic() - began, 1), "findings": [{**last, "input": "death"}]}
        if (folder / "findings").exists():
            shutil.copytree(folder / "findings", keep, dirs_exist_ok=True)
        return found


def _wait(process: subprocess.Popen[bytes], count: Path) -> str:
    """Wait for a batch; how it ended."""
    seen, since = -1.0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        stamp = count.stat().st_mtime if count.exists() else 0.0
        if stamp != seen:
            seen, since = stamp, time.monotonic()
        elif time.monotonic() - since > _SILENT:
            return "hang"
    code = process.returncode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def merged(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all batches of a target; equal findings are counted together."""
    findings: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        for each in part["findings"]:
            same = findings.setdefault((each["kind"], each["place"]), {**each, "count": 0})
            same["count"] += each["count"]
    sums = {key: sum(part[key] for part in parts) for key in ("inputs", "accepted", "refused")}
    sums |= {key: round(sum(part[key] for part in parts), 1) for key in ("seconds", "processor_seconds")}
    most = max(part["added_mb"] for part in parts)
    told = {"reads": TARGETS[name].reads, **sums, "added_mb": most}
    return {**told, "findings": list(findings.values())}


def write_record(path: Path, rows: dict[str, Any], examples: int, seed: int) -> None:
    """The counts with what they were taken on."""
    import hypothesis

    from devices.host import facts

    head = {
        "command": ["python", "-m", "benchmarks.fuzz", *sys.argv[1:]],
        "date": time.strftime("%Y-%m-%d"),
        "hypothesis": hypothesis.__version__,
        "machine": facts().as_json(),
        "examples": examples,
        "seed": seed,
        "limits": {"processor_seconds": LONGEST, "added_mb": HELD_MB},
    }
    write_json(path, {**head, "targets": rows})


def table(rows: dict[str, Any]) -> str:
    """The counts as Markdown."""
    head = ("reader", "inputs", "read", "refused", "findings", "most memory added", "seconds", "of processor")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows.values():
        lines.append(
            f"| {row['reads']} | {row['inputs']:,} | {row['accepted']:,} | {row['refused']:,} | "
            f"{len(row['findings'])} | {row['added_mb']:.0f} MiB | {row['seconds']:.0f} | "
            f"{row['processor_seconds']:.0f} |"
        )
    for row in rows.values():
        lines += [
            f"- {f['kind']} at {f['place']}, {f['count']} times: {f['message']}" for f in row["findings"]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
