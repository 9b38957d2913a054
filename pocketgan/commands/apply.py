"""`pocketgan apply`: an exported file or a generator on pictures of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.errors import UsageError
from pocketgan import options
from pocketgan.options import Answer, command, generator_options
from pocketgan.texts import table

if TYPE_CHECKING:
    from exporters.apply.apply import ApplyResult
    from pocketgan.recipe import GeneratorSource

_SHOWN = 20  # pictures in the answer for people


@command("apply")
@click.argument("file", type=options.FILE)
@click.argument("images", type=options.FILE, nargs=-1, required=True)
@options.new_output
@click.option(
    "--tile",
    type=click.IntRange(0),
    help="Side of the pieces a large picture is cut into; 0: none. A file of fixed size has its own.  "
    "[default: 512, less for upscalers]",
)
@click.option(
    "--overlap",
    type=click.IntRange(2),
    help="Pixels that neighbouring pieces share.  [default: what the network is measured to need]",
)
@click.option("--compare", is_flag=True, help="Also write each picture with its original beside it.")
@options.resume
@generator_options
def apply_command(
    file: Path,
    images: tuple[Path, ...],
    output: Path,
    tile: int | None,
    overlap: int | None,
    compare: bool,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Paint IMAGES (pictures, or folders of them) with FILE, whatever their size.

    FILE is one that pocketgan exported (.onnx, .tflite; no PyTorch needed), a model folder or a checkpoint.
    Large pictures are cut into overlapping pieces; every picture becomes a PNG in OUT. Pictures that cannot
    be read, or whose pieces would show (unless --tile or --overlap is given), are named and left out; the
    exit code is then 3.
    """
    from exporters.apply.apply import ApplyOptions, apply
    from exporters.apply.painter import SUFFIXES, of_generator, open_file

    pictures = targets(images, output, compare=compare)
    given = source(file)
    exported = file.suffix.lower() in SUFFIXES
    painter = open_file(file, given.stated) if exported else of_generator(given.load())
    result = apply(painter, pictures, output, ApplyOptions(tile, overlap, compare), resume=resume)
    return Answer(_text(result), result.as_json(), result.problem)


def targets(images: Sequence[Path], output: Path, *, compare: bool = False) -> list[tuple[Path, Path]]:
    """Each picture with its place in the output folder: as in its own folder, ending in .png.

    Pictures in `output` itself are passed over. Of two names that would be one, both keep their endings.

    Raises:
        PocketganError: a folder is missing or holds no picture.
        UsageError: two pictures would still have one name.
    """
    from compressor.data.images import list_images

    found: list[tuple[Path, Path]] = []
    for place in images:
        if place.is_dir() or not place.suffix:
            inside = [path for path in list_images(place) if output.resolve() not in path.resolve().parents]
            found += [(path, path.relative_to(place)) for path in inside]
        else:
            found.append((place, Path(place.name)))
    found = list(dict.fromkeys(found))
    short = [str(name.with_suffix("")).lower() for _, name in found]
    named = [
        (path, name.with_name(name.name + ".png") if short.count(stem) > 1 else name.with_suffix(".png"))
        for (path, name), stem in zip(found, short, strict=True)
    ]
    taken: dict[str, Path] = {}
    for path, name in named:
        for each in (name, Path("compare") / name) if compare else (name,):
            if (other := taken.setdefault(str(each).lower(), path)) is not path:
                raise UsageError(
                    f"two pictures would both become {output / each}",
                    got=f"{other} and {path}",
                    fix="apply to one folder at a time",
                )
    return named


def _text(result: ApplyResult) -> str:
    rows = [
        (
            next(iter(done.files)),
            f"{done.size[1]}x{done.size[0]}",
            str(done.tiles),
            "-" if done.seam is None else f"{done.seam:.3f}",
        )
        for done in result.pictures[:_SHOWN]
    ]
    more = len(result.pictures) - len(rows)
    head = ("picture", "size", "tiles", "seam (grey levels)")
    parts = [table(rows, head=head) + (f"\n... and {more} more" if more > 0 else "")] if rows else []
    if result.kept:
        parts.append(f"{result.kept} were done already")
    parts += [f"note: {note}" for note in result.notes]
    return "\n\n".join([*parts, str(result.folder)])
