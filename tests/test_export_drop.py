"""INT8 held to true pictures: what a drop is, that it is planned for, and that one too large is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny
from click.testing import CliRunner
from test_export import photos, wild  # noqa: F401 (fixtures)

from compressor.data.images import read_image, to_pixels, to_tensor, write_image
from compressor.errors import GateError, PocketganError, UsageError
from compressor.generators import ImageFormat
from exporters.drop import Drop, Truth
from exporters.export import export, read_export
from pocketgan.cli import main

INT8 = {"formats": ("onnx",), "precisions": ("int8",)}


def test_a_drop_is_float_minus_file_in_db() -> None:
    drop = Drop((("a", 30.0, 29.0), ("b", 28.0, 28.4)), 0.5)
    assert drop.mean == pytest.approx(0.3) and drop.passed  # the file is better on b
    assert not Drop(drop.images, 0.29).passed and Drop((("a", 20.0, 25.0),), 0.1).passed
    assert Drop.from_json(drop.as_json()) == drop


def test_truths_are_cut_as_inputs_are(tmp_path: Path) -> None:
    small = np.random.default_rng(0).integers(0, 255, (20, 30, 3)) / 255
    write_image(tmp_path / "in.png", small.astype(np.float32))
    write_image(tmp_path / "out.png", small.repeat(2, 0).repeat(2, 1).astype(np.float32))
    image = ImageFormat((0.0, 1.0), (0.0, 1.0), size=(20, 20), scale=2)
    found = Truth({tmp_path / "in.png": tmp_path / "out.png"}, image, (20, 20), 0.5).of(tmp_path / "in.png")
    np.testing.assert_allclose(found, small[:, 5:25].repeat(2, 0).repeat(2, 1), atol=1e-6)
    write_image(tmp_path / "out.png", small.astype(np.float32))
    with pytest.raises(PocketganError, match="2 times as large"):
        Truth({tmp_path / "in.png": tmp_path / "out.png"}, image, (20, 20), 0.5).of(tmp_path / "in.png")


def test_a_drop_that_is_met_is_what_the_file_does(wild, photos, tmp_path: Path) -> None:  # noqa: F811
    """The pictures themselves as the truth: rounding hardly matters to a network so far from it."""
    (file,) = export(
        wild,
        photos[:4],
        tmp_path / "out",
        **INT8,
        images_held_out=photos[4:],
        max_drop=0.5,
        reference=photos[0].parent,
    ).files
    assert (
        file.passed
        and file.drop is not None
        and [name for name, *_ in file.drop.images] == ["4.png", "5.png"]
    )
    session = onnxruntime.InferenceSession(tmp_path / "out" / "generator-int8.onnx")
    for path, (_, plain, made) in zip(photos[4:], file.drop.images, strict=True):
        true, x = read_image(path).astype(np.float64), to_tensor(read_image(path), (-1, 1))
        for output, told in (
            (wild.module(x).numpy(), plain),
            (session.run(None, {"input": x.numpy()})[0], made),
        ):
            error = np.mean((to_pixels(output, (-1, 1)) - true) ** 2)
            assert told == pytest.approx(-10 * np.log10(error), abs=1e-4)
    assert file.drop.mean < 0.5 and file.trade[0].drop is not None and file.trade[0].floated == 0
    assert read_export(tmp_path / "out").files[0] == file


def test_a_drop_that_cannot_be_met_keeps_the_best_and_says_so(wild, photos, tmp_path: Path) -> None:  # noqa: F811
    """The network's own pictures as the truth: any rounding is far from them, beside 8 bits."""
    for path in photos:
        output = wild.module(to_tensor(read_image(path), (-1, 1)))
        write_image(tmp_path / "true" / path.name, to_pixels(output, (-1, 1)))
    with pytest.raises(GateError, match=r"dB further from the truth than in float, over 0\.1 dB"):
        export(
            wild, photos[:4], tmp_path / "out", **INT8, images_held_out=photos[4:], max_drop=0.1,
            reference=tmp_path / "true",
        )  # fmt: skip
    (file,) = read_export(tmp_path / "out").files
    assert (tmp_path / "out" / file.file).exists() and not file.passed
    assert file.parity.passed and file.drop.mean > 0.1  # type: ignore[union-attr]
    floats = [point.floated for point in file.trade]
    assert floats == sorted(floats) and len(floats) > 1
    assert all(0 <= point.share <= 0.5 for point in file.trade)
    assert file.trade[-1].psnr > file.trade[0].psnr and file.trade[-1].drop < file.trade[0].drop  # type: ignore[operator]


def test_a_drop_without_its_truth_is_refused(wild, photos, tmp_path: Path) -> None:  # noqa: F811
    for wrong in (
        {"max_drop": 0.5},
        {"reference": photos[0].parent},
        {"max_drop": 0.5, "reference": photos[0].parent, "min_psnr": 40.0},
    ):
        with pytest.raises(UsageError, match="true pictures"):
            export(wild, photos, tmp_path / "out", **INT8, **wrong)
    write_image(tmp_path / "other" / "0.png", read_image(photos[0]))
    with pytest.raises(PocketganError, match="has no partner"):
        export(wild, photos, tmp_path / "out", **INT8, max_drop=0.5, reference=tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_the_commands_words(tmp_path: Path) -> None:
    tiny.write_job(tmp_path)
    line = ["export", str(tmp_path / "tiny.pth"), "--images", str(tmp_path / "pictures"), "--size", "32x32"]
    line += ["--output-dir", str(tmp_path / "out"), "--format", "onnx", "--precision", "int8"]
    for wrong in ("0", "-1", "nan", "much"):
        done = CliRunner().invoke(main, [*line, "--max-drop", wrong])
        assert done.exit_code == 2 and "decibels" in done.stderr
    done = CliRunner().invoke(main, [*line, "--max-drop", "0.5dB"])
    assert done.exit_code == 2 and "--reference DIR" in done.stderr
    done = CliRunner().invoke(main, [*line, "--max-drop", "2dB", "--reference", str(tmp_path / "pictures")])
    assert done.exit_code in (0, 3) and "further from the truth than in float (2 allowed)" in done.stdout
