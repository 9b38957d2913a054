"""`pocketgan export`: ONNX and TFLite files, each checked against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.errors import GateError
from pocketgan import options
from pocketgan.options import Answer, CommaList, Decibels, command, generator_options, nearest
from pocketgan.recipe import FORMATS, INTEGERS, PRECISIONS, USUAL
from pocketgan.source import GeneratorSource
from pocketgan.texts import amount, decibels, table

if TYPE_CHECKING:
    from exporters.result import ExportResult


class Threshold(click.ParamType):
    """A precision and the dB that its files must reach: int8=35."""

    name = "PRECISION=DB"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        precision, _, amount = value.partition("=")
        if precision not in PRECISIONS:
            self.fail(f"{value!r} names no precision{nearest(precision, PRECISIONS)}", param, ctx)
        return precision, Decibels().convert(amount, param, ctx)


@command("export")
@click.argument("model", type=options.FILE)
@options.images
@click.option(
    "--format",
    "formats",
    type=CommaList(*FORMATS),
    default=",".join(FORMATS),
    show_default=True,
    help="Files for ONNX Runtime, for LiteRT, or both.",
)
@click.option(
    "--precision",
    "precisions",
    type=CommaList(*PRECISIONS),
    default=",".join(USUAL),
    show_default=True,
    help="Of weights and, from int8 on, of the arithmetic too: int8 rounds by ranges measured beforehand, "
    "int8-dynamic by each picture's own, w8a16 to 8 bits of weights and 16 of activations.",
)
@click.option(
    "--calibration",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Pictures that INT8 ranges are measured on.",
)
@click.option(
    "--min-psnr",
    type=click.FloatRange(0, min_open=True),
    help="PSNR in dB that INT8 must reach on every held-out picture: as few layers as that takes stay float, "
    "and at most half of the arithmetic. By default it aims at 40 on average.",
)
@click.option(
    "--threshold",
    "thresholds",
    type=Threshold(),
    multiple=True,
    help="PSNR in dB that every held-out picture must reach in files of a precision, as int8-dynamic=30; may "
    "be repeated. By default 50 for fp32 and fp16, 35 for w8a16, 20 for int8 and int8-dynamic.",
)
@click.option(
    "--max-drop",
    type=Decibels(),
    help="Instead: dB that INT8's mean PSNR to the pictures of --reference may be below the network's in "
    "float, on the held-out ones. 0.5 and 0.5dB are the same.",
)
@click.option(
    "--reference",
    type=options.FOLDER,
    metavar="DIR",
    help="With --max-drop: the wanted output of each picture, or a teacher's, by the same names.",
)
@click.option(
    "--dynamic",
    is_flag=True,
    help="ONNX files take pictures of any height and width that the network can; TFLite files never do.",
)
@click.option(
    "--integer-io",
    type=click.Choice(INTEGERS),
    help="The INT8 TFLite file takes and gives a picture's bytes (int8: less 128); all others take and give "
    "float32.",
)
@click.option("--opset", type=int, default=18, show_default=True, help="Of ONNX files, 18 to 21.")
@click.option(
    "--processes",
    type=click.IntRange(0, 2),
    help="Processes of their own that make the files: 2, one for each format, or 1. With 0 there is none, and"
    " a converter that crashes ends the command. By default as many as cores and free memory allow.",
)
@options.new_output
@options.resume
@generator_options
def export_command(
    model: Path,
    images: Path,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    calibration: int,
    min_psnr: float | None,
    thresholds: tuple[tuple[str, float], ...],
    max_drop: float | None,
    reference: Path | None,
    dynamic: bool,
    opset: int,
    integer_io: str | None,
    processes: int | None,
    output: Path,
    resume: bool,
    source: Callable[[Path], GeneratorSource],
) -> Answer:
    """Write MODEL as files for phones, and compare each with PyTorch on real pictures.

    Where MODEL was trained with --qat, INT8 keeps to the ranges that it learned and --calibration plays no
    part in them.

    A fifth of the pictures is kept from calibration and used to compare. A file that is not near enough
    is written all the same; the exit code is then 3.
    """
    from compressor.data.images import list_images, split_held_out
    from exporters.export import export, read_export

    calibrate, compare = split_held_out(list_images(images))
    problem = None
    try:
        result = export(
            source(model).load(),
            calibrate,
            output,
            formats=formats,
            precisions=precisions,
            calibration=calibration,
            images_held_out=compare,
            min_psnr=min_psnr,
            thresholds=dict(thresholds),
            max_drop=max_drop,
            reference=reference,
            dynamic=dynamic,
            opset=opset,
            integer_io=integer_io,
            processes=processes,
            resume=resume,
        )
    except GateError as error:
        problem, result = error, read_export(output)
    return Answer(_text(result, output), {"folder": str(output), **result.as_json()}, problem)


def _text(result: ExportResult, output: Path) -> str:
    rows = [
        (
            file.file,
            file.kind,
            amount(file.bytes, "bytes"),
            "-" if file.parity is None else decibels(file.parity.as_json()["psnr_min"]),
            f"{file.seconds:.1f} s",
            "-" if file.peak_mb is None else f"{file.peak_mb:.0f} MiB",
            "passed" if file.passed else file.error or "NOT NEAR ENOUGH",
        )
        for file in result.files
    ]
    head = ("file", "kind", "size", "lowest PSNR", "made in", "peak memory", "against PyTorch")
    learned = result.settings.get("int8_ranges") == "learned"
    said = ""
    if learned and any(file.precision == "int8" for file in result.files):
        said = "\nINT8: ranges learned in training; compared with the network as trained, rounding and all"
    for file in result.files:
        if file.drop is not None:
            said += f"\n{file.file}: {file.drop.mean:+.3f} dB further from the truth than in float"
            said += f" ({file.drop.limit:g} allowed)"
    return f"{table(rows, head=head)}{said}\n\n{output}\n  next: pocketgan bench {output}"
