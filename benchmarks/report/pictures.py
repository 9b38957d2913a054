"""Pictures as data URIs: the files as they are, or smaller previews when they would weigh too much."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report.records import KINDS, Evaluation, Fidelity
from benchmarks.report.watched import Watched

LIMIT = 3_000_000  # bytes of pictures in one page, before base64
_MOST = 12
_PREVIEWS = ((1024, 90), (640, 85), (400, 80), (256, 70))  # longest side, JPEG quality; the first that fits
_THUMBNAIL = 112
_FILM = 9  # sample pictures of one stage
_FRAME = (512, 80)  # their longest side, JPEG quality


@dataclass(frozen=True)
class Shown:
    """One picture on the page: `uris` by kind, all shown at the original output's aspect."""

    name: str
    width: int
    height: int
    uris: Mapping[str, str]
    thumbnail: str
    fidelity: Fidelity | None


@dataclass(frozen=True)
class Gallery:
    """The pictures, and what was done to them to keep the page small (None: nothing)."""

    pictures: tuple[Shown, ...]
    note: str | None


def gather(evaluation: Evaluation) -> Gallery:
    """Take up to 12 kept pictures in, in the order of eval.json; unreadable ones are passed over."""
    judged = {image.name: image for image in evaluation.images}
    order = [name for name in judged if name in evaluation.pictures]
    order += [name for name in evaluation.pictures if name not in judged]
    readable = {name: files for name in order if (files := _readable(evaluation.pictures[name]))}
    notes = []
    if len(readable) < len(order):
        notes.append(f"{len(order) - len(readable)} pictures cannot be read.")
    chosen = dict(list(readable.items())[:_MOST])
    if len(chosen) < len(readable):
        notes.append(f"The first {_MOST} of {len(readable)} pictures are shown.")
    encoded, note = _encode(chosen)
    notes += [note] if note else []
    shown = []
    for name, files in chosen.items():
        width, height = _measure(files["original"])
        shown.append(
            Shown(name, width, height, encoded[name], _thumbnail(files["compressed"]), judged.get(name))
        )
    return Gallery(tuple(shown), " ".join(notes) or None)


def filmstrip(watched: Watched) -> list[dict[str, Any]]:
    """Previews of at most nine samples, evenly spread, the first and the last among them."""
    count = len(watched.samples)
    chosen = sorted(
        {round(k * (count - 1) / max(1, min(_MOST, count) - 1)) for k in range(min(_MOST, count))}
    )
    shown = []
    for step, file in (watched.samples[index] for index in chosen):
        try:
            shown.append({"step": step, "uri": uri(preview(file, *_FRAME), "jpeg")})
        except (OSError, SyntaxError, ValueError):
            continue  # damaged: the others still show
    return shown


def _encode(chosen: Mapping[str, Mapping[str, Path]]) -> tuple[dict[str, dict[str, str]], str | None]:
    files = [file for kinds in chosen.values() for file in kinds.values()]
    if sum(file.stat().st_size for file in files) <= LIMIT:
        return {
            name: {kind: uri(file.read_bytes(), "png") for kind, file in kinds.items()}
            for name, kinds in chosen.items()
        }, None
    for side, quality in _PREVIEWS:
        previews = {
            name: {kind: preview(file, side, quality) for kind, file in kinds.items()}
            for name, kinds in chosen.items()
        }
        if sum(len(data) for kinds in previews.values() for data in kinds.values()) <= LIMIT:
            break
    return {
        name: {kind: uri(data, "jpeg") for kind, data in kinds.items()} for name, kinds in previews.items()
    }, (
        f"To keep this page small, pictures are JPEG previews of at most {side} pixels a side (quality "
        f"{quality}); the exact ones are in eval/images. PSNR and SSIM are of the exact ones."
    )


def _readable(kinds: Mapping[str, Path]) -> dict[str, Path]:
    """The files that decode; empty unless both sides of the comparison do."""
    from PIL import Image

    good = {}
    for kind in KINDS:
        if kind in kinds:
            try:
                with Image.open(kinds[kind], formats=["PNG"]) as image:
                    image.load()
                good[kind] = kinds[kind]
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
                continue
    return good if {"original", "compressed"} <= good.keys() else {}


def _measure(file: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(file) as image:
        return image.size


def preview(file: Path, side: int, quality: int) -> bytes:
    """A picture as JPEG, of at most `side` pixels a side."""
    from PIL import Image

    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _thumbnail(file: Path) -> str:
    return uri(preview(file, _THUMBNAIL, 80), "jpeg")


def uri(data: bytes, kind: str) -> str:
    """A file's bytes as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
