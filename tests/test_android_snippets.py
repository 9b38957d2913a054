"""The Android guide's code, run here: the C++ with the real runtimes paints what `apply` paints."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pages import PAGES, blocks
from PIL import Image
from tiny import SIZE, write_pictures

from pocketgan.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = REPOSITORY / "docs" / "android"
(GUIDE,) = (page for page in PAGES if page.name == "android.md")
DECLARATIONS = REPOSITORY / "tests" / "litert_c_api.h"
PRECISIONS = ("fp32", "fp16", "int8")


def package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        pytest.skip(f"{name} is not installed")
    return Path(spec.origin).parent


def onnxruntime_headers() -> Path:
    """Where ONNX Runtime's C++ headers are; its wheel has none."""
    folder = Path(os.environ.get("POCKETGAN_ONNXRUNTIME_HEADERS", "/usr/include/onnxruntime"))
    if not (folder / "onnxruntime_cxx_api.h").is_file():
        pytest.skip(f"no ONNX Runtime headers in {folder}: apt-get install libonnxruntime-dev (Debian 13)")
    return folder


def write_litert_headers(folder: Path) -> None:
    """LiteRT's headers come in no package: each becomes our declarations of what the guide uses."""
    (folder / "litert" / "c").mkdir(parents=True)
    for line in (SOURCES / "paint_litert.cpp").read_text().splitlines():
        if line.startswith('#include "litert/'):
            (folder / line.split('"')[1]).write_text(f'#include "{DECLARATIONS}"\n')


def compiled(source: str, folder: Path) -> Path:
    """The program that the guide's own line makes of `source`, with `folder/RUNTIME` as it says."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    for file in SOURCES.glob("*pp"):
        (folder / file.name).symlink_to(file)
    runtime = source.removeprefix("paint_").removesuffix(".cpp")
    (block,) = (block for block in blocks(GUIDE) if block.text.startswith("$CXX "))
    (line,) = (line for line in block.text.replace("\\\n", "").splitlines() if source in line)
    environment = {
        **os.environ,
        "CXX": f"c++ -Wall -Wextra -Werror -Wl,-rpath,{folder / runtime / 'lib'}",
        "CPLUS_INCLUDE_PATH": str(folder / runtime / "include"),  # warns of our code alone
    }
    done = subprocess.run(["bash", "-euc", line], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / source.removesuffix(".cpp")


def assert_paints_what_apply_paints(program: Path, model: Path, folder: Path) -> None:
    write_pictures(folder / "pictures", 1)
    (source,) = (folder / "pictures").iterdir()
    Image.open(source).save(folder / "in.ppm")
    done = subprocess.run(
        [program, model, folder / "in.ppm", folder / "out.ppm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    line = ["apply", str(model), str(source), "--output-dir", str(folder / "applied")]
    assert CliRunner().invoke(main, line).exit_code == 0
    (wanted,) = (folder / "applied").glob("*.png")
    painted = np.asarray(Image.open(folder / "out.ppm"))
    assert painted.shape == (SIZE, SIZE, 3) and painted.std() > 1
    np.testing.assert_array_equal(painted, np.asarray(Image.open(wanted)))


@pytest.fixture(scope="module")
def litert_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("litert")
    write_litert_headers(folder / "litert" / "include")
    (folder / "litert" / "lib").symlink_to(package("ai_edge_litert"))
    return compiled("paint_litert.cpp", folder)


@pytest.fixture(scope="module")
def onnxruntime_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnxruntime")
    (library,) = (package("onnxruntime") / "capi").glob("libonnxruntime.so.*")
    libraries = folder / "onnxruntime" / "lib"
    libraries.mkdir(parents=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # the linker's name, and the program's
        (libraries / name).symlink_to(library)
    (folder / "onnxruntime" / "include").symlink_to(onnxruntime_headers())
    return compiled("paint_onnxruntime.cpp", folder)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_litert(litert_program: Path, six_files: Path, tmp_path: Path, precision: str) -> None:
    assert_paints_what_apply_paints(litert_program, six_files / f"generator-{precision}.tflite", tmp_path)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnxruntime(onnxruntime_program: Path, six_files: Path, tmp_path: Path, precision: str) -> None:
    assert_paints_what_apply_paints(onnxruntime_program, six_files / f"generator-{precision}.onnx", tmp_path)


def test_a_picture_of_another_size_is_refused(litert_program: Path, six_files: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIZE + 4, SIZE)).save(tmp_path / "in.ppm")
    done = subprocess.run(
        [litert_program, six_files / "generator-fp32.tflite", tmp_path / "in.ppm", tmp_path / "out.ppm"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and f"takes pictures of {SIZE}x{SIZE}" in done.stderr
    assert not (tmp_path / "out.ppm").exists()


MAIN = """
import com.example.painter.Feeding

fun main(words: Array<String>) {
    val how = Feeding(words[0], words[1], words[1])
    val pixels = IntArray(256) { (0xff shl 24) or (it shl 16) or ((255 - it) shl 8) or (it / 2) }
    val values = how.toInput(pixels)
    check(how.toPixels(values).contentEquals(pixels))
    check(how.toPixels(FloatArray(3) { 1e9f })[0] == -1) // white, at most
    println(values.joinToString(" "))
}
"""


@pytest.mark.acceptance
def test_kotlin_feeds_as_the_metadata_say(tmp_path: Path) -> None:
    if shutil.which("kotlinc") is None or shutil.which("java") is None:
        pytest.skip("no Kotlin compiler: npm install kotlin-compiler, and a Java")
    (tmp_path / "Main.kt").write_text(MAIN)
    line = ["kotlinc", "-Werror", tmp_path / "Main.kt", SOURCES / "Feeding.kt", "-include-runtime", "-d"]
    subprocess.run([*line, tmp_path / "main.jar"], check=True)
    level = np.arange(256)
    rgb = np.stack([level, 255 - level, level // 2], 1)
    for layout, (black, white) in (("NCHW", (-1.0, 1.0)), ("NHWC", (0.0, 255.0))):
        line = ["java", "-jar", tmp_path / "main.jar", layout, f"[{black}, {white}]"]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        wanted = (rgb.T if layout == "NCHW" else rgb) / 255 * (white - black) + black
        np.testing.assert_allclose(np.array(done.stdout.split(), float), wanted.ravel(), atol=1e-4)
