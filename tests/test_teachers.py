"""Teachers of every kind against each other, their cached outputs, and the batches drawn from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import Small
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from compressor.agd.teachers import FolderTeacher, NetworkTeacher, OutputCache, TaughtPictures, open_teacher
from compressor.agd.teachers.cache import key_of
from compressor.agd.teachers.pairs import match
from compressor.agd.teachers.taught import _spread
from compressor.data.images import list_images, read_image, to_tensor, write_image
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, GeneratorSpec, ImageFormat, load
from exporters.export import export

FORMAT = ImageFormat(size=(32, 32), multiple=4)
UPSCALING = ImageFormat((0.0, 1.0), (0.0, 1.0), size=(16, 16), scale=2)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for index in range(3):
        coarse = draw.random((10, 9, 3)).astype(np.float32)
        write_image(folder / f"{index}.png", np.kron(coarse, np.ones((4, 4, 1), np.float32)))
    return sorted(folder.iterdir())


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


class Enlarge(nn.Module):
    """An upscaler x2 that sees 3x3 neighbours; `calls` counts how often it was run."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return nn.functional.pixel_shuffle(self.conv(x), 2)


def upscaler() -> NetworkTeacher:
    return NetworkTeacher(
        Generator(GeneratorSpec("custom", {}, UPSCALING), Enlarge().eval(), Path("x"), "hash")
    )


def onnx_file(
    path: Path,
    *,
    channels_last: bool = False,
    upscale: bool = False,
    tanh: bool = True,
    size: tuple[int, int] | None = None,
) -> Path:
    """A model of free or given size: a 1x1 convolution and tanh; or each pixel twice as large, in 0..255."""
    height, width = size or ("h", "w")
    entry = [1, height, width, 3] if channels_last else [1, 3, height, width]
    weight = np.eye(3, dtype=np.float32)[:, :, None, None] * 0.5
    nodes, value = [], "in"
    if channels_last:
        nodes.append(helper.make_node("Transpose", [value], ["first"], perm=[0, 3, 1, 2]))
        value = "first"
    held = [numpy_helper.from_array(weight, "weight")]
    if upscale:
        held = [numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")]
        grown = helper.make_node(
            "Resize", [value, "", "scales"], ["grown"], mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip
        clip = helper.make_node("Clip", ["grown", "low", "high"], ["body"])
        held += [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 255))]
        nodes += [grown, clip]
    else:
        nodes.append(helper.make_node("Conv", [value, "weight"], ["mixed"]))
        nodes.append(helper.make_node("Tanh" if tanh else "Identity", ["mixed"], ["body"]))
    last = helper.make_node("Transpose", ["body"], ["out"], perm=[0, 2, 3, 1])
    nodes.append(last if channels_last else helper.make_node("Identity", ["body"], ["out"]))
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, entry)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        held,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


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


def test_batches_depend_on_seed_and_step_alone(pictures, tmp_path):
    def taught(folder: Path | None, seed: int = 1) -> TaughtPictures:
        return TaughtPictures(pictures, upscaler(), crop=16, batch=3, seed=seed, cache=OutputCache(folder))

    first, second = taught(tmp_path), taught(None)
    second.pair(7), second.pair(2)
    for ours, theirs in zip(first.pair(5), second.pair(5), strict=True):
        assert torch.equal(ours, theirs)
    again = taught(tmp_path)
    assert torch.equal(again.pair(5)[1], first.pair(5)[1])  # from the disk, bit by bit
    assert again.teacher.module.calls == 0
    assert not torch.equal(first(5), first(6)) and not torch.equal(first(5), taught(None, 2)(5))


def test_wanted_is_what_the_teacher_makes_with_the_surroundings_known(tmp_path):
    """A 3x3 upscaler: away from the picture's end, the inner part of a crop's own output is the wanted one;
    turned crops too, once turned back."""
    pixels = np.random.default_rng(2).random((70, 60, 3))
    write_image(tmp_path / "a.png", pixels)
    teacher = upscaler()
    taught = TaughtPictures(
        [tmp_path / "a.png"], teacher, crop=16, batch=6, cache=OutputCache(None), flip=False, turn=False
    )
    inputs, wanted = taught.pair(0)
    assert taught.frame == 2 and taught.inner(wanted).shape == (6, 3, 24, 24)
    made = teacher(inputs)
    assert torch.allclose(taught.inner(made), taught.inner(wanted), atol=1e-6)
    assert (made - wanted).abs().max() > 1e-3  # the frame is where they differ
    turning = TaughtPictures([tmp_path / "a.png"], teacher, crop=16, batch=6, cache=OutputCache(None))
    whole = to_tensor(read_image(tmp_path / "a.png"), (0.0, 1.0))
    large = teacher(whole)
    seen = set()
    for inputs, wanted in (turning.pair(step) for step in range(3)):
        for small, big in zip(inputs, wanted, strict=True):
            name, (top, left) = _find(whole[0], small)
            back = _undo(big, name)
            assert torch.equal(back, large[0, :, 2 * top : 2 * top + 32, 2 * left : 2 * left + 32])
            assert 16 <= top <= 70 - 32 and 16 <= left <= 60 - 32
            seen.add(name)
    assert len(seen) >= 5  # of 8 ways to lie


def _undo(values: torch.Tensor, name: tuple[int, bool]) -> torch.Tensor:
    turns, mirrored = name
    back = torch.rot90(values, -turns, (1, 2))
    return back.flip(2) if mirrored else back


def _find(whole: torch.Tensor, crop: torch.Tensor) -> tuple[tuple[int, bool], tuple[int, int]]:
    """How a crop was turned, and where it lies."""
    windows = whole.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1)
    for turns in range(4):
        for mirrored in (False, True):
            back = _undo(crop, (turns, mirrored))
            hits = (windows == back[:, None, None]).all(dim=(0, 3, 4)).nonzero()
            if len(hits):
                return (turns, mirrored), (int(hits[0, 0]), int(hits[0, 1]))
    raise AssertionError("no such crop in the picture")


def test_an_upscaler_of_fixed_size_is_shown_tiles(tmp_path):
    """Its outputs are each pixel four times, wherever the tile lies, whatever the picture's size."""
    path = onnx_file(tmp_path / "up.onnx", upscale=True, size=(24, 32))
    stated = {"input_range": (0.0, 1.0), "output_range": (0.0, 1.0)}
    teacher = open_teacher(path, stated=stated)
    assert teacher.fixed == (24, 32) and teacher.image.size == (24, 32)
    for index, size in enumerate([(70, 90), (24, 32), (9, 50)]):
        write_image(tmp_path / f"{index}.png", np.random.default_rng(index).random((*size, 3)))
    paths = sorted(tmp_path.glob("?.png"))
    taught = TaughtPictures(paths, teacher, UPSCALING, crop=16, batch=8, cache=OutputCache(None))
    for step in range(4):
        inputs, wanted = taught.pair(step)
        assert torch.equal(wanted, inputs.repeat_interleave(2, 2).repeat_interleave(2, 3))
    with pytest.raises(PocketganError, match="crop"):
        TaughtPictures(paths, teacher, UPSCALING, crop=28)


@pytest.mark.parametrize("have", [50, 256, 257, 300, 700, 1500])
def test_tiles_reach_every_crop(have):
    starts = _spread(have, 256, 64 + 32)
    assert starts[0] == 0 and starts[-1] == max(0, have - 256)
    for left in range(16, max(17, have - 64 - 16)):  # with 16 on both sides
        assert have <= 256 or any(s + 16 <= left and left + 64 + 16 <= s + 256 for s in starts)


def test_true_pictures_come_with_the_teachers(tmp_path):
    write_image(tmp_path / "a.png", np.random.default_rng(2).random((80, 70, 3)))
    taught = TaughtPictures([tmp_path / "a.png"], upscaler(), crop=16, cache=OutputCache(None), truth=True)
    inputs, wanted, true = taught.lesson(0)
    assert inputs.shape == (2, 3, 16, 16) and wanted.shape == true.shape == (2, 3, 32, 32)
    averaged = nn.functional.avg_pool2d(true, 2)
    assert (averaged - inputs).abs().mean() < 0.15 < (averaged.flip(3) - inputs).abs().mean()


def test_ranges_of_student_and_teacher_may_differ(pictures):
    student = ImageFormat((-1.0, 1.0), (0.0, 255.0), size=(16, 16), scale=2)
    ours = TaughtPictures(pictures, upscaler(), student, cache=OutputCache(None))
    theirs = TaughtPictures(pictures, upscaler(), cache=OutputCache(None))
    assert torch.allclose(ours.pair(3)[0], theirs.pair(3)[0] * 2 - 1, atol=1e-6)
    assert torch.allclose(ours.pair(3)[1], theirs.pair(3)[1] * 255, atol=1e-3)
    with pytest.raises(PocketganError, match="scale"):
        TaughtPictures(pictures, upscaler(), FORMAT)


def test_the_cache_is_exact_bounded_and_survives_damage(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {f"{index:02x}key": draw.standard_normal((3, 8, 8)).astype(np.float32) for index in range(6)}
    size = 3 * 8 * 8 * 4 + 128  # numpy's header
    cache = OutputCache(tmp_path, memory=2 * 768, disk=4 * size)
    for key, values in arrays.items():
        assert np.array_equal(cache.get(key, lambda values=values: values), values)
    files = sorted(tmp_path.glob("??/*.npy"))
    assert len(files) == 4  # what is in use is not thrown out for more of it
    later = OutputCache(tmp_path, disk=4 * size)
    assert np.array_equal(later.get("00key", lambda: pytest.fail("was kept")), arrays["00key"])
    later.get("ffkey", lambda: arrays["05key"])
    kept = {path.stem for path in tmp_path.glob("??/*.npy")}
    assert len(kept) == 4 and {"00key", "ffkey"} <= kept
    path = tmp_path / "00" / "00key.npy"
    path.write_bytes(path.read_bytes()[:-5])  # a disk that lost its end
    assert np.array_equal(OutputCache(tmp_path).get("00key", lambda: arrays["00key"]), arrays["00key"])
    assert np.array_equal(np.load(path), arrays["00key"])
    with pytest.raises(PocketganError, match="not numbers"):
        cache.get("new", lambda: np.full((1, 2, 2), np.nan))


def test_keys_tell_teachers_sizes_and_single_bits_apart():
    picture = np.zeros((1, 3, 4, 6), np.float32)
    changed = picture.copy()
    changed[0, 0, 0, 0] = np.nextafter(np.float32(0), np.float32(1))
    keys = {
        key_of("a", picture),
        key_of("b", picture),
        key_of("a", picture.reshape(1, 3, 6, 4)),
        key_of("a", changed),
    }
    assert len(keys) == 4
