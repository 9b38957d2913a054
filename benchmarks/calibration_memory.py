"""How much memory INT8's calibration takes above the model, by the number of pictures.

    python -m benchmarks.calibration_memory --data ../shared/data --images 20 --images 500

Plans INT8 for GAN Compression's generator on 256x256 cuts of real photographs, each number in a process of
its own. "base" is the process with the network captured and one picture run; "above" is the most it held
beyond.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.side_by_side import memory_apart
from compressor.memory import memory_mb

SOURCES = ("horse2zebra/testA_real", "sr/train_T91")
SIDE = 256


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option(
    "--images", "counts", multiple=True, type=click.IntRange(1), default=(20, 500), show_default=True
)
@click.option("--alone", is_flag=True, hidden=True, help="Measure in this process.")
def main(data: Path, counts: tuple[int, ...], alone: bool) -> None:
    """Print a line for each number of pictures."""
    if alone:
        print(json.dumps(measure(data, counts[0])))
        return
    print("| pictures | base, MiB | above, MiB | seconds |\n|---|---|---|---|")
    for count in counts:
        arguments = ["--data", str(data), "--images", str(count), "--alone"]
        found = memory_apart("benchmarks.calibration_memory", arguments)
        print(
            f"| {count} | {found['base']:.0f} | {found['above']:.0f} | {found['seconds']:.0f} |", flush=True
        )


def measure(data: Path, count: int) -> dict[str, float]:
    """Plan once; MiB and seconds."""
    from compressor.generators import load
    from exporters.job import Job

    with TemporaryDirectory() as folder:
        pictures = cuts(data, count, Path(folder))
        generator = load(data / "weights" / "gan_compression_horse2zebra.pth")
        job = Job(generator, (SIDE, SIDE), pictures, pictures[:1], 40.0)
        job.graph()
        assert job.references
        base, began = memory_mb("VmRSS"), time.monotonic()
        assert job.plan.bounds
        return {"base": base, "above": memory_mb("VmHWM") - base, "seconds": time.monotonic() - began}


def cuts(data: Path, count: int, folder: Path) -> list[Path]:
    """So many pictures, cut from real ones at places drawn with a fixed seed and enlarged where too small."""
    import numpy as np
    from PIL import Image

    from compressor.data.images import list_images

    whole = [path for source in SOURCES for path in list_images(data / source)]
    draw, made = np.random.default_rng(0), []
    for index in range(count):
        with Image.open(whole[index % len(whole)]) as opened:
            picture = opened.convert("RGB")
        side = int(draw.integers(64, min(picture.size) + 1))
        left, top = (int(draw.integers(length - side + 1)) for length in picture.size)
        path = folder / f"{index:04}.png"
        picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE)).save(path)
        made.append(path)
    return made


if __name__ == "__main__":
    main()
