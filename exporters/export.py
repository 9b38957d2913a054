"""From a generator to its files: convert, compare each with PyTorch on real pictures, write it all down."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.data.images import need_readable
from compressor.errors import GateError, PocketganError, UsageError
from compressor.files import atomic, claim_folder, sha256
from compressor.generators.trial import try_size
from compressor.progress import Progress
from exporters.chatter import kept_quiet
from exporters.drop import Truth, truth
from exporters.parity import THRESHOLDS, check
from exporters.result import FILE, ExportedFile, ExportResult, read_export
from exporters.versions import versions

if TYPE_CHECKING:
    from compressor.generators import Generator
    from exporters.job import Job, Made

__all__ = ["FORMATS", "PRECISIONS", "export", "read_export"]

FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8")
_AIMED = 0.8  # of the drop that is allowed
_MARGIN = 1.0  # dB from the calibration pictures, which INT8 is planned on, to those it is held to
_RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


def export(
    generator: Generator,
    images: Sequence[Path],
    output: Path,
    *,
    formats: Sequence[str] = FORMATS,
    precisions: Sequence[str] = PRECISIONS,
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
) -> ExportResult:
    """Write a generator as ONNX and TFLite files of several precisions, and compare each with PyTorch.

    Args:
        generator: what to export.
        images: real pictures; INT8 ranges are measured on `calibration` of them, spread evenly.
        output: the folder; it gets generator-PRECISION.FORMAT and export.json.
        formats: of "onnx" (onnxruntime, NCHW) and "tflite" (LiteRT, NHWC); input and output are float32.
        precisions: of "fp32", "fp16" and "int8".
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
            `int8_goal` and of INT8's threshold. It is aimed a little higher, since those are other pictures.
        max_drop: dB that INT8's mean PSNR to the true pictures may be below that of the network in float, on
            the pictures compared on; takes the place of `int8_goal`, and is aimed a little lower.
        reference: with `max_drop`, the folder of true pictures, or a teacher's, found by the inputs' names.

    Raises:
        UsageError: an argument is not one of those allowed, or the network does not take the size.
        PocketganError: the network cannot be traced, a picture cannot be read, the ranges that it carries
            do not fit it, or the disk is full.
        GateError: at the end, when a file could not be made or is too far from PyTorch; all that was
            made is kept and written down.
    """
    from exporters.job import Job

    if min_psnr is not None:
        int8_goal, thresholds = min_psnr + _MARGIN, {**(thresholds or {}), "int8": min_psnr}
    limits = _checked(generator, formats, precisions, size, thresholds)
    if (max_drop is None) != (reference is None) or (max_drop is not None and min_psnr is not None):
        raise UsageError(
            "a drop is measured against true pictures, and is asked for alone",
            got=f"--max-drop {max_drop}, --reference {reference}, --min-psnr {min_psnr}",
            allowed="--max-drop DB with --reference DIR; or --min-psnr DB",
            fix="--reference DIR: the wanted output of each picture, or what the teacher made of it",
        )
    shape = size or generator.spec.image.size
    calibrate, compare = _spread(images, calibration), _spread(images_held_out or images, parity_images)
    try_size(generator, shape)
    need_readable([*calibrate, *compare], generator.spec.image.channels[0])
    held_to: Truth | None = None
    if max_drop is not None and reference is not None:
        held_to = truth([*calibrate, *compare], reference, generator.spec.image, shape, max_drop)
        int8_goal = max_drop * _AIMED
    claim_folder(output, resume=resume)
    job = Job(generator, shape, calibrate, compare, int8_goal, held_to)
    result = _described(generator, output, shape, calibrate, compare, limits, int8_goal, held_to)
    kept = {file.file: file for file in _finished(result)} if resume else {}

    wanted = [(kind, precision) for kind in FORMATS for precision in PRECISIONS]
    asked = [(kind, precision) for kind, precision in wanted if kind in formats and precision in precisions]
    files = dict(kept)
    with Progress("export", total=len(asked)) as progress:
        for done, (kind, precision) in enumerate(asked, start=1):
            name = f"generator-{precision}.{kind}"
            if name not in kept:
                files[name] = _one(job, output / name, kind, precision, limits[precision])
                in_order = [f"generator-{p}.{k}" for k, p in wanted]
                result = replace(result, files=tuple(files[n] for n in in_order if n in files))
                result.write()
            progress.update(done, **_shown(files[name]))
    result = replace(result, files=tuple(files[f"generator-{p}.{k}"] for k, p in wanted if (k, p) in asked))
    result.write()
    _raise_if_failed(result)
    return result


def _one(job: Job, path: Path, kind: str, precision: str, threshold: float) -> ExportedFile:
    """Make one file, compare it and write it; a converter's failure becomes the record's `error`."""
    began = time.monotonic()
    record = ExportedFile(
        file=path.name,
        runtime=_RUNTIMES[kind],
        precision=precision,
        kind=precision,
        input_layout="NCHW" if kind == "onnx" else "NHWC",
    )
    # Outside of the try: pictures that cannot be read and ranges that do not fit are no converter's fault.
    pictures = job.references_of(precision)
    try:
        made: Made = job.make(kind, precision, threshold)
        with kept_quiet("running the file"):
            run = made.open()
            parity = check(run, pictures, job.output_range, threshold)
            drop = job.drop(precision, run)
    except PocketganError as error:
        path.unlink(missing_ok=True)  # of an earlier try
        return replace(record, error=str(error), seconds=round(time.monotonic() - began, 2))
    with atomic(path) as file:
        file.write(made.content)
    return replace(
        record,
        kind=made.kind,
        bytes=len(made.content),
        sha256=hashlib.sha256(made.content).hexdigest(),
        seconds=round(time.monotonic() - began, 2),
        parity=parity,
        dtypes=made.dtypes,
        delegation=made.delegation,
        float_layers=made.float_layers,
        notes=made.notes,
        trade=made.trade,
        drop=drop,
        departures=made.departures,
    )


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


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` pictures, evenly over the list, always the same."""
    if not paths:
        raise PocketganError("export needs real pictures to calibrate on and to compare with")
    count = max(1, min(count, len(paths)))
    return [paths[int((index + 0.5) * len(paths) / count)] for index in range(count)]


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
