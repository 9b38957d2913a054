"""Teachers of every kind against each other, their cached outputs, and the batches drawn from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from networks import Small
from safetensors.torch import save_file
from teaching import FORMAT, onnx_file, write_pictures

from compressor.agd.teachers import FolderTeacher, NetworkTeacher, OutputCache, TaughtPictures, open_teacher
from compressor.agd.teachers.pairs import match
from compressor.data.images import list_images, read_image, to_tensor, write_image
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, ImageFormat, load
from exporters.export import export


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generator") / "small.safetensors"
    save_file(Small().state_dict(), path)
    return load(path, factory="networks:Small", image=FORMAT)


@pytest.fixture(scope="module")
def exported(generator, pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "files"
    export(generator, pictures, folder, precisions=("fp32",), parity_images=1, processes=0)
    return folder


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_exported_files_teach_what_the_network_does(generator, exported, kind):
    teacher = open_teacher(exported / f"generator-fp32.{kind}")
    assert (teacher.image.input_range, teacher.image.output_range) == ((-1, 1), (-1, 1))
    assert teacher.image.scale == 1 and teacher.fixed == teacher.image.size == (32, 32)
    assert teacher.notes == ()  # all of it was read, none of it guessed
    batch = torch.rand(2, 3, 32, 32) * 2 - 1
    wanted = NetworkTeacher(generator)(batch)
    made = teacher(batch)
    assert made.shape == wanted.shape
    assert (made - wanted).abs().max() < 1e-4
    with pytest.raises(PocketganError, match="one size"):
        teacher(torch.zeros(1, 3, 64, 64))


def test_ranges_come_from_the_export_beside_only_if_it_is_of_this_file(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "files")
    told = json.loads((exported / "export.json").read_text())
    told["input"] |= {"range": [0, 255], "output_range": [0, 1]}
    (tmp_path / "files" / "export.json").write_text(json.dumps(told))
    path = tmp_path / "files" / "generator-fp32.tflite"
    first = open_teacher(path)
    assert (first.image.input_range, first.image.output_range) == ((0, 255), (0, 1))
    for file in told["files"]:
        file["sha256"] = "0" * 64
    (tmp_path / "files" / "export.json").write_text(json.dumps(told))
    second = open_teacher(path)
    assert (second.image.input_range, second.image.output_range) == ((-1, 1), (-1, 1))
    assert second.notes == ()  # the file says so itself
    assert first.identity != second.identity


def test_free_sizes_layouts_and_ranges_are_found_by_running(tmp_path):
    batch = torch.rand(2, 3, 20, 24) * 2 - 1
    for last in (False, True):
        teacher = open_teacher(onnx_file(tmp_path / f"{last}.onnx", channels_last=last))
        assert teacher.image == ImageFormat(size=(256, 256)) and teacher.fixed is None
        assert torch.allclose(teacher(batch), torch.tanh(batch / 2), atol=1e-6)
    large = open_teacher(onnx_file(tmp_path / "up.onnx", upscale=True))
    assert (large.image.scale, large.image.multiple) == (2, 1)
    small = torch.rand(1, 3, 5, 7)
    low, high = large.image.output_range
    given = small * (high - low) + low
    assert torch.allclose(large(given), given.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-4)


def test_a_range_that_cannot_be_told_must_be_given(tmp_path):
    path = onnx_file(tmp_path / "a.onnx", tanh=False)
    with pytest.raises(PocketganError, match="--input-range"):
        open_teacher(path)
    given = {"input_range": (0.0, 1.0), "output_range": (0.0, 2.0)}
    assert open_teacher(path, stated=given).image.output_range == (0.0, 2.0)
    with pytest.raises(UsageError, match="another scale"):
        open_teacher(path, stated={**given, "scale": 4})


@pytest.mark.parametrize("name", ["broken.onnx", "broken.tflite"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(PocketganError, match=name):
        open_teacher(tmp_path / name)
    with pytest.raises(PocketganError, match="no file"):
        open_teacher(tmp_path / f"absent-{name}")


@pytest.mark.parametrize(("name", "package"), [("a.onnx", "onnxruntime"), ("a.tflite", "ai-edge-litert")])
def test_a_missing_runtime_names_its_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(PocketganError, match=rf"(?s){package}.*pocketgan\[export\]"):
        open_teacher(tmp_path / name)


def test_a_factory_brings_its_own_weights():
    torch.manual_seed(0)
    first = open_teacher("networks:Small")
    second = open_teacher("networks:Small")
    assert first.identity != second.identity  # other random weights
    torch.manual_seed(0)
    assert open_teacher("networks:Small").identity == first.identity
    assert "assumed" in first.notes[0]


def test_outputs_in_a_folder_equal_the_network_up_to_8_bits(generator, pictures, tmp_path):
    network = NetworkTeacher(generator)
    first = TaughtPictures(pictures, network, crop=32, batch=1, cache=OutputCache(None), versions=1)
    for index, path in enumerate(pictures):
        output = first._piece(index, 0).output.transpose(1, 2, 0) / 2 + 0.5  # in [-1, 1]
        write_image(tmp_path / f"{path.stem}_fake.png", output)
    folder = open_teacher(pictures[0].parent, outputs=tmp_path, image=FORMAT)
    second = TaughtPictures(pictures, folder, crop=32, batch=4)
    first = TaughtPictures(pictures, network, crop=32, batch=4, cache=OutputCache(None), versions=1)
    for step in range(3):
        (inputs, wanted), (again, taught) = first.pair(step), second.pair(step)
        assert torch.equal(inputs, again)
        assert (wanted - taught).abs().max() <= 1.01 / 255
    with pytest.raises(PocketganError, match="knows only"):
        folder(torch.zeros(1, 3, 32, 32))


def test_names_are_matched_with_and_without_marks():
    def paths(*names: str) -> list[Path]:
        return [Path(name) for name in names]

    for ours, theirs in (
        (("a.png", "b.jpg"), ("b.png", "c.png", "a.png")),
        (("a1_real.png", "b2_real.png"), ("b2_fake.png", "a1_fake.png")),
        (("one_real.png",), ("one_fake.png",)),
        (("x-photo.png", "y-photo.png"), ("x.sr.png", "y.sr.png")),
    ):
        found = match(paths(*ours), paths(*theirs))
        assert [path.stem[0] for path in found.values()] == [path.stem[0] for path in found]
    with pytest.raises(PocketganError, match="1 of 2"):
        match(paths("a.png", "b.png"), paths("a.png", "c.png"))


def test_the_published_horses_are_a_teacher(shared_data):
    folder = shared_data / "horse2zebra"
    inputs = list_images(folder / "testA_real")
    teacher = open_teacher(folder / "testA_real", outputs=folder / "fake_horse2zebra_pretrained")
    assert isinstance(teacher, FolderTeacher) and len(teacher.partners) == 35
    for ours, theirs in teacher.partners.items():
        assert ours.stem.removesuffix("_real") == theirs.stem.removesuffix("_fake")
    picture = to_tensor(read_image(inputs[4]), (-1.0, 1.0))
    zebra = to_tensor(read_image(teacher.partners[inputs[4]]), (-1.0, 1.0))
    assert torch.equal(teacher(picture), zebra)
    inputs_of_step, wanted = TaughtPictures(inputs, teacher, batch=2, seed=5).pair(7)
    row = inputs_of_step[0]
    known = [to_tensor(read_image(path), (-1.0, 1.0))[0] for path in inputs]
    hits = [
        (path, mirrored)
        for path, whole in zip(inputs, known, strict=True)
        for mirrored in (False, True)
        if torch.equal(whole.flip(2) if mirrored else whole, row)
    ]
    (path, mirrored), *others = hits
    assert not others
    partner = to_tensor(read_image(teacher.partners[path]), (-1.0, 1.0))[0]
    assert torch.equal(partner.flip(2) if mirrored else partner, wanted[0])
