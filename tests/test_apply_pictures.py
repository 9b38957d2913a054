"""`pocketgan apply` as a user runs it: real files and runtimes, pictures of every kind, stops and damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tiny
from click.testing import CliRunner, Result
from PIL import Image
from small_files import write_onnx, write_tflite

from exporters.apply.apply import apply
from exporters.apply.painter import open_file
from exporters.apply.pictures import Picture, enlarged_rows, read_picture
from exporters.apply.record import JOURNAL
from pocketgan.cli import main
from pocketgan.commands.apply import targets

RANGES = ("--input-range", "0,1", "--output-range", "0,1")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A 32x32 ONNX file of two 3x3 convolutions, and its weights."""
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    return path, write_onnx(path)


def whole(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """What the model's convolutions make of (H, W, 3) in [0, 1], by another implementation."""
    import torch

    first, second = (torch.from_numpy(part) for part in np.split(weights, 2))
    x = torch.from_numpy(np.moveaxis(pixels, 2, 0)[None].astype(np.float32))
    middle = torch.relu(torch.conv2d(x, first.reshape(8, 3, 3, 3), padding=1))
    made = torch.conv2d(middle, second.reshape(3, 8, 3, 3), padding=1)
    return np.moveaxis(made[0].numpy(), 0, 2).clip(0, 1)


def photo(height: int, width: int, bands: int = 3, dtype: type = np.uint8) -> np.ndarray:
    steps = np.random.default_rng(height).random((height // 4 + 1, width // 4 + 1, bands))
    grown = steps.repeat(4, 0).repeat(4, 1)[:height, :width]
    return np.asarray(grown * np.iinfo(dtype).max, dtype)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
    kind = "rgb16" if pixels.dtype == np.uint16 else "srgb"
    image.copy(interpretation=kind).write_to_file(str(path))
    return path


def test_a_fixed_size_file_paints_a_larger_picture_as_if_it_were_not(model, tmp_path: Path) -> None:
    path, weights = model
    pixels = photo(95, 70)
    save(tmp_path / "in" / "deep" / "a.png", pixels)
    done = call("apply", path, tmp_path / "in", "--output-dir", tmp_path / "out", *RANGES, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["reach"]["context"] == 2 and document["reach"]["multiple"] == 1  # two 3x3 convolutions
    (picture,) = document["pictures"]
    assert picture["tiles"] > 6 and picture["seam"] < 0.01 and picture["size"] == [95, 70]
    made = read_picture(tmp_path / "out" / "deep" / "a.png").pixels
    wanted = whole(weights, pixels / 255) * 255
    assert np.abs(made - wanted).max() < 0.51  # half a level of rounding, and no seam


def test_wide_bits_grey_and_alpha_come_back(model, tmp_path: Path) -> None:
    path, weights = model
    deep, veiled = photo(40, 50, 4, np.uint16), photo(20, 30, 2)
    save(tmp_path / "in" / "deep.png", deep)
    Image.fromarray(veiled, "LA").save(tmp_path / "in" / "veiled.png")
    assert call("apply", path, tmp_path / "in", "--output-dir", tmp_path / "out", *RANGES).exit_code == 0
    found = read_picture(tmp_path / "out" / "deep.png")
    assert found.pixels.dtype == np.uint16
    np.testing.assert_array_equal(found.alpha, deep[..., 3])
    assert np.abs(found.pixels - whole(weights, deep[..., :3] / 65535) * 65535).max() < 2
    found = read_picture(tmp_path / "out" / "veiled.png")
    np.testing.assert_array_equal(found.alpha, veiled[..., 1])
    grown = np.pad(veiled[..., :1].repeat(3, 2), [(0, 12), (0, 2), (0, 0)], mode="reflect")
    wanted = whole(weights, grown / 255)[:20, :30] * 255  # smaller than the file's tile: mirrored, then cut
    assert np.abs(found.pixels - wanted).max() < 0.51


def test_orientation_single_pixels_and_bmp(model, tmp_path: Path) -> None:
    path, weights = model
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(photo(24, 40)).save(tmp_path / "in" / "turned.jpg", exif=exif)
    Image.fromarray(photo(1, 1)).save(tmp_path / "in" / "one.png")
    Image.fromarray(photo(20, 20)).save(tmp_path / "in" / "old.bmp")
    assert call("apply", path, tmp_path / "in", "--output-dir", tmp_path / "out", *RANGES).exit_code == 0
    assert read_picture(tmp_path / "out" / "turned.png").size == (40, 24)
    assert read_picture(tmp_path / "out" / "one.png").size == (1, 1)
    grown = np.pad(photo(20, 20), [(0, 12), (0, 12), (0, 0)], mode="reflect") / 255
    old = read_picture(tmp_path / "out" / "old.png").pixels
    assert np.abs(old - whole(weights, grown)[:20, :20] * 255).max() < 0.51


def test_broken_pictures_are_named_and_the_others_done(model, tmp_path: Path) -> None:
    path, _ = model
    save(tmp_path / "in" / "a.png", photo(40, 40))
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:300])
    (tmp_path / "in" / "c.jpg").write_bytes(b"no picture")
    line = ("apply", path, tmp_path / "in", "--output-dir", tmp_path / "out", *RANGES, "--json")
    done = call(*line)
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert [Path(f["picture"]).name for f in document["failed"]] == ["b.png", "c.jpg"]
    assert "b.png" in done.stderr and "c.jpg" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "apply.json", JOURNAL]
    save(tmp_path / "in" / "b.png", photo(33, 40))
    (tmp_path / "in" / "c.jpg").unlink()
    again = json.loads(call(*line, "--resume").stdout)
    assert again["kept"] == 1 and len(again["pictures"]) == 2 and not again["failed"]


def test_resume_redoes_only_what_is_not_whole(model, tmp_path: Path) -> None:
    path, _ = model
    for name in "abcd":
        save(tmp_path / "in" / f"{name}.png", photo(40, 36 + ord(name) % 7))
    out = tmp_path / "out"
    line = ("apply", path, tmp_path / "in", "--output-dir", out, *RANGES)
    assert call(*line).exit_code == 0
    first = {p.name: p.read_bytes() for p in out.glob("*.png")}
    assert call(*line).exit_code == 1  # OUT holds files
    (out / "a.png").write_bytes(b"half")
    (out / "b.png").unlink()
    save(tmp_path / "in" / "c.png", photo(35, 35))  # another original
    lines = (out / JOURNAL).read_text().splitlines()
    torn = [*lines[:-1], lines[-1][:20]]  # stopped while writing: d is not known
    (out / JOURNAL).write_text("\n".join(torn))
    (out / ".d.png.xyz.part").write_bytes(b"left by a killed call")
    stamp = (out / "d.png").stat().st_mtime_ns
    document = json.loads(call(*line, "--resume", "--json").stdout)
    assert document["kept"] == 0 and (out / "d.png").stat().st_mtime_ns != stamp
    assert {n: (out / n).read_bytes() == first[n] for n in first} == {
        "a.png": True,
        "b.png": True,
        "c.png": False,
        "d.png": True,
    }
    assert not list(out.glob(".*.part"))
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    assert json.loads(call(*line, "--resume", "--json").stdout)["kept"] == 4
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")} == stamps
    other = json.loads(call(*line, "--overlap", 20, "--resume", "--json").stdout)  # other settings: all anew
    assert other["kept"] == 0


def test_a_stop_in_the_middle_of_a_picture_leaves_none(model, tmp_path: Path) -> None:
    path, _ = model
    source = save(tmp_path / "a.png", photo(90, 90))
    painter, painted = open_file(path, {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)}), []

    def stopping(values: np.ndarray) -> np.ndarray:
        painted.append(1)
        if len(painted) > 14:
            raise KeyboardInterrupt
        return painter._run(values)

    stopped = type(painter)(painter.name, painter.image, painter.fixed, painter.identity, (), stopping)
    with pytest.raises(KeyboardInterrupt):
        apply(stopped, [(source, Path("a.png"))], tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [JOURNAL]
    result = apply(painter, [(source, Path("a.png"))], tmp_path / "out", resume=True)
    clean = apply(painter, [(source, Path("a.png"))], tmp_path / "clean")
    assert result.pictures == clean.pictures and result.reach == clean.reach


def test_originals_beside(model, tmp_path: Path) -> None:
    path, _ = model
    pixels = photo(40, 50)
    save(tmp_path / "a.png", pixels)
    line = ("apply", path, tmp_path / "a.png", "--output-dir", tmp_path / "out", *RANGES, "--compare")
    assert call(*line).exit_code == 0
    both = read_picture(tmp_path / "out" / "compare" / "a.png").pixels
    assert both.shape == (40, 108, 3)
    np.testing.assert_array_equal(both[:, :50], pixels)
    np.testing.assert_array_equal(both[:, 58:], read_picture(tmp_path / "out" / "a.png").pixels)


def test_a_generator_of_ours_is_tiled_on_its_strides_and_told_apart(tmp_path: Path) -> None:
    """An instance-norm network: what tiles do to it is said, and at once it is exact."""
    from compressor.generators import load

    tiny.write_generator(tmp_path / "tiny.pth")
    save(tmp_path / "a.png", photo(70, 102))
    line = ("apply", tmp_path / "tiny.pth", tmp_path / "a.png", "--output-dir")
    tiled = call(*line, tmp_path / "tiled", "--tile", 32, "--json")
    assert "whole picture" in " ".join(json.loads(tiled.stdout)["notes"]), tiled.stdout
    assert json.loads(tiled.stdout)["reach"]["multiple"] == 4
    once = call(*line, tmp_path / "once", "--tile", 0, "--json")
    assert json.loads(once.stdout)["pictures"][0]["tiles"] == 1
    import torch

    x = np.pad(photo(70, 102), [(0, 2), (0, 2), (0, 0)], mode="reflect") / 127.5 - 1
    with torch.no_grad():
        made = load(tmp_path / "tiny.pth").module(
            torch.from_numpy(np.moveaxis(x, 2, 0)[None].astype(np.float32))
        )
    wanted = (np.moveaxis(made[0].numpy(), 0, 2)[:70, :102] + 1) * 127.5
    assert np.abs(read_picture(tmp_path / "once" / "a.png").pixels - wanted).max() < 0.52


def test_bands_of_an_enlarged_plane_are_those_of_the_whole() -> None:
    plane = photo(30, 21, 1)[..., 0]
    every = enlarged_rows(plane, 3, 0, 90)
    parts = [enlarged_rows(plane, 3, top, min(90, top + 13)) for top in range(0, 90, 13)]
    assert np.abs(np.concatenate(parts).astype(int) - every).max() <= 1


def test_luma_and_grey() -> None:
    colour = Picture(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    np.testing.assert_allclose(colour.values(1)(colour.pixels)[0, :, 0], [0.299, 0.587, 0.114], atol=1e-6)
    grey = Picture(np.full((1, 1, 1), 51, np.uint8))
    np.testing.assert_allclose(grey.values(3)(grey.pixels), np.full((1, 1, 3), 0.2), atol=1e-6)


def test_names_in_the_output_folder(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/a.png", "in/b/c.png", "in/out/a.png"):
        save(tmp_path / name, photo(8, 8))
    found = targets([tmp_path / "in"], tmp_path / "in" / "out")
    assert [str(name) for _, name in found] == ["a.jpg.png", "a.png.png", "b/c.png"]
    (tmp_path / "two").mkdir()
    save(tmp_path / "two" / "c.png", photo(8, 8))
    done = call("apply", "x.onnx", tmp_path / "two", tmp_path / "in" / "b", "--output-dir", tmp_path / "o")
    assert done.exit_code == 2 and "would both become" in done.stderr


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (("--tile", 64), 2, "32x32"),
        (("--overlap", 32), 2, "2 to 31"),
        (("--overlap", 1), 2, "--overlap"),
        (("--factory", "a:b"), 2, "holds its network itself"),
    ],
)
def test_wrong_usage(model, tmp_path: Path, extra: tuple[object, ...], code: int, words: str) -> None:
    save(tmp_path / "a.png", photo(80, 80))
    done = call("apply", model[0], tmp_path / "a.png", "--output-dir", tmp_path / "out", *RANGES, *extra)
    assert (done.exit_code, words in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_files_need_no_torch(model, tmp_path: Path, kind: str) -> None:
    path = model[0] if kind == "onnx" else tmp_path / "small.tflite"
    if kind == "tflite":
        write_tflite(path)
    pixels = photo(60, 50)
    save(tmp_path / "a.png", pixels)
    line = [
        "apply",
        str(path),
        str(tmp_path / "a.png"),
        "--output-dir",
        str(tmp_path / "out"),
        *RANGES,
        "--json",
    ]
    script = (
        "import sys\n"
        "for name in ('torch', 'skimage', 'litert_torch', 'onnx'):\n    sys.modules[name] = None\n"
        f"from pocketgan.cli import main\nmain({line!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (picture,) = json.loads(done.stdout)["pictures"]
    assert picture["tiles"] > 1 and picture["seam"] < 0.01
    made = read_picture(tmp_path / "out" / "a.png").pixels
    if kind == "onnx":
        wanted = whole(model[1], pixels / 255) * 255
    else:  # the same file with room for the whole picture and tiles of its own cut
        painter = open_file(path, {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)})
        corner = painter.paint(pixels[:32, :32].astype(np.float32) / 255) * 255
        made, wanted = made[:28, :28], corner[:28, :28]
    assert np.abs(made - wanted).max() < 0.51
