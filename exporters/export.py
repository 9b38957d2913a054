"""From a generator to its files: convert, compare each with PyTorch on real pictures, write it all down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.images import need_readable
from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import claim_folder, sha256
from compressor.generators.trial import try_size
from compressor.progress import Progress
from exporters.byte_pictures import ZERO_POINTS
from exporters.drop import Truth, truth
from exporters.lanes import Lanes, processes_for
from exporters.onnx import OPSET, OPSETS
from exporters.parity import THRESHOLDS
from exporters.pictures import other_size, spread
from exporters.result import FILE, PRECISIONS, USUAL, ExportedFile, ExportResult, read_export
from exporters.task import Task
from exporters.versions import versions

if TYPE_CHECKING:
    from compressor.generators import Generator
    from exporters.int8 import Tell

__all__ = ["FORMATS", "PRECISIONS", "USUAL", "export", "read_export"]

FORMATS = ("onnx", "tflite")
_AIMED = 0.8  # of the drop that is allowed
_MARGIN = 3.0  # dB from the calibration pictures to others: upscalers planned on T91 lost up to 3.3 on Set14


def export(
    generator: Generator,
    images: Sequence[Path],
    output: Path,
    *,
    formats: Sequence[str] = FORMATS,
    precisions: Sequence[str] = USUAL,
    size: tuple[int, int] | None = None,
    calibration: int = 16,
    parity_images: int = 4,
    resume: bool = False,
    images_held_out: Sequence[Path] | None = None,
    thresholds: dict[str, float] | None = None,
    int8_goal: float = 40.0,
    min_psnr: float | None = None,
    max_drop: float | None = None,
    reference: Path | None = None,
    dynamic: bool = False,
    opset: int = OPSET,
    processes: int | None = None,
    integer_io: str | None = None,
) -> ExportResult:
    """Write a generator as ONNX and TFLite files of several precisions, and compare each with PyTorch.

    Args:
        generator: what to export.
        images: real pictures; INT8 ranges are measured on `calibration` of them, spread evenly.
        output: the folder; it gets generator-PRECISION.FORMAT and export.json.
        formats: of "onnx" (onnxruntime, NCHW) and "tflite" (LiteRT, NHWC).
        precisions: of "fp32", "fp16", "int8" (static: ranges are measured beforehand), "int8-dynamic" (ranges
            are those of each picture) and "w8a16" (int8 weights, 16-bit activations; an ONNX file is then of
            opset 21 at the least). What a goal asks of INT8 it asks of the static one.
        size: input (height, width); by default the generator's usual one.
        calibration: pictures that INT8 is calibrated on.
        parity_images: pictures that every file is compared on, spread evenly.
        resume: go on with what is in `output`: finished files of the same settings are kept.
        images_held_out: pictures to compare on; by default `images`.
        thresholds: PSNR in dB that the worst picture of a file must reach, by precision, where it
            should differ from `exporters.parity.THRESHOLDS`.
        int8_goal: mean PSNR in dB that INT8 aims at on the hardest calibration pictures: as few layers
            as reach it stay float, and at most half of the arithmetic. Aimed at, not demanded. A generator
            that carries learned ranges keeps to them, and its INT8 files are compared with the network as
            it was trained, rounding and all.
        min_psnr: PSNR in dB that INT8 must reach on every picture it is compared on; takes the place of
            `int8_goal` and of INT8's threshold. INT8 is planned for 3 dB more, since those are other
            pictures, and as many layers stay float as that takes, however little is left to INT8.
        dynamic: ONNX files take pictures of any height and width that the network can; they are compared at
            a second size too. (TFLite has none: its files stay at `size`.)
        opset: of ONNX files, one of `exporters.onnx.OPSETS`.
        processes: 1: a process makes the files; 2: one makes those of each format; None: as many as cores and
            free memory allow; 0: this process makes them, and a converter that crashes takes it along.
        integer_io: "uint8" or "int8": the static INT8 TFLite file takes and gives a picture's bytes
            (`exporters.byte_pictures`); all others take and give float32.
        max_drop: dB that INT8's mean PSNR to the true pictures may be below that of the network in float, on
            the pictures compared on; takes the place of `int8_goal`, and is aimed a little lower. As many
            layers stay float as that takes.
        reference: with `max_drop`, the folder of true pictures, or a teacher's, found by the inputs' names.

    Raises:
        UsageError: an argument is not one of those allowed, or the network does not take the size.
        PocketganError: the network cannot be traced, a picture cannot be read, the ranges that it carries
            do not fit it, or the disk is full.
        GateError: at the end, when a file could not be made or is too far from PyTorch; all that was
            made is kept and written down.
    """
    if min_psnr is not None:
        if "int8" in (thresholds or {}):
            raise UsageError(
                "two limits for INT8",
                got="min_psnr and a threshold for int8",
                allowed="one of them",
                fix="--min-psnr also plans for what it asks; --threshold only checks",
            )
        int8_goal, thresholds = min_psnr + _MARGIN, {**(thresholds or {}), "int8": min_psnr}
    limits = _checked(generator, formats, precisions, size, thresholds)
    if opset not in OPSETS:
        allowed = f"{OPSETS.start} to {OPSETS.stop - 1}"
        raise UsageError("ONNX files of this opset cannot be written", got=opset, allowed=allowed)
    if (max_drop is None) != (reference is None) or (max_drop is not None and min_psnr is not None):
        raise UsageError(
            "a drop is measured against true pictures, and is asked for alone",
            got=f"--max-drop {max_drop}, --reference {reference}, --min-psnr {min_psnr}",
            allowed="--max-drop DB with --reference DIR; or --min-psnr DB",
            fix="--reference DIR: the wanted output of each picture, or what the teacher made of it",
        )
    if integer_io is not None and not (
        integer_io in ZERO_POINTS and "tflite" in formats and "int8" in precisions
    ):
        raise UsageError(
            "integer input and output are of static INT8 TFLite files",
            got=f"{integer_io} with {', '.join(formats)} in {', '.join(precisions)}",
            allowed=f"{' or '.join(ZERO_POINTS)}, tflite among the formats, int8 among the precisions",
        )
    shape = size or generator.spec.image.size
    calibrate, compare = spread(images, calibration), spread(images_held_out or images, parity_images)
    try_size(generator, shape)
    if dynamic:
        try_size(generator, other_size(shape, generator.spec.image.multiple))
    need_readable([*calibrate, *compare], generator.spec.image.channels[0])
    held_to: Truth | None = None
    if max_drop is not None and reference is not None:
        held_to = truth([*calibrate, *compare], reference, generator.spec.image, shape, max_drop)
        int8_goal = max_drop * _AIMED
    claim_folder(output, resume=resume)
    result = _described(generator, output, shape, calibrate, compare, limits, int8_goal, held_to)
    io = integer_io or "float32"
    more = {"dynamic": dynamic, "opset": opset, **({} if integer_io is None else {"integer_io": io})}
    result = replace(result, settings={**result.settings, **more})
    kept = {file.file: file for file in _finished(result)} if resume else {}

    wanted = {f"generator-{p}.{k}": (k, p) for k in FORMATS for p in PRECISIONS}
    asked = [name for name, (k, p) in wanted.items() if k in formats and p in precisions]
    left = [name for name in asked if name not in kept]
    tasks = [Task(output / name, *wanted[name], limits[wanted[name][1]]) for name in left]
    files = dict(kept)
    with Progress("export", total=len(asked), start=len(asked) - len(left)) as progress:
        demanded = min_psnr is not None or held_to is not None
        setup = (generator, shape, calibrate, compare, int8_goal, held_to, dynamic, opset, io, demanded)

        def told(what: str) -> None:
            progress.update(progress.done, doing=what)

        for file in _make(setup, tasks, processes, told):
            files[file.file] = file
            result = replace(result, files=tuple(files[name] for name in wanted if name in files))
            result.write()
            progress.update(progress.done + 1, **_shown(file))
    result = replace(result, files=tuple(files[name] for name in asked))
    result.write()
    _raise_if_failed(result)
    return result


def _make(
    setup: tuple[Any, ...], tasks: Sequence[Task], processes: int | None, tell: Tell
) -> Iterator[ExportedFile]:
    """The files' records, as they are done."""
    if not tasks:
        return
    if processes == 0:
        from exporters.job import Job

        job = Job(*setup)
        job.tell = tell
        yield from (task.do(job) for task in tasks)
        return
    formats = len({task.kind for task in tasks})
    with Lanes(setup, tasks, processes_for(formats) if processes is None else processes, tell) as lanes:
        yield from lanes.files()


def _checked(
    generator: Generator,
    formats: Sequence[str],
    precisions: Sequence[str],
    size: tuple[int, int] | None,
    thresholds: dict[str, float] | None,
) -> dict[str, float]:
    """Refuse arguments that cannot work; returns the PSNR limit of each precision."""
    for word, given, allowed in (("format", formats, FORMATS), ("precision", precisions, PRECISIONS)):
        unknown = sorted(set(given) - set(allowed))
        if unknown or not given:
            raise UsageError(f"no such export {word}", got=unknown or "none", allowed=", ".join(allowed))
    unknown = sorted(set(thresholds or {}) - set(PRECISIONS))
    if unknown:
        raise UsageError("no such precision for a threshold", got=unknown, allowed=", ".join(PRECISIONS))
    multiple = generator.spec.image.multiple
    if size is not None and (min(size) < 1 or any(side % multiple for side in size)):
        raise UsageError(
            "the network cannot take this input size", got=size, allowed=f"multiples of {multiple}"
        )
    return THRESHOLDS | (thresholds or {})


def _described(
    generator: Generator,
    output: Path,
    size: tuple[int, int],
    calibrate: Sequence[Path],
    compare: Sequence[Path],
    limits: dict[str, float],
    int8_goal: float,
    held_to: Truth | None,
) -> ExportResult:
    """The result before any file is made: what is exported, and what decides the files' content."""
    image = generator.spec.image
    return ExportResult(
        folder=output,
        generator={
            "name": generator.path.name,
            "sha256": generator.sha256,
            "family": generator.spec.family,
        },
        input={
            "shape": [1, image.channels[0], *size],
            "range": list(image.input_range),
            "output_range": list(image.output_range),
            "scale": image.scale,
        },
        settings={
            "calibration": _digest(calibrate),
            "calibration_images": len(calibrate),
            "parity": _digest(compare),
            "parity_images": len(compare),
            "thresholds_psnr": limits,
            **({"int8_goal_psnr": int8_goal} if held_to is None else _drop_settings(held_to)),
            "int8_ranges": "measured" if generator.ranges is None else "learned",
        },
        versions=versions(),
        files=(),
    )


def _drop_settings(held_to: Truth) -> dict[str, Any]:
    return {"int8_max_drop": held_to.limit, "truth": _digest(list(held_to.partners.values()))}


def _digest(paths: Sequence[Path]) -> str:
    """One hash over the pictures' bytes, in order."""
    try:
        return hashlib.sha256("".join(sha256(path) for path in paths).encode()).hexdigest()
    except OSError as error:
        raise PocketganError(f"{error.filename or 'a picture'} cannot be read", got=error.strerror) from error


def _finished(now: ExportResult) -> list[ExportedFile]:
    """Files of an earlier, interrupted or complete export with the same settings, whole on disk."""
    if not (now.folder / FILE).is_file():
        return []
    before = read_export(now.folder)
    same = all(getattr(before, part) == getattr(now, part) for part in ("input", "settings", "versions"))
    if not same or before.generator["sha256"] != now.generator["sha256"]:
        return []
    return [
        file
        for file in before.files
        if file.error is None
        and (now.folder / file.file).is_file()
        and sha256(now.folder / file.file) == file.sha256
    ]


def _shown(file: ExportedFile) -> dict[str, float | str]:
    if file.parity is None:
        return {"file": file.file, "failed": "yes"}
    return {"file": file.file, "psnr": file.parity.psnr_min}


def _reason(file: ExportedFile) -> str:
    """Why a file did not pass."""
    if file.parity is None:
        return str(file.error)
    if file.drop is not None and not file.drop.passed:
        return f"{file.drop.mean:.3f} dB further from the truth than in float, over {file.drop.limit:g} dB"
    return f"{file.parity.psnr_min:.1f} dB on {file.parity.worst}, under {file.parity.threshold_psnr:g} dB"


def _raise_if_failed(result: ExportResult) -> None:
    failed = [file for file in result.files if not file.passed]
    if not failed:
        return
    reasons = [f"{file.file}: {_reason(file)}" for file in failed]
    raise GateError(
        f"{len(failed)} of {len(result.files)} files did not pass",
        got="\n    ".join(reasons),
        fix=f"the others are in {result.folder}; export.json there has every figure",
    )
