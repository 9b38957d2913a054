"""Files: our own folder, checkpoints that are damaged or refused, and what `inspect` tells."""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path

import pytest
import torch
import upstream_layouts as up
from safetensors.torch import save_file

from compressor.errors import PocketganError, UsageError
from compressor.generators import GeneratorSpec, load, save
from compressor.generators.inspection import inspect
from compressor.generators.spec import ImageFormat


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A generator in our own format."""
    torch.save(up.mobile_resnet((5, 6, 8), (3, 7), (4, 3)), tmp_path / "g.pth")
    found = load(tmp_path / "g.pth")
    save(found.spec, found.module, tmp_path / "ours", {"source_sha256": found.sha256, "seed": 3})
    return tmp_path / "ours"


def test_round_trip(folder: Path) -> None:
    first, again = load(folder.parent / "g.pth"), load(folder)
    assert again.spec == first.spec
    assert again.path == folder
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(first.module(x), again.module(x))
    assert json.loads((folder / "provenance.json").read_text())["source_sha256"] == first.sha256
    assert sorted(p.name for p in folder.iterdir()) == [
        "architecture.json",
        "provenance.json",
        "weights.safetensors",
    ]
    given = ImageFormat(size=(64, 64), multiple=4)
    assert load(folder, image=given).spec.image == given


def test_changed_widths_round_trip(tmp_path: Path) -> None:
    """A compressed network: widths beside the family's own arguments."""
    spec = GeneratorSpec(
        "resnet",
        {"width": 4, "blocks": 1},
        ImageFormat(multiple=4),
        widths={
            "model.10.conv_block.1": (16, 5),
            "model.10.conv_block.2": (5, 5),
            "model.10.conv_block.5": (5, 16),
        },
    )
    module = spec.build()
    assert module.state_dict()["model.10.conv_block.5.weight"].shape == (16, 5, 3, 3)
    save(spec, module, tmp_path / "small", {})
    again = load(tmp_path / "small")
    assert again.spec == spec
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(module(x), again.module(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"format": "pocketgan.generator/2"}, "of a format this version does not know"),
        (lambda d: d | {"more": 1}, "expected keys"),
        (lambda d: d | {"family": "gpt"}, "no such family"),
        (lambda d: d | {"arguments": d["arguments"] | {"depth": 3}}, "do not make a mobile_resnet"),
        (lambda d: d | {"arguments": d["arguments"] | {"down": [9, 6, 8]}}, "does not fit architecture.json"),
        (lambda d: d | {"arguments": d["arguments"] | {"down": [900000, 60000, 80000]}}, "does not fit"),
        (lambda d: d | {"arguments": d["arguments"] | {"down": "wide"}}, "do not make|3 widths down"),
        (lambda d: d | {"widths": {"model.99": [3, 4]}}, "a layer that the network lacks"),
        (lambda d: d | {"widths": {"model.1": [3]}}, "wrong kind"),
        (lambda d: d | {"image": d["image"] | {"size": [0, 4]}}, "wrong kind"),
        (lambda d: [d], "expected keys"),
    ],
)
def test_architecture_that_we_do_not_know(folder: Path, change: object, message: str) -> None:
    path = folder / "architecture.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(PocketganError, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["architecture.json", "weights.safetensors"])
def test_folder_without_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(PocketganError, match=f"has no {name}"):
        load(folder)


def test_custom_folder_runs_code_only_when_asked(tmp_path: Path) -> None:
    factory = f"{__name__}:Tiny"
    torch.save(Tiny().state_dict(), tmp_path / "t.pth")
    found = load(tmp_path / "t.pth", factory=factory)
    save(found.spec, found.module, tmp_path / "ours", {})
    with pytest.raises(UsageError, match="only when asked") as caught:
        load(tmp_path / "ours")
    assert f"--factory {factory}" in str(caught.value)
    with pytest.raises(UsageError, match="another factory"):
        load(tmp_path / "ours", factory="os:getcwd")
    again = load(tmp_path / "ours", factory=factory)
    assert torch.equal(again.module.state_dict()["conv.weight"], found.module.state_dict()["conv.weight"])


def test_a_known_family_needs_no_factory(folder: Path) -> None:
    with pytest.raises(UsageError, match="needs no factory"):
        load(folder, factory="a:b")


# Files that are damaged, or refused


class Evil:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("ran code of the checkpoint",))


def test_pickled_modules_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(Tiny(), tmp_path / "module.pth")
    torch.save({"state_dict": up.resnet(4, 1), "extra": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save(Tiny(), tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("module.pth", "evil.pth", "bare.pth", "legacy.pth"):
        with pytest.raises(PocketganError, match="could run any code") as caught:
            load(tmp_path / name)
        assert "state_dict()" in str(caught.value)
    assert "ran code" not in capfd.readouterr().out


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(Tiny()).save(tmp_path / "script.pt")
    with pytest.raises(PocketganError, match="could run any code"):
        load(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(3), "holds no state dict"),
        ([torch.ones(3)], "holds no state dict"),
        ({}, "holds no weights"),
        ({"epoch": 3}, "holds no weights"),
        ({"model.1.weight": torch.ones(3).to_sparse()}, "sparse"),
    ],
)
def test_content_without_weights(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "g.pth")
    with pytest.raises(PocketganError, match=message):
        load(tmp_path / "g.pth")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".png"])
@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(50), b"text\n", b"\x80\x04.", bytes(64)])
def test_files_of_another_kind(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"g{suffix}"
    path.write_bytes(content)
    with pytest.raises(PocketganError):
        load(path)


def test_no_file_empty_file_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(PocketganError, match="there is no file"):
        load(tmp_path / "g.pth")
    (tmp_path / "g.pth").touch()
    with pytest.raises(PocketganError, match="is empty"):
        load(tmp_path / "g.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PocketganError, match="has no architecture"):
        load(tmp_path / "folder")


def test_safetensors_with_a_lying_header(tmp_path: Path) -> None:
    for length in (0, 7, 2**40, 2**64 - 1):
        (tmp_path / "g.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":{}}')
        with pytest.raises(PocketganError):
            load(tmp_path / "g.safetensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damage_anywhere_is_an_error_or_harmless(kind: str, tmp_path: Path) -> None:
    """Cut short at many places and with bytes changed, a file gives a clear error or a generator."""
    state, path = up.srvgg(2, 1, 2), tmp_path / ("g.safetensors" if kind == "safetensors" else "g.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole, dice = path.read_bytes(), random.Random(7)
    for length in [*range(1, 40, 3), *(dice.randrange(len(whole)) for _ in range(40)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(PocketganError):
            load(path)
    for _ in range(120):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 1, 8))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            load(path)
        except PocketganError as error:
            assert len(str(error)) < 2000


def test_inspection(folder: Path) -> None:
    found = inspect(folder)
    assert found.family == "mobile_resnet"
    assert found.input_shape == (1, 3, 256, 256)
    assert found.cost.parameters == sum(p.numel() for p in load(folder).module.parameters())
    document = json.loads(json.dumps(found.as_json()))
    assert document["architecture"]["arguments"]["inner"] == [3, 7]
    assert document["cost"]["macs"] == found.cost.macs
    assert inspect(folder, size=(128, 128)).cost.macs * 4 == found.cost.macs
    with pytest.raises(PocketganError, match="multiples of 4"):
        inspect(folder, size=(130, 128))
