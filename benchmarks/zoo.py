"""The zoo: compressed networks that may be given away, each with a card that is written from its record.

    python -m benchmarks.zoo --output-dir runs/zoo

compresses them as their commands say (the quickstart: some minutes on two quiet cores) and writes docs/zoo:
the network in our format, its INT8 files, a picture before and after, figures.json and the card. Only what
was trained on pictures under free licences gets in, and no file of more than 1 MB. A stopped call goes on;
what was compressed before is taken as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from compressor.errors import PocketganError
from compressor.files import atomic, read_json, sha256, write_json

HERE = Path(__file__).resolve().parent.parent / "docs" / "zoo"
MODEL = ("architecture.json", "weights.safetensors")
FILES = ("generator-int8.onnx", "generator-int8.tflite")  # the others are larger
GIVEN, PAINTED, FIGURES, CARD = "given.png", "painted.png", "figures.json", "README.md"
LARGEST = 1_000_000  # bytes of one file
_ROUNDS = ("original", "compressed")


@dataclass(frozen=True)
class Animal:
    """One network.

    Attributes:
        command: that compresses it; gets --output-dir.
        run, picture: below that folder: the run, and a picture that nothing was trained on.
        does, licence, trained: for the card, in Markdown.
    """

    command: tuple[str, ...]
    run: str
    picture: str
    does: str
    licence: str
    trained: str


ANIMALS = {
    "watercolour": Animal(
        ("pocketgan", "quickstart"),
        "run",
        "photographs/held_out/cat.png",
        "Redraws a photograph in ink and watercolour: dark lines, flat washes, few tones, warm paper.",
        "Apache-2.0, as this project",
        "82 photographs (the original), CC0, public domain, CC BY or CC BY-SA, listed in "
        "`pocketgan/quickstart/training_photographs.csv`; and 22 squares of scikit-image's photographs (the "
        "compression), public domain or CC0. The pictures here are a square of its cat (CC0, Stefan van der "
        "Walt), which no training saw, and what the network makes of it.",
    )
}


@click.command()
@click.option("--output-dir", "output", type=click.Path(path_type=Path), default=Path("runs/zoo"))
@click.option("--only", multiple=True, type=click.Choice(list(ANIMALS)), help="These networks.")
def main(output: Path, only: tuple[str, ...]) -> None:
    """Compress what is not compressed yet, and write docs/zoo."""
    for name in only or ANIMALS:
        animal, folder = ANIMALS[name], output / name
        if not (folder / animal.run / "report.html").exists():
            line = [*animal.command[1:], "--output-dir", str(folder)]
            line += ["--resume"] if folder.exists() else []
            subprocess.run([sys.executable, "-m", animal.command[0], *line], check=True)
        keep(name, folder / animal.run, folder / animal.picture, HERE / name)
        click.echo(HERE / name / CARD)


def keep(name: str, run: Path, picture: Path, folder: Path) -> None:
    """Copy the small files of a finished run, and write figures.json and the card beside them.

    Raises:
        PocketganError: a file is too large to be given away with the source.
    """
    from compressor.data.images import read_image, write_image
    from compressor.evaluate import prepare
    from compressor.evaluate import run as paint
    from compressor.generators import load

    sources = [run / "distill" / each for each in MODEL]
    sources += [run / "export" / "compressed" / each for each in FILES]
    for source in sources:
        if source.stat().st_size > LARGEST:
            raise PocketganError(f"{source} is too large for the zoo", allowed=f"{LARGEST} bytes")
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        shutil.copyfile(source, folder / source.name)
    generator = load(folder)
    write_image(folder / GIVEN, prepare(read_image(picture), generator.spec.image))
    write_image(folder / PAINTED, paint(generator, read_image(folder / GIVEN)))
    write_json(folder / FIGURES, {"name": name, "picture": picture.stem, **figures(run, folder)})
    with atomic(folder / CARD, "w") as file:
        file.write(card(read_json(folder / FIGURES)))


def figures(run: Path, folder: Path) -> dict[str, Any]:
    """What the records of a run say, with the raw samples of its latencies."""
    pruned, trained, judged, made, timed = (
        read_json(run / part)
        for part in (
            "prune/prune.json", "distill/provenance.json", "eval/eval.json", "export/compressed/export.json",
            "bench/bench.json",
        )
    )  # fmt: skip
    series = [each for each in timed["series"] if each["threads"] == 1]
    return {
        "date": timed["ended"][:10],
        "budget": pruned["budget"]["asked"],
        "share": pruned["share"],
        "original": pruned["original"],
        "reached": pruned["reached"],
        "steps": {"prune": pruned["steps"], "distill": trained["steps"]},
        "psnr_to_original": {each["name"]: each["psnr"] for each in judged["images"]},
        "input": made["input"],
        "versions": made["versions"],
        "sha256": {each: sha256(folder / each) for each in (*MODEL, *FILES)},
        "files": {
            each["file"]: {
                "bytes": each["bytes"],
                "float_layers": len(each["float_layers"]),
                "psnr": {Path(image["name"]).stem: image["psnr"] for image in each["parity"]["images"]},
            }
            for each in made["files"]
        },
        "machine": timed["machine"],
        "load": [timed["load_before"], timed["load_after"]],
        "latency": {
            f"{each['group']}/{each['file']}": [round(value, 4) for value in each["samples_ms"]]
            for each in series
            if each["group"] in _ROUNDS
        },
    }


def card(told: Mapping[str, Any]) -> str:
    """The card of a network, from its figures alone."""
    from benchmarks.side_by_side import table
    from benchmarks.statistics import speed_up, summarise

    animal = ANIMALS[told["name"]]
    original, reached, machine = told["original"], told["reached"], told["machine"]
    high, wide = told["input"]["shape"][2:]
    psnr = told["psnr_to_original"].values()
    rows = []
    for name, file in told["files"].items():
        samples = told["latency"][f"compressed/{name}"]
        whole = told["latency"][f"original/generator-fp32.{name.rpartition('.')[2]}"]
        faster, times = speed_up(whole, samples), summarise(samples)
        rows.append(
            {
                "file": f"[{name}]({name})" if name in FILES else name,
                "size": f"{file['bytes'] / 1e6:.2f} MB",
                "PSNR to PyTorch, mean": _decibels(file["psnr"], fmean),
                "worst": _decibels(file["psnr"], min),
                "layers in float": str(file["float_layers"]) if "int8" in name else "all",
                "one thread": f"{times.median:.1f} ms{', unstable' if times.unstable else ''}",
                "over the original's FP32": faster.said,
            }
        )
    loads = " to ".join(f"{load:.1f}" for load in told["load"] if load is not None)
    lines = [
        f"# {told['name'].capitalize()}",
        "",
        f"{animal.does}",
        "",
        f"![Before: {told['picture']}]({GIVEN}) ![After]({PAINTED})",
        "",
        f"- Licence: {animal.licence}.",
        f"- Trained on: {animal.trained}",
        f"- Made by: `{' '.join(animal.command)}`, {told['date']}; {told['steps']['prune']} steps of pruning "
        f"to {told['budget']}, {told['steps']['distill']} of distillation. `python -m benchmarks.zoo` makes "
        "this folder.",
        f"- At {wide}x{high}: {reached['macs'] / 1e9:.2f} G true MACs ({told['share']:.1%} of the original's "
        f"{original['macs'] / 1e9:.2f} G), {reached['parameters'] / 1e6:.2f} M parameters (of "
        f"{original['parameters'] / 1e6:.2f} M).",
        f"- PSNR to the original's pictures, on {len(psnr)} that nothing was trained on: "
        f"{fmean(psnr):.1f} dB in the mean, {min(psnr):.1f} dB at worst.",
        f"- Pictures: RGB, {told['input']['range'][0]:g} to {told['input']['range'][1]:g} in and "
        f"{told['input']['output_range'][0]:g} to {told['input']['output_range'][1]:g} out.",
        "",
        table(rows),
        "",
        f"Latency: usable cores of {machine['cpu']}: {machine['usable_cores']}, load {loads}, all files in "
        "turns; the interval is of 95 %. Only the INT8 files lie here; `pocketgan export` of this folder, "
        "with pictures of your own to calibrate on, gives all six. Every figure is in "
        f"[{FIGURES}]({FIGURES}).",
        "",
    ]
    return "\n".join(lines)


def _decibels(psnr: Mapping[str, float | None], over: Any) -> str:
    values = [value for value in psnr.values() if value is not None]  # None: equal pictures
    return f"{over(values):.1f} dB" if values else "equal"


if __name__ == "__main__":
    main()
