"""Fuzzed: checkpoints of torch.save and safetensors, and generators in our own format."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fuzz.mutations import as_json, each_of, renamed, some_bytes, some_json, some_tree
from benchmarks.fuzz.target import Files, Target

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

FORBIDDEN = "pocketgan-fuzz-ran-code"  # the folder that hostile pickles would make
_FAMILIES: dict[str, dict[str, Any]] = {
    "srvgg": {"features": 4, "convolutions": 1, "scale": 2},
    "resnet": {"width": 2, "blocks": 1},
    "srresnet": {"features": 4, "blocks": 1},
}


class _Hostile:
    """A pickle that calls something when it is read without care."""

    def __init__(self, call: Any, *arguments: Any):
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@cache
def _states() -> list[dict[str, Any]]:
    import torch

    from compressor.generators.families import construct

    torch.manual_seed(0)
    return [construct(family, arguments).state_dict() for family, arguments in _FAMILIES.items()]


def _saved(content: Any, **how: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def _pth() -> SearchStrategy[Files]:
    from hypothesis import strategies as st

    plain = [_saved(state) for state in _states()]
    old = [_saved(state, _use_new_zipfile_serialization=False) for state in _states()]
    content = st.one_of(
        st.sampled_from(plain + old).flatmap(some_bytes),
        st.sampled_from(plain).flatmap(_members),
        st.sampled_from(_states()).flatmap(_entries).map(_saved),
        _pickles(),
    )
    return content.map(lambda made: {"a.pth": made})


def _members(whole: bytes) -> SearchStrategy[bytes]:
    """A zip archive with its members damaged, left out, renamed or doubled, and their checksums right."""
    from hypothesis import strategies as st

    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]

    @st.composite
    def damaged(draw: DrawFn) -> bytes:
        changed = draw(st.integers(0, len(members) - 1))
        how = draw(st.sampled_from(("pickle", "bytes", "drop", "rename", "double", "empty")))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number, (name, content) in enumerate(members):
                if how == "pickle" and name.endswith("data.pkl"):
                    content = draw(some_bytes(content))
                if number == changed:
                    if how == "drop":
                        continue
                    name = draw(renamed(name)) or "x" if how == "rename" else name
                    content = draw(some_bytes(content)) if how == "bytes" else content
                    content = b"" if how == "empty" else content
                    if how == "double":
                        archive.writestr(name + "2", content)
                archive.writestr(name.encode("utf-8", "replace").decode(), content)
        return buffer.getvalue()

    return damaged()


def _entries(state: dict[str, Any]) -> SearchStrategy[Any]:
    """What a training program might have saved instead of this state dict."""
    from hypothesis import strategies as st

    @st.composite
    def damaged(draw: DrawFn) -> Any:
        made = dict(state)
        for _ in range(draw(st.integers(0, 4))):
            if not made:
                break
            key = draw(st.sampled_from(list(made)))
            match draw(st.sampled_from(("rename", "drop", "swap", "other", "other"))):
                case "rename":
                    made[draw(renamed(key))] = made.pop(key)
                case "drop":
                    del made[key]
                case "swap":
                    other = draw(st.sampled_from(list(made)))
                    made[key], made[other] = made[other], made[key]
                case "other":
                    made[key] = _instead(made[key], draw(st.sampled_from(_INSTEAD)))
        match draw(st.sampled_from(("plain", "wrap", "two", "deep", "list", "prefix", "number"))):
            case "wrap":
                return {draw(st.sampled_from(("state_dict", "params", "G", "mine", 0))): made, "step": 3}
            case "two":
                return {"one": made, "two": made}
            case "deep":
                for _ in range(draw(st.sampled_from((3, 5, 100)))):
                    made = {"x": made}
            case "list":
                return [made]
            case "prefix":
                return {draw(st.sampled_from(("module.", "x.", ".", ""))) + k: v for k, v in made.items()}
            case "number":
                return dict(enumerate(made.values()))
        return made

    return damaged()


_INSTEAD = ("scalar", "nan", "bool", "int", "half", "complex", "sparse", "quantised", "empty", "wide", "list",
            "flat", "grown", "none", "view", "meta", "parameter")  # fmt: skip


_MOST = 1 << 24  # numbers of a tensor that is computed with


def _instead(value: Any, kind: str) -> Any:
    """Something that a checkpoint may hold in a weight's place."""
    import torch

    if isinstance(value, torch.Tensor) and value.numel() > _MOST:
        return value  # a view that was blown up before
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        return value
    match kind:
        case "scalar":
            return torch.tensor(1.5)
        case "nan":
            return torch.full_like(value, torch.nan) if value.is_floating_point() else value
        case "bool":
            return value != 0
        case "int":
            return value.to(torch.int64) if not value.is_complex() else value
        case "half":
            return value.half() if not value.is_complex() else value
        case "complex":
            return value.to(torch.complex64)
        case "sparse":
            return value.to_sparse()
        case "quantised":
            return (
                torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
                if not value.is_complex()
                else value
            )
        case "empty":
            return value.new_zeros((0, *value.shape[1:]))
        case "wide":  # a terabyte in four bytes
            return value.new_zeros(1).expand(1 << 20, 1 << 18, 1, 1)
        case "flat":
            return value.flatten()
        case "grown":
            return torch.cat([value, value]) if value.ndim else value
        case "view":
            return value.transpose(0, -1) if value.ndim > 1 else value
        case "meta":
            return value.to("meta")
        case "parameter":
            return torch.nn.Parameter(value) if value.is_floating_point() else value
        case "list":
            return [1, 2]
    return None


def _pickles() -> SearchStrategy[bytes]:
    """Pickles that would run code, as torch.save writes them and bare."""
    import os
    import subprocess

    import torch
    from hypothesis import strategies as st

    folder = str(Path(tempfile.gettempdir()) / FORBIDDEN)
    calls = [
        _Hostile(os.mkdir, folder),
        _Hostile(os.system, f"mkdir {folder}"),
        _Hostile(subprocess.Popen, ["mkdir", folder]),
        _Hostile(eval, f"__import__('os').mkdir({folder!r})"),
        _Hostile(exec, f"import os; os.mkdir({folder!r})"),
        _Hostile(torch.load, folder),
        torch.nn.Conv2d(3, 4, 3),
    ]
    made = []
    for call in calls:
        for content in (call, {"state_dict": {"weight": call}}, {"weight": torch.zeros(1), "x": call}):
            made += [_saved(content), _saved(content, _use_new_zipfile_serialization=False)]
            made += [pickle.dumps(content, protocol) for protocol in (0, 2, 5) if call is not calls[-1]]
    return st.sampled_from(made) | st.sampled_from(made).flatmap(some_bytes)


def _safetensors(state: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    return save({key: value.contiguous() for key, value in state.items()}, metadata={"format": "pt"})


def _damaged_safetensors(whole: bytes) -> SearchStrategy[bytes]:
    """The header's tree changed, with its length right, or any bytes."""
    from hypothesis import strategies as st

    (length,) = struct.unpack("<Q", whole[:8])
    body = whole[8 + length :]

    def put(header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + body

    return st.one_of(some_tree(json.loads(whole[8 : 8 + length])).map(as_json).map(put), some_bytes(whole))


def _files() -> SearchStrategy[Files]:
    from hypothesis import strategies as st

    wholes = [_safetensors(state) for state in _states()]
    return st.sampled_from(wholes).flatmap(_damaged_safetensors).map(lambda made: {"a.safetensors": made})


def _read_pth(folder: Path) -> None:
    from compressor.generators import load

    load(folder / "a.pth")


def _read_safetensors(folder: Path) -> None:
    from compressor.generators import load

    load(folder / "a.safetensors")


def _folders() -> SearchStrategy[Files]:
    from hypothesis import strategies as st

    def damaged(files: Files) -> SearchStrategy[Files]:
        def how(name: str, content: bytes) -> SearchStrategy[bytes]:
            return some_json(json.loads(content)) if name.endswith("json") else _damaged_safetensors(content)

        return each_of(files, how)

    return st.sampled_from(_generators()).flatmap(damaged)


def _generators() -> list[Files]:
    """Folders of ours: as published, with pruned widths and learned ranges, and out of a search space."""
    from compressor.agd.definition import read_space
    from compressor.agd.space import Choice
    from compressor.agd.supernet import spec_of
    from compressor.generators import save
    from compressor.generators.spec import GeneratorSpec, ImageFormat
    from compressor.quantisation.ranges import Bounds, LearnedRanges

    image = ImageFormat(size=(16, 16))
    upscaler = ImageFormat((0.0, 1.0), (0.0, 1.0), (16, 16), scale=2)
    widths = {"body.0": (3, 3), "body.1": (3, 3), "body.2": (3, 12)}
    pruned = GeneratorSpec("srvgg", {**_FAMILIES["srvgg"], "convolutions": 0}, upscaler, widths)
    layers = [
        {"name": "head", "operators": ["conv3x3", "residual"], "widths": [2, 4]},
        {"name": "tail", "operators": ["conv3x3"], "width": 3},
    ]
    space = read_space({"name": "tiny", "image": {"size": [16, 16]}, "layers": layers})
    searched = spec_of(space, Choice.narrowest(space))
    ranges = LearnedRanges({"body.0": Bounds((-1.0, 1.0), (0.0, 2.0))}, {"body.0": (1.0, 1.0, 2.0)})
    made = []
    for spec in (GeneratorSpec("resnet", _FAMILIES["resnet"], image), pruned, searched):
        with tempfile.TemporaryDirectory() as folder:
            save(spec, spec.build(), Path(folder), {}, ranges if spec is pruned else None)
            made.append({path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())})
    return made


def _read_folder(folder: Path) -> None:
    from compressor.generators import load
    from compressor.generators.inspection import describe

    json.dumps(describe(load(folder)).as_json(), allow_nan=False)


TARGETS = {
    "checkpoint.pth": Target("torch.save's checkpoints", _pth, _read_pth),
    "checkpoint.safetensors": Target("safetensors", _files, _read_safetensors),
    "generator folder": Target("architecture.json, weights, quantisation.json", _folders, _read_folder),
}
