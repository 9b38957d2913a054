"""Files, pictures and sizes that are not what they should be: each ends in a message that says what to do."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from small_files import write_onnx, write_tflite

from compressor.errors import PocketganError, UsageError
from compressor.generators.spec import ImageFormat
from exporters.apply.painter import open_file
from pocketgan.cli import main

RANGES = {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)}
OPTIONS = ("--input-range", "0,1", "--output-range", "0,1")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def explained(done: Result, code: int) -> str:
    """What a failed call said, after checking that it is a message with a next step and no defect."""
    assert done.exit_code == code, (done.exit_code, done.stderr)
    assert "defect" not in done.stderr and "Traceback" not in done.stderr
    assert "got:" in done.stderr and ("next:" in done.stderr or "allowed:" in done.stderr), done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    write_onnx(folder / "a.onnx")
    write_tflite(folder / "a.tflite")
    return {kind: (folder / f"a.{kind}").read_bytes() for kind in ("onnx", "tflite")}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.pth and pictures/."""
    folder = tmp_path_factory.mktemp("job")
    tiny.write_job(folder)
    return folder


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["onnx", "tflite"]), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(
    whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, kind: str, share: float
) -> None:
    path = tmp_path_factory.mktemp("cut") / f"cut.{kind}"
    path.write_bytes(whole[kind][: int(share * len(whole[kind]))])
    with pytest.raises(PocketganError) as caught:
        open_file(path, RANGES)
    assert caught.value.got and caught.value.allowed and caught.value.fix and path.name in caught.value.what


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["onnx", "tflite"]), content=st.binary(max_size=2000))
def test_random_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("random") / f"random.{kind}"
    path.write_bytes(content)
    with pytest.raises(PocketganError, match=path.name):
        open_file(path, RANGES)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_damaged_bytes_never_escape_as_another_error(whole, tmp_path: Path, kind: str) -> None:
    chance = random.Random(0)
    for number in range(40):
        content = bytearray(whole[kind])
        for _ in range(chance.choice((1, 5, 30))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(content)
        try:
            open_file(path, RANGES).paint(np.full((32, 32, 3), 0.5, np.float32))
        except PocketganError as error:
            assert error.what


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n....", "a PNG picture"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1c\0\0\0TFL3" + bytes(40), "a TFLite file"),
    ],
    ids=["empty", "png", "html", "lfs", "tflite"],
)
@pytest.mark.parametrize(
    "line",
    [
        "apply {}.onnx pictures --output-dir out",
        "apply {}.tflite pictures --output-dir out",
        "search --teacher {}.onnx --images pictures --budget macs=1G --output-dir out",
        "distill tiny.pth --teacher {}.tflite --images pictures --output-dir out",
        "eval tiny.pth --teacher {}.onnx --images pictures",
    ],
)
def test_what_a_file_is_instead_is_said(job, tmp_path, monkeypatch, content, words, line) -> None:
    monkeypatch.chdir(job)
    for kind in ("onnx", "tflite"):
        (tmp_path / f"x.{kind}").write_bytes(content)
    assert words in explained(call(*line.format(tmp_path / "x").split()), 1)
    assert not (job / "out").exists()


def model(path: Path, kind: int, shape: list[int], *nodes: onnx.NodeProto, outputs: int = 1) -> Path:
    """An ONNX file of input "in" and outputs "out0", ..."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["in"], [f"out{i}"]) for i in range(outputs)],
        "g",
        [helper.make_tensor_value_info("in", kind, shape)],
        [helper.make_tensor_value_info(f"out{i}", kind, None) for i in range(outputs)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def two_inputs(path: Path) -> Path:
    write_onnx(path, inputs=2)
    return path


def pooled(path: Path) -> Path:
    """One number a channel: a classifier's end."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["in"], ["p"]),
        helper.make_node("Flatten", ["p"], ["out0"]),
    ]
    return model(path, TensorProto.FLOAT, [1, 3, 8, 8], *nodes)


FLOAT = TensorProto.FLOAT
FOREIGN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two inputs": (two_inputs, "2 inputs"),
    "two outputs": (lambda p: model(p, FLOAT, [1, 3, 8, 8], outputs=2), "several outputs"),
    "integers": (lambda p: model(p, TensorProto.INT64, [1, 3, 8, 8]), "of a kind we do not feed"),
    "text": (lambda p: model(p, TensorProto.STRING, [1, 3, 8, 8]), "of a kind we do not feed"),
    "a vector": (lambda p: model(p, FLOAT, [1, 10]), "does not take one picture"),
    "a batch": (lambda p: model(p, FLOAT, [4, 3, 8, 8]), "several pictures at once"),
    "a classifier": (pooled, "does not answer with a picture"),
    "seven channels": (lambda p: model(p, FLOAT, [1, 7, 8, 8]), "7 channels in"),
    "halved": (
        lambda p: model(
            p,
            FLOAT,
            [1, 3, 8, 8],
            helper.make_node("AveragePool", ["in"], ["out0"], kernel_shape=[2, 2], strides=[2, 2]),
        ),
        "by a whole number",
    ),
    "an unknown operator": (
        lambda p: model(p, FLOAT, [1, 3, 8, 8], helper.make_node("Magic", ["in"], ["out0"], domain="x.y")),
        "Magic",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_networks_that_are_no_generators(job, tmp_path: Path, name: str) -> None:
    make, words = FOREIGN[name]
    path = make(tmp_path / "foreign.onnx")
    done = call("apply", path, job / "pictures", "--output-dir", tmp_path / "out", *OPTIONS)
    assert words in explained(done, 2 if name == "seven channels" else 1)
    assert not (tmp_path / "out").exists()


def test_a_tflite_file_of_several_networks_or_outputs(job, tmp_path: Path) -> None:
    import litert_torch
    import torch
    from torch import nn

    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, x + 1

    example = (torch.zeros(1, 3, 16, 16),)
    network = nn.Conv2d(3, 3, 3, padding=1).eval()
    both = litert_torch.signature("one", network, example).signature("two", network, example).convert()
    both.export(str(tmp_path / "signatures.tflite"))
    litert_torch.convert(Both().eval(), example).export(str(tmp_path / "outputs.tflite"))
    for name, words in (("signatures", "one, two"), ("outputs", "several outputs")):
        path = tmp_path / f"{name}.tflite"
        done = call("apply", path, job / "pictures", "--output-dir", tmp_path / "out", *OPTIONS)
        assert words in explained(done, 1)


def test_without_metadata_ranges_must_be_said(whole, job, tmp_path: Path) -> None:
    (tmp_path / "bare.onnx").write_bytes(whole["onnx"])
    line = ("apply", tmp_path / "bare.onnx", job / "pictures", "--output-dir", tmp_path / "out")
    done = call(*line)
    assert done.exit_code == 1 and "--input-range LO,HI" in done.stderr
    assert call(*line, *OPTIONS).exit_code == 0


@pytest.mark.parametrize("command", ["export", "prune", "inspect"])
def test_an_exported_file_is_no_checkpoint(whole, job, tmp_path: Path, command: str) -> None:
    (tmp_path / "a.tflite").write_bytes(whole["tflite"])
    rest = {
        "export": ("--images", job / "pictures", "--output-dir", tmp_path / "out"),
        "prune": ("--images", job / "pictures", "--budget", "macs=50%", "--output-dir", tmp_path / "out"),
        "inspect": (),
    }[command]
    done = call(command, tmp_path / "a.tflite", *rest)
    assert done.exit_code == 2 and "is an exported file" in done.stderr and "pocketgan apply" in done.stderr
    assert not (tmp_path / "out").exists()


def test_eval_compares_with_an_exported_file(whole, job, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(whole["onnx"])
    done = call(
        "eval", job / "tiny.pth", "--teacher", tmp_path / "a.onnx", "--images", job / "pictures",
        "--size", "32x32", *OPTIONS,
    )  # fmt: skip
    assert done.exit_code == 0 and "median PSNR" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("--size", "30x32"), "multiples of 4"),
        (("--size", "0x0"), "multiples of 4"),
        (("--size", "4x4"), "does not take a picture of 4x4"),  # a norm over one pixel
        (("--channels", "1,1"), "with 1 channels"),
        (("--channels", "4,3"), "1 (grey) or 3 (colour)"),
        (("--scale", "4"), "(1, 3, 128, 128)"),
        (("--input-range", "0,0"), "two different numbers"),
        (("--output-range", "nan,1"), "two different numbers"),
    ],
)
def test_what_the_network_cannot_take_is_a_usage_error(job, tmp_path: Path, said, words) -> None:
    size = () if "--size" in said else ("--size", "32x32")
    out = tmp_path / "out"
    done = call("export", job / "tiny.pth", "--images", job / "pictures", "--output-dir", out, *size, *said)
    assert words in explained(done, 2)
    assert not out.exists()


def test_broken_pictures_are_all_named_before_anything_is_made(job, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    good = sorted((job / "pictures").iterdir())
    for path in good:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "1.png").write_bytes(good[1].read_bytes()[:200])  # one to calibrate on
    (folder / "2.png").write_bytes(b"")  # one to compare on
    line = (
        "export",
        job / "tiny.pth",
        "--images",
        folder,
        "--output-dir",
        tmp_path / "out",
        "--size",
        "32x32",
    )
    said = explained(call(*line), 1)
    assert "2 of 5 pictures" in said and "1.png" in said and "2.png" in said and "3.png" not in said
    assert not (tmp_path / "out").exists()
    for path in folder.iterdir():
        path.unlink()
    done = call(*line)
    assert done.exit_code == 1 and "holds no pictures" in done.stderr and not (tmp_path / "out").exists()


@given(st.floats() | st.just(0.5), st.floats() | st.just(0.5))
def test_ranges_are_two_different_numbers(low: float, high: float) -> None:
    fine = np.isfinite(low) and np.isfinite(high) and low != high
    for name in ("input_range", "output_range"):
        if fine:
            assert getattr(ImageFormat(**{name: (low, high)}), name) == (low, high)  # type: ignore[arg-type]
        else:
            with pytest.raises(UsageError, match="two different numbers"):
                ImageFormat(**{name: (low, high)})  # type: ignore[arg-type]
