"""The command line: fast to answer, one JSON document, one message for every error."""

from __future__ import annotations

import errno
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import tiny
from click.testing import CliRunner, Result

from compressor.errors import GateError, PocketganError, UsageError
from pocketgan import options
from pocketgan.boundary import explain
from pocketgan.cli import COMMANDS, load_command, main
from pocketgan.options import Answer

REPOSITORY = Path(__file__).resolve().parent.parent


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def process(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pocketgan", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "tiny.pth"
    tiny.write_generator(path)
    return path


# Speed and imports


def seconds(*line: str) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(line, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def test_help_answers_within_0_3_seconds() -> None:
    bare = seconds(sys.executable, "-c", "pass")
    took = seconds(sys.executable, "-m", "pocketgan", "--help")
    assert took < max(0.3, 6 * bare), f"{took:.3f} s; Python alone takes {bare:.3f} s"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["devices", "devices.host", "benchmarks", "exporters", "compressor"])
def test_packages_load_no_torch(package: str) -> None:
    assert not loaded_by(f"import {package}") & {"torch", "onnxruntime", "litert_torch", "skimage"}


def test_help_loads_no_command_and_no_numpy() -> None:
    loaded = loaded_by("from pocketgan.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass")
    assert not {"numpy", "torch", "yaml"} & loaded
    assert not [name for name in loaded if name.startswith("pocketgan.commands.")]


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_loads_no_torch(name: str) -> None:
    code = f"from pocketgan.cli import main\ntry: main([{name!r}, '--help'])\nexcept SystemExit: pass"
    assert not {"torch", "onnxruntime", "skimage"} & loaded_by(code)


# The house's own promises


def test_every_command_file_has_its_name_and_its_line_of_help() -> None:
    files = {path.stem for path in (REPOSITORY / "pocketgan" / "commands").glob("*.py")} - {"__init__"}
    assert files == set(COMMANDS)
    shown = call("--help").stdout
    for name in COMMANDS:
        assert load_command(name).name == name
        assert re.search(rf"^  {name}  ", shown, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_explained(name: str) -> None:
    command = load_command(name)
    assert command.help and len(command.help) > 30
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help and len(parameter.help) > 10, f"{name} {parameter.opts}"
            assert parameter.help[0].isupper() and parameter.help.rstrip("]").endswith((".", "")), (
                parameter.opts
            )
    assert {"--json", "--verbose"} <= {opt for parameter in command.params for opt in parameter.opts}


# Answers


def test_inspect_answers_for_people_and_for_scripts(checkpoint: Path) -> None:
    shown = call("inspect", checkpoint)
    assert shown.exit_code == 0
    document = json.loads(call("inspect", checkpoint, "--json").stdout)
    # 7x7x3x8+8, 3x3x8x16+16, 3x3x16x32+32, 2 (3x3x32x32+32), 3x3x32x16+16, 3x3x16x8+8, 7x7x8x3+3
    parameters = 1184 + 1168 + 4640 + 18496 + 4624 + 1160 + 1179
    assert document["cost"]["parameters"] == parameters
    assert f"{parameters:,}" in shown.stdout and "resnet" in shown.stdout


def test_inspect_takes_another_size(checkpoint: Path) -> None:
    def macs(size: str) -> int:
        document = json.loads(call("inspect", checkpoint, "--json", "--size", size).stdout)
        return int(document["cost"]["macs"])

    assert macs("64x32") * 2 == macs("64x64")


def test_a_chatty_network_leaves_stdout_to_the_answer(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os, torch\n"
        "def net():\n"
        "    print('hello from Python')\n"
        "    os.write(1, b'hello from native code')\n"
        "    return torch.nn.Conv2d(3, 3, 3, padding=1)\n"
    )
    import torch

    torch.save(torch.nn.Conv2d(3, 3, 3, padding=1).state_dict(), tmp_path / "mine.pth")
    done = process("inspect", "mine.pth", "--factory", "mine:net", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cost"]["parameters"] == 3 * 3 * 9 + 3
    assert "hello from Python" in done.stderr and "hello from native code" in done.stderr


def test_a_failed_check_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    @options.command("doctor")
    def answering() -> Answer:
        return Answer("the work", {"work": "done"}, GateError("too far from PyTorch", got=12))

    monkeypatch.setattr("pocketgan.commands.doctor.doctor_command", answering)
    plain, scripted = call("doctor"), call("doctor", "--json")
    assert plain.exit_code == scripted.exit_code == 3
    assert plain.stdout == "the work\n" and "too far from PyTorch" in plain.stderr
    document = json.loads(scripted.stdout)
    assert document["work"] == "done" and document["error"] == "too far from PyTorch"


# Errors


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("prun x", ["'prun'", "did you mean 'prune'"]),
        ("zzz", ["'zzz'", "it is one of: quickstart"]),
        ("prune x --images . --output-dir y", ["--budget"]),
        ("prune x --images . --output-dir y --budget half", ["half", "macs=25%"]),
        ("prune x --images . --output-dir y --budget macs=50% --step 3", ["--step", "--steps"]),
        ("prune x --images . --output-dir y --budget macs=50% --steps 0", ["prune.steps", "1 or more"]),
        ("prune x --images . --output-dir y --budget macs=50% --hypernet gatd", ["prune.hypernet", "gated"]),
        ("export x --images . --output-dir y --precision fp23", ["'fp23'", "'fp32'"]),
        ("export x --images . --output-dir y --format onnx,tflit", ["'tflit'", "did you mean 'tflite'"]),
        ("inspect x --size 64", ["'64'", "HxW"]),
        ("inspect x --input-range 0", ["LO,HI"]),
        ("inspect x --argument norm", ["NAME=VALUE"]),
        ("bench", ["EXPORT_DIR"]),
        ("run recipe.yaml --seed -1", ["--seed"]),
    ],
)
def test_wrong_usage_is_exit_2_and_names_what_is_right(
    line: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    done = call(*line.split())
    assert done.exit_code == 2, done.stderr
    assert "Traceback" not in done.output and done.stdout == ""
    for word in words:
        assert word in done.stderr
    document = json.loads(call(*line.split(), "--json").stdout)
    assert document["exit_code"] == 2 and words[0] in json.dumps(document, ensure_ascii=False)


@pytest.mark.parametrize(
    "line",
    [
        "inspect {here}/none.pth",
        "inspect {here}/junk.pth",
        "inspect {here}/empty",
        "prune {checkpoint} --images {here}/none --budget macs=50% --output-dir {here}/out",
        "prune {checkpoint} --images {here}/empty --budget macs=50% --output-dir {here}/out",
        "distill {checkpoint} --teacher {here}/junk.pth --images {here} --output-dir {here}/out",
        "export {here}/junk.pth --images {here}/empty --output-dir {here}/out",
        "eval {here}/junk.pth --images {here}/empty --teacher {checkpoint}",
        "bench {here}/empty",
        "run {here}/none.yaml",
        "run {here}/junk.pth",
    ],
)
def test_bad_input_is_a_message_and_no_output(line: str, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.pth").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "empty").mkdir()
    done = call(*line.format(here=tmp_path, checkpoint=checkpoint).split(), "--json")
    assert done.exit_code in (1, 2), done.exception
    assert "Traceback" not in done.stderr and "defect" not in done.stderr
    document = json.loads(done.stdout)
    assert document["error"] and document["exit_code"] == done.exit_code
    assert not (tmp_path / "out").exists()


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException, *flags: str) -> Result:
    """What `pocketgan doctor` says when its work raises `error`."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("pocketgan.doctor.diagnose", fail)
    return call("doctor", *flags)


def test_a_defect_says_so_and_keeps_its_traceback_for_v(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = raising(monkeypatch, KeyError("widths"))
    assert quiet.exit_code == 1 and "defect" in quiet.stderr and "Traceback" not in quiet.stderr
    loud = raising(monkeypatch, KeyError("widths"), "-v")
    assert "Traceback" in loud.stderr and "KeyError: 'widths'" in loud.stderr


def test_errors_of_the_user_and_their_exit_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((PocketganError("a"), 1), (UsageError("a"), 2), (GateError("a"), 3)):
        assert raising(monkeypatch, error).exit_code == code


def test_disk_full_is_recognised_through_any_library() -> None:
    line = ["pocketgan", "run", "recipe.yaml"]
    native = RuntimeError("SafetensorError: Error while serializing: No space left on device (os error 28)")
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    for error in (OSError(errno.ENOSPC, "No space left on device", "a.onnx"), native, wrapped):
        known = explain(error, line, can_resume=True)
        assert "disk is full" in known.what and known.exit_code == 1
        assert known.fix and "pocketgan run recipe.yaml --resume" in known.fix


def test_too_little_memory_is_no_defect() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    for error in (MemoryError(), caught.value):
        known = explain(error, ["pocketgan", "prune"], can_resume=False)
        assert known.what == "not enough memory" and known.fix and "--size" in known.fix


def test_a_missing_package_leads_to_the_doctor() -> None:
    known = explain(ModuleNotFoundError("no", name="litert_torch"), ["pocketgan"], can_resume=False)
    assert "litert_torch" in known.what and known.fix == "pocketgan doctor"


def test_ctrl_c_names_the_command_to_go_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pocketgan.recipe.read_recipe", stop)
    done = call("run", tmp_path / "my recipe.yaml")
    assert done.exit_code == 130
    assert f"go on with: pocketgan run '{tmp_path}/my recipe.yaml' --resume" in done.stderr
    assert call("run", "r.yaml", "--resume").stderr.count("--resume") == 1
    document = json.loads(call("run", "r.yaml", "--json").stdout)
    assert document["exit_code"] == 130
    assert "--resume" not in raising(monkeypatch, KeyboardInterrupt()).stderr  # nothing to resume there


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("flag", ["--json", "-v"])
def test_an_answer_that_cannot_be_printed_is_an_error(flag: str) -> None:
    line = [sys.executable, "-m", "pocketgan", "doctor", flag]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "disk is full" in done.stderr


def test_a_reader_that_leaves_is_no_defect() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "pocketgan", "doctor"]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


def test_recipe_and_exporter_agree_on_what_can_be_written() -> None:
    from exporters import export
    from pocketgan import recipe

    assert (recipe.FORMATS, recipe.PRECISIONS) == (export.FORMATS, export.PRECISIONS)
    assert (export.USUAL, tuple(export.ZERO_POINTS)) == (recipe.USUAL, recipe.INTEGERS)


# Doctor


def test_doctor_names_what_is_missing_and_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "onnx":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    document = json.loads(call("doctor", "--json").stdout)
    found = {package["name"]: package for package in document["packages"]}
    assert not found["onnx"]["fits"] and found["onnx"]["installed"] is None
    assert not found["torch"]["fits"] and found["torch"]["installed"] == "1.0"
    assert set(document["blocked"]) == {"compress", "export"} and document["healthy"]
    assert document["mend"].startswith(f"{sys.executable} -m pip install ")
    assert "onnx<2,>=1.18" in document["mend"] and "click" not in document["mend"]


def test_doctor_fails_when_the_base_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == "pillow" else real(name))
    done = call("doctor")
    assert done.exit_code == 1
    assert "WRONG" in done.stdout and "pip install 'pillow" in done.stderr
