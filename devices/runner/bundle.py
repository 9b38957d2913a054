"""What a phone needs to run one file: our program, a runtime out of its wheel, and glibc.

The program is built by ziglang (PyPI), which cross-compiles and brings its own libc headers. Runtimes
come out of their aarch64 manylinux wheels, fetched by pip and pinned by hash. They need glibc, which
Android does not have; Debian's cross packages bring the loader and libraries, which lie beside the
program and are started by path. All is cached by the content it was made of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from compressor.errors import PocketganError
from compressor.files import atomic, sha256

SOURCE = Path(__file__).parent / "runner.c"
_TARGET = "aarch64-linux-gnu.2.28"  # the oldest glibc that ONNX Runtime's wheels accept
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-s", "-ldl")
_SYSROOTS = ("/usr/aarch64-linux-gnu/lib", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
_LIBC = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
LOADER = "ld-linux-aarch64.so.1"


@dataclass(frozen=True)
class Wheel:
    """One runtime's wheel for CPython 3.11 on aarch64; only the shared library in it is used."""

    package: str
    version: str
    sha256: str
    member: str


WHEELS: Mapping[str, Wheel] = {
    "onnxruntime": Wheel(
        "onnxruntime",
        "1.31.1",
        "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        "onnxruntime/capi/libonnxruntime.so.1.31.1",
    ),
    "litert": Wheel(
        "ai-edge-litert",
        "2.3.0",
        "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
        "ai_edge_litert/libLiteRt.so",
    ),
}


@dataclass(frozen=True)
class Bundle:
    """Files of one runtime, on this machine.

    Attributes:
        runtime: "onnxruntime" or "litert"; version: the runtime's.
        runner: our program. loader: glibc's. libraries: what the program and the runtime link to.
        library: the runtime.
    """

    runtime: str
    version: str
    runner: Path
    loader: Path
    libraries: tuple[Path, ...]
    library: Path

    @property
    def bytes(self) -> int:
        """What a phone has to hold."""
        return sum(path.stat().st_size for path in (self.runner, self.loader, *self.libraries, self.library))


def cache_folder() -> Path:
    """POCKETGAN_CACHE, or pocketgan in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("POCKETGAN_CACHE") or Path(home) / "pocketgan").expanduser()


def prepare(runtime: str, cache: Path | None = None) -> Bundle:
    """Build and gather what `runtime` needs, or take it from the cache.

    Raises:
        PocketganError: the compiler, the wheel or the C library cannot be had; says how to get it.
    """
    cache = cache or cache_folder()
    libraries = glibc()
    wheel = WHEELS[runtime]
    return Bundle(
        runtime=runtime,
        version=wheel.version,
        runner=build(cache),
        loader=libraries[0],
        libraries=tuple(libraries[1:]),
        library=runtime_library(wheel, cache),
    )


def build(cache: Path, source: Path = SOURCE) -> Path:
    """The program for aarch64, built once for each source, compiler and set of flags.

    The same source and compiler give the same bytes (no build id, no debug information, no paths).
    """
    try:
        compiler = metadata.version("ziglang")
    except metadata.PackageNotFoundError as error:
        raise PocketganError(
            "the compiler of the arm64 runner is not installed", fix="pip install ziglang"
        ) from error
    recipe = "\0".join((compiler, _TARGET, *_FLAGS)).encode() + source.read_bytes()
    program = cache / "runner" / hashlib.sha256(recipe).hexdigest()[:24] / "runner"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        shutil.copyfile(source, Path(scratch) / "runner.c")  # no path of ours in the program
        _call(
            [sys.executable, "-m", "ziglang", "cc", "-target", _TARGET, "-o", "runner", "runner.c", *_FLAGS],
            "the arm64 runner cannot be built",
            scratch,
            {"ZIG_GLOBAL_CACHE_DIR": str(cache / "zig"), "ZIG_LOCAL_CACHE_DIR": f"{scratch}/zig"},
        )
        (Path(scratch) / "runner").replace(program)
    return program


def runtime_library(wheel: Wheel, cache: Path) -> Path:
    """The runtime's shared library, out of a wheel of the pinned hash.

    Raises:
        PocketganError: pip cannot fetch it, or what it fetched is another file.
    """
    library = cache / "runtimes" / wheel.sha256[:24] / Path(wheel.member).name
    if library.is_file():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--require-hashes"]
        command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=311"]
        command += [f"--platform=manylinux_2_{least}_aarch64" for least in (17, 27, 28, 34)]
        _call(
            [*command, "--abi=cp311", "-d", scratch, "-r", str(wanted)],
            f"{wheel.package} {wheel.version} for arm64 cannot be fetched",
            scratch,
            {},
        )
        path = next(Path(scratch).glob("*.whl"))
        if sha256(path) != wheel.sha256:
            raise PocketganError(
                f"{path.name} is not the file we know", got=sha256(path), allowed=wheel.sha256
            )
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, atomic(library) as file:
            shutil.copyfileobj(source, file)
    return library


def glibc(folders: Sequence[str] = _SYSROOTS) -> list[Path]:
    """glibc for aarch64 on this machine: the loader first, then the libraries."""
    chosen = os.environ.get("POCKETGAN_ARM64_LIBRARIES")
    for folder in [Path(chosen)] if chosen else [Path(folder) for folder in folders]:
        found = [folder / name for name in (LOADER, *_LIBC)]
        if all(path.is_file() for path in found):
            return found
    raise PocketganError(
        "there is no C library for arm64 here",
        got=chosen or ", ".join(folders),
        fix="apt-get install libc6-arm64-cross libstdc++6-arm64-cross libgcc-s1-arm64-cross, or set "
        "POCKETGAN_ARM64_LIBRARIES to a folder with them",
    )


def _call(command: list[str], what: str, folder: str, environment: Mapping[str, str]) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            check=True,
            timeout=600,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        raise PocketganError(
            what, got="; ".join(said[-3:])[:600], fix="look at the network and the disk"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PocketganError(what, got=str(error)[:300]) from error
