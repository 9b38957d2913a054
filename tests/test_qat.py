"""Quantisation-aware training: grids and gradients, what is learned and saved, and the files that keep it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import nn

from compressor.data.images import to_pixels, write_image
from compressor.errors import PocketganError, UsageError
from compressor.generators import Generator, load
from compressor.generators.spec import ImageFormat
from compressor.metrics.fidelity import psnr
from compressor.options import DistilOptions
from compressor.quantisation.fake import FakeQuantised
from compressor.quantisation.layers import sites
from compressor.quantisation.ranges import Bounds, LearnedRanges
from compressor.quantisation.rounding import fake_quantised, rounded, rounded_weight
from compressor.quantisation.start import begin, find_sites
from compressor.training import loop as loops
from compressor.training.distil import distil
from exporters import graph as g
from exporters.export import export
from exporters.runtime import open_onnx, open_tflite

FACTORY = "test_qat:Mixed"
FORMAT = ImageFormat(size=(32, 32), multiple=4)
QAT = DistilOptions(steps=6, batch=2, qat=True, samples=0, device="cpu", learning_rate=1e-3)
BOTH = {"generator-int8.onnx": open_onnx, "generator-int8.tflite": open_tflite}


class Mixed(nn.Module):
    """Every way a convolution's result is rounded: by itself, through a batch norm, a ReLU, before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(3, 12, 3), nn.InstanceNorm2d(12), nn.ReLU(True)
        )
        self.normed = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True))
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.instance = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16))
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.up = nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.tail = nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.normed(self.head(x))
        y = y + self.instance(self.depthwise(y))
        return torch.tanh(self.tail(self.up(torch.cat((torch.relu(self.left(y)), self.right(y)), 1))))


def untidy(module: nn.Module, seed: int = 0) -> nn.Module:
    """Channels and norms decades apart, as pruning and training leave them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.mul_(torch.logspace(-0.5, 0.5, len(part.weight)).reshape(-1, 1, 1, 1))
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(-1, 1), part.bias.uniform_(-0.5, 0.5)
                part.running_mean.uniform_(-0.2, 0.2), part.running_var.uniform_(0.2, 2)
    return module.eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    photo = data.astronaut() / 255.0
    for index in range(6):
        y, x = 60 * index, 70 * index
        write_image(folder / f"{index}.png", photo[y : y + 48, x : x + 48].astype(np.float32))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mixed") / "mixed.safetensors"
    save_file(untidy(Mixed()).state_dict(), path)
    return load(path, factory=FACTORY, image=FORMAT)


@pytest.fixture(scope="module")
def trained(mixed, photos, tmp_path_factory) -> Generator:
    return distil(mixed, mixed, photos, tmp_path_factory.mktemp("qat") / "model", QAT).generator


@pytest.fixture(scope="module")
def exported(trained, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return export(trained, photos[:4], folder, precisions=("int8",), images_held_out=photos[4:])


@pytest.mark.parametrize("bounds", [(-1.3, 2.7), (0.0, 0.9), (-4.0, 0.0), (-0.01, 5.0)])
def test_grids_are_those_of_torchs_own_fake_quantisation(bounds):
    x = 2 * torch.randn(2, 5, 6, 6)
    scale = (bounds[1] - bounds[0]) / 255
    zero = round(-bounds[0] / scale)
    wanted = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)
    low, high = map(torch.tensor, bounds)
    for made in (rounded(x, bounds), fake_quantised(x, low, high)):
        torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)
    divisor = torch.rand(1, 5, 1, 1) + 0.5
    made = fake_quantised(x, low, high, divisor)
    torch.testing.assert_close(made, fake_quantised(x / divisor, low, high) * divisor)

    weight = torch.randn(4, 3, 3, 3)
    scales = weight.abs().amax((1, 2, 3)) / 127
    wanted = torch.fake_quantize_per_channel_affine(weight, scales, torch.zeros(4), 0, -127, 127)
    torch.testing.assert_close(rounded_weight(weight), wanted)


@pytest.mark.parametrize("divided", [False, True])
def test_gradients_are_those_of_rounding_passed_straight_through(divided):
    """Against autograd over the formula written out, round(x) being x + (round(x) - x) without gradient."""
    torch.manual_seed(1)
    x = (2 * torch.randn(2, 4, 5, 5)).requires_grad_()
    low, high = (torch.tensor(value, requires_grad=True) for value in (-1.1, 1.7))
    divisor = torch.rand(1, 4, 1, 1) + 0.5 if divided else None
    outer = torch.randn(2, 4, 5, 5)

    def straight(values: torch.Tensor) -> torch.Tensor:
        return values + (torch.round(values) - values).detach()

    step = (high - low) / 255 * (1 if divisor is None else divisor)
    zero = straight(-low / ((high - low) / 255))
    written = (torch.clamp(straight(x / step) + zero, 0, 255) - zero) * step
    wanted = torch.autograd.grad((written * outer).sum(), (x, low, high))
    found = torch.autograd.grad((fake_quantised(x, low, high, divisor) * outer).sum(), (x, low, high))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_what_is_rounded_where():
    module = untidy(Mixed())
    places = {place.name: place for place in sites(module, g.capture(module, torch.zeros(1, 3, 32, 32)))}
    assert set(places) == {"normed.0", "depthwise", "instance.1", "left", "right"}
    normed, depthwise, instance = (places[name] for name in ("normed.0", "depthwise", "instance.1"))
    assert (normed.norm, normed.relu, normed.norm_eps) == ("normed.1", True, None)
    assert depthwise.input == normed.output  # one tensor, one range
    assert instance.input == depthwise.output  # past the padding too
    assert (instance.norm, instance.norm_eps) == (None, 1e-5)
    assert places["left"].relu and not places["right"].relu
    assert places["left"].input == places["right"].input == "left:input"  # the sum is no one's result


def test_a_network_without_plain_convolutions_is_refused():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(x, self.weight, padding=1)

    with pytest.raises(PocketganError, match="no convolution that can be trained for INT8"):
        find_sites(Functional().eval(), torch.zeros(1, 3, 8, 8))


def test_ranges_that_begin_too_wide_are_learned(photos):
    torch.manual_seed(0)
    module = untidy(Mixed())
    pictures = [torch.rand(1, 3, 32, 32) * 2 - 1 for _ in range(4)]
    places, _ = find_sites(module, pictures[0])
    start = begin(module, places, pictures, (-1, 1))
    wide = {name: (20 * low, 20 * high) for name, (low, high) in start.bounds.items()}
    network = dataclasses.replace(start, bounds=wide).network(module, places)
    plain = untidy(Mixed())
    plain.load_state_dict(module.state_dict())
    wanted = torch.cat([plain(picture) for picture in pictures]).detach()
    optimiser = torch.optim.Adam([network.growth], 0.05)

    def error() -> torch.Tensor:
        return (network(torch.cat(pictures)) - wanted).square().mean()

    before = error().item()
    for _ in range(40):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()
    assert error().item() < before / 10
    for bounds in network.learned().bounds.values():
        for low, high in (bounds.input, bounds.output):
            assert low <= 0 <= high
    assert network.learned().bounds["left"].output[0] == 0.0  # a ReLU's


def test_the_files_compute_what_was_trained(exported, trained):
    """Both runtimes beside the fake-quantised network, whose ranges they hold to the last bit."""
    assert exported.passed and exported.settings["int8_ranges"] == "learned"
    for file in exported.files:
        assert file.parity.psnr_min > 55, file
        assert file.kind == "int8-static" and max(file.dtypes, key=file.dtypes.get) == "int8"
        assert set(file.float_layers) == {"head.1", "up", "tail"}
        assert any("learned in training" in note for note in file.notes)
    model = onnx.load(exported.folder / "generator-int8.onnx")
    constants = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    found = {float(constants[n.input[1]]) for n in model.graph.node if n.op_type == "QuantizeLinear"}
    spans = [span for bounds in trained.ranges.bounds.values() for span in (bounds.input, bounds.output)]
    assert found == {float(np.float32((high - low) / 255)) for low, high in spans}
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert (facts["precision"], facts["int8_ranges"]) == ("int8-static", "learned in training")


@pytest.mark.parametrize("name", BOTH)
def test_the_files_follow_the_ranges(exported, trained, photos, name):
    """An independent run of each file; other ranges would not do."""
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    places, _ = find_sites(trained.module, x)
    file = to_pixels(BOTH[name]((exported.folder / name).read_bytes())(x.numpy()), (-1, 1))

    def near(ranges: LearnedRanges) -> float:
        network = FakeQuantised.of(trained.module, places, ranges)
        made = psnr(file, to_pixels(network(x), (-1, 1)))
        network.release()
        return made

    others = {
        layer: Bounds(tuple(1.37 * v for v in b.input), tuple(1.37 * v for v in b.output))
        for layer, b in trained.ranges.bounds.items()
    }
    assert near(trained.ranges) > 50
    assert near(trained.ranges) > near(dataclasses.replace(trained.ranges, bounds=others)) + 6


def test_training_moved_weights_and_ranges_and_the_folder_carries_both(trained, mixed):
    document = json.loads((trained.path / "distill.json").read_text())["quantisation"]
    assert document["float_layers"] == ["head.1", "up", "tail"]
    assert document["ranges_grew"]["least"] < 1 < document["ranges_grew"]["most"]
    again = load(trained.path, factory=FACTORY)
    assert again.ranges == trained.ranges and set(again.ranges.bounds) == set(document["layers"])
    assert set(again.ranges.divisors) == {"instance.1"}
    ours, theirs = again.module.state_dict(), mixed.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert not torch.equal(ours["left.weight"], theirs["left.weight"])
    for figure in ("running_mean", "running_var"):  # part of the convolution before, as in the files
        assert torch.equal(ours[f"normed.1.{figure}"], theirs[f"normed.1.{figure}"])


def test_stopped_and_resumed_ends_in_the_same_files(trained, mixed, photos, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    save = loops.Loop._save

    def save_then_die(self, step):
        save(self, step)
        if step == 4:
            raise Killed

    with monkeypatch.context() as context:
        context.setattr(loops, "_SAVE_EVERY", 0.0)
        context.setattr(loops.Loop, "_save", save_then_die)
        with pytest.raises(Killed):
            distil(mixed, mixed, photos, tmp_path / "out", QAT)
    with pytest.raises(PocketganError, match="qat"):
        other = dataclasses.replace(QAT, qat=False)
        distil(mixed, mixed, photos, tmp_path / "out", other, resume=True)
    distil(mixed, mixed, photos, tmp_path / "out", QAT, resume=True)
    for name in ("weights.safetensors", "quantisation.json", "distill.json"):
        assert (tmp_path / "out" / name).read_bytes() == (trained.path / name).read_bytes()


def test_plain_distillation_leaves_no_ranges(trained, mixed, photos, tmp_path):
    plain = distil(trained, mixed, photos, tmp_path / "d", dataclasses.replace(QAT, qat=False, steps=1))
    assert plain.generator.ranges is None and not (tmp_path / "d" / "quantisation.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"format": "pocketgan.quantisation/2"}, "does not know"),
        (lambda d: d | {"weights_sha256": "0" * 64}, "other weights"),
        (lambda d: d | {"layers": {"left": {"input": [1, 2], "output": [0, 1], "divisor": None}}}, "zero"),
        (lambda d: d | {"layers": {"left": {"input": [0, 1]}}}, "does not hold ranges"),
        (lambda d: d | {"layers": [1]}, "does not hold ranges"),
        (lambda d: d | {"layers": {"lost": d["layers"]["left"]}}, "lost"),
        (lambda d: d | {"layers": {"left": d["layers"]["left"] | {"divisor": [1.0] * 5}}}, "channels"),
    ],
)
def test_ranges_that_are_not_these_weights_own_are_refused(trained, tmp_path, change, message):
    for path in trained.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    document = json.loads((tmp_path / "quantisation.json").read_text())
    (tmp_path / "quantisation.json").write_text(json.dumps(change(document)))
    with pytest.raises(PocketganError, match=message):
        load(tmp_path, factory=FACTORY)


def test_export_refuses_ranges_that_do_not_fit_the_graph(trained, photos, tmp_path):
    ranges = trained.ranges
    left = ranges.bounds["left"]
    wrong = {
        "tail": {**ranges.bounds, "tail": left},  # a layer, but one that files keep in float
        "of one tensor": {**ranges.bounds, "left": Bounds((-9.0, 9.0), left.output)},
    }
    for message, bounds in wrong.items():
        misfit = dataclasses.replace(trained, ranges=LearnedRanges(bounds, ranges.divisors))
        with pytest.raises(PocketganError, match=message):
            export(misfit, photos, tmp_path / message, precisions=("int8",), formats=("onnx",), processes=0)
    unequal = LearnedRanges(ranges.bounds, {"left": (1.0,) * 8})
    with pytest.raises(PocketganError, match="no norm"):
        misfit = dataclasses.replace(trained, ranges=unequal)
        export(misfit, photos, tmp_path / "d", precisions=("int8",), formats=("onnx",), processes=0)


def test_bf16_would_round_what_is_rounded():
    with pytest.raises(UsageError, match=r"distill\.qat"):
        DistilOptions(qat=True, precision="bf16")
