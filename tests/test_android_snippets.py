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
from PIL import Image
from tiny import SIZE, write_pictures

from pocketgan.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = REPOSITORY / "docs" / "android"
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


def litert_headers(folder: Path) -> Path:
    """LiteRT's headers come in no package: each becomes our declarations of what the guide uses."""
    (folder / "litert" / "c").mkdir(parents=True)
    for line in (SOURCES / "paint_litert.cpp").read_text().splitlines():
        if line.startswith('#include "litert/'):
            (folder / line.split('"')[1]).write_text(f'#include "{DECLARATIONS}"\n')
    return folder


def compiled(source: str, headers: Path, library: Path, folder: Path) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    program = folder / "paint"
    line = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}", "-isystem", str(headers)]
    line += [str(SOURCES / "main.cpp"), str(SOURCES / source), str(library), f"-Wl,-rpath,{library.parent}"]
    done = subprocess.run([*line, "-o", str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


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
    library = package("ai_edge_litert") / "libLiteRt.so"
    return compiled("paint_litert.cpp", litert_headers(folder), library, folder)


@pytest.fixture(scope="module")
def onnxruntime_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnxruntime")
    (library,) = (package("onnxruntime") / "capi").glob("libonnxruntime.so.*")
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name that programs ask for
    headers = onnxruntime_headers()
    return compiled("paint_onnxruntime.cpp", headers, folder / "libonnxruntime.so.1", folder)


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
