"""Collects the free photographs that the quickstart's generator was trained on.

    apt-get download gcompris-qt-data lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    pip download --no-deps scikit-learn
    python -m pocketgan.quickstart.gather --packages . --output photographs

Debian's machine-readable copyright files name the author and the licence of every file; a photograph
is taken only where that licence is CC0, public domain, CC BY or CC BY-SA. Two photographs come with
scikit-learn, two with scikit-image. Needs `dpkg` and `zstd`. Writes one PNG each and `photographs.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from compressor.errors import PocketganError

FREE = re.compile(r"(CC0|public-domain|CC-BY-[\d.]+$|CC-BY-SA-[\d.]+$)")
SMALLEST = 240  # pixels on the short side
GCOMPRIS = ("categorization", "explore_world_animals")  # activities whose pictures are photographs
NOT_PHOTOGRAPHS = ("analogpattern", "umang", "Infinite-Sea", "Painting-Colors", "Fossa", "fog")


@dataclass(frozen=True)
class Credit:
    """Where one photograph comes from."""

    name: str
    author: str
    licence: str
    package: str
    source: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect the free photographs for training.")
    parser.add_argument("--packages", type=Path, required=True, help="folder with the .deb and .whl files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    print(f"{len(gather(arguments.packages, arguments.output))} photographs in {arguments.output}")


def gather(packages: Path, output: Path) -> list[Credit]:
    """Write every free photograph of `packages` into `output`, and the list of their authors.

    Raises:
        PocketganError: the folder holds none of the packages.
    """
    from PIL import Image

    output.mkdir(parents=True, exist_ok=True)
    credits = []
    for credit, raw in _photographs(packages):
        image = Image.open(io.BytesIO(raw)).convert("RGB")
        if min(image.size) >= SMALLEST and not credit.name.startswith(NOT_PHOTOGRAPHS):
            image.save(output / f"{credit.name}.png")
            credits.append(credit)
    if not credits:
        raise PocketganError(f"{packages} holds no package with photographs", fix="see the head of gather.py")
    with (output / "photographs.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(field.name for field in fields(Credit))
        rows.writerows(astuple(credit) for credit in sorted(credits, key=lambda credit: credit.name))
    return credits


def _photographs(packages: Path) -> Iterator[tuple[Credit, bytes]]:
    for package in sorted(packages.glob("*.deb")):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["dpkg", "-x", str(package), folder], check=True)
            root, name = Path(folder), package.name.split("_")[0]
            copyright_file = root / "usr/share/doc" / name / "copyright"
            known = _copyrights(copyright_file.read_text(encoding="utf-8"))
            for path, raw in _files(root):
                key = (path.parent.name if "activities" in path.parts else "", path.stem)
                if key in known:
                    author, licence, source = known[key]
                    yield Credit(path.stem, author, licence, package.stem, source), raw
    for wheel in sorted(packages.glob("scikit_learn-*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name, author, source in (
                ("china", "danielbuechele", "https://www.flickr.com/photos/danielbuechele/6061409035/"),
                ("flower", "vultilion", "https://www.flickr.com/photos/vultilion/6056698931/"),
            ):
                raw = archive.read(f"sklearn/datasets/images/{name}.jpg")
                yield Credit(name, author, "CC-BY-2.0", "-".join(wheel.name.split("-")[:2]), source), raw
    import skimage

    data = Path(skimage.__file__).parent / "data"
    for file, author, source in (
        ("astronaut.png", "NASA", "https://flic.kr/p/r9qvLn"),
        ("rocket.jpg", "SpaceX", "https://www.flickr.com/photos/spacexphotos/16511594820/"),
    ):
        package_name = "scikit-image-" + version("scikit-image")
        credit = Credit(file.split(".")[0], author, "public-domain", package_name, source)
        yield credit, (data / file).read_bytes()


def _files(root: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The pictures of an unpacked package, those inside Qt resource files among them."""
    for path in sorted(root.rglob("*")):
        if path.suffix == ".jpg" and "backgrounds" in path.parts:
            yield PurePosixPath(path.as_posix()), path.read_bytes()
        elif path.suffix == ".rcc" and path.stem in GCOMPRIS:
            yield from _resources(path.read_bytes())


def _copyrights(text: str) -> dict[tuple[str, str], tuple[str, str, str]]:
    """{(activity folder or "", file stem): (author, licence, source)} of the freely licensed files."""
    known = {}
    for paragraph in re.split(r"\n\s*\n", text):
        values: dict[str, list[str]] = {}
        for key, first, rest in re.findall(
            r"^([A-Za-z-]+):[ ]*(.*)((?:\n[ \t].*)*)", paragraph, re.MULTILINE
        ):
            values[key] = [first, *(line.strip() for line in rest.splitlines())]
        licence = values.get("License", [""])[0].strip()
        if FREE.match(licence):
            author = re.sub(r"^\d{4}[.,]\s*|,\s*\d{4}$|\"", "", values.get("Copyright", [""])[0].strip())
            source = "".join(values.get("Comment", [""])).strip()
            for file in " ".join(values.get("Files", [])).split():
                path = PurePosixPath(file)
                folder = path.parent.name if "activities" in path.parts else ""
                known[folder, path.stem] = (author, licence, source)
    return known


def _resources(raw: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The pictures inside a Qt binary resource file (rcc formats 1 to 3)."""
    magic, version, tree, data, names = struct.unpack(">4sIIII", raw[:20])
    if magic != b"qres":
        raise PocketganError("not a Qt resource file", got=magic)
    node_size = 14 if version == 1 else 22

    def walk(index: int, folder: PurePosixPath) -> Iterator[tuple[PurePosixPath, bytes]]:
        name, flags, first, second = struct.unpack_from(">IHII", raw, tree + index * node_size)
        (length,) = struct.unpack_from(">H", raw, names + name)
        text = raw[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
        path = folder / text if index else folder
        if flags & 2:  # a folder: `first` children from node `second` on
            for child in range(second, second + first):
                yield from walk(child, path)
        elif path.suffix in (".jpg", ".png", ".webp"):
            (size,) = struct.unpack_from(">I", raw, data + second)
            content = raw[data + second + 4 : data + second + 4 + size]
            if flags & 1:  # zlib behind its length
                content = zlib.decompress(content[4:])
            elif flags & 4:
                content = subprocess.run(
                    ["zstd", "-dc"], input=content, capture_output=True, check=True
                ).stdout
            yield path, content

    return walk(0, PurePosixPath())


if __name__ == "__main__":
    main()
