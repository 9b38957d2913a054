"""The export's one flow, with real converters and runtimes, on a small network with every difficulty."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compressor.data.images import fit, read_image, to_tensor, write_image
from compressor.errors import GateError, UsageError
from compressor.generators import Generator, GeneratorSpec, ImageFormat
from compressor.quantisation.layers import layers
from exporters import graph as g
from exporters import int8, tflite
from exporters.export import export, read_export
from exporters.job import Job
from exporters.parity import check
from exporters.rewrite import normalise
from exporters.simulate import Simulated

SIX = {f"generator-{p}.{k}" for p in ("fp32", "fp16", "int8") for k in ("onnx", "tflite")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """Six pieces of a real photograph, 64x64."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    photo = data.astronaut() / 255.0
    for index in range(6):
        y, x = 60 * index, 70 * index
        write_image(folder / f"{index}.png", photo[y : y + 64, x : x + 64].astype(np.float32))
    return sorted(folder.iterdir())


class Wild(nn.Module):
    """Reflection padding, both norms, nearest upsampling, odd widths, and a small body for INT8."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, 13, 7),
            nn.InstanceNorm2d(13),
            nn.ReLU(True),
            nn.Conv2d(13, 37, 3, 2, 1),
            nn.BatchNorm2d(37),
            nn.ReLU(True),
            nn.Conv2d(37, 37, 3, 1, 1, groups=37),
            nn.InstanceNorm2d(37, affine=True),
            nn.PReLU(37),
            nn.Conv2d(37, 20, 1),
            nn.ReLU(True),
            nn.ConvTranspose2d(20, 9, 3, 2, 1, 1),
        )
        self.tail = nn.Conv2d(9, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.avg_pool2d(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"), 2)
        return torch.tanh(self.tail(self.body(x)) + y)


def generator(module: nn.Module, size: int = 64) -> Generator:
    module = module.eval().requires_grad_(False)
    spec = GeneratorSpec("custom", {"factory": "nowhere:wild"}, ImageFormat(size=(size, size)))
    return Generator(spec, module, Path("wild.pth"), "0" * 64)


@pytest.fixture(scope="module")
def wild() -> Generator:
    torch.manual_seed(0)
    return generator(Wild())


@pytest.fixture(scope="module")
def six(wild, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("six")
    return export(wild, photos[:4], folder, images_held_out=photos[4:], int8_goal=30.0)


def test_all_six_files_are_near_pytorch(six, wild, photos):
    assert {file.file for file in six.files} == SIX and six.passed
    for file in six.files:
        assert file.parity.psnr_min >= {"fp32": 90, "fp16": 50, "int8": 30}[file.precision], file
        assert [image.name for image in file.parity.images] == [p.name for p in photos[4:]]
    assert read_export(six.folder) == six
    assert {p.name for p in six.folder.iterdir()} == SIX | {"export.json"}
    # an independent look, without our runners
    x = to_tensor(read_image(photos[5]), (-1, 1))
    session = onnxruntime.InferenceSession(six.folder / "generator-fp32.onnx")
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], wild.module(x).numpy(), atol=1e-4)


def test_files_are_what_their_kind_says(six, wild):
    by_name = {file.file: file for file in six.files}
    whole = by_name["generator-fp32.onnx"].bytes
    assert 0.4 < by_name["generator-fp16.onnx"].bytes / whole < 0.7
    for file in six.files:
        assert file.bytes == (six.folder / file.file).stat().st_size
        if file.precision == "int8":
            kept = {f"{name}.weight" for name in file.float_layers}
            weights = {name: each for name, each in wild.module.named_parameters() if each.ndim == 4}
            rounded = sum(each.numel() for name, each in weights.items() if name not in kept)
            assert file.dtypes["int8"] >= rounded > 5000, file
        else:
            largest = max(file.dtypes, key=file.dtypes.get)
            assert largest == {"fp32": "float32", "fp16": "float16"}[file.precision], file
        if file.runtime == "litert":
            assert (file.delegation.partitions, file.delegation.delegated) == (1, file.delegation.nodes)
    kept = set(by_name["generator-int8.onnx"].float_layers)
    assert {"body.1", "tail", "body.12"} <= kept  # first, last, transposed
    assert kept == set(by_name["generator-int8.tflite"].float_layers)


def test_int8_is_held_to_the_psnr_that_was_asked(wild, photos, tmp_path):
    asked = {"formats": ("onnx",), "precisions": ("int8",), "images_held_out": photos[4:], "processes": 0}
    (file,) = export(wild, photos[:4], tmp_path / "met", **asked, min_psnr=25.0).files
    assert file.parity.threshold_psnr == 25.0 and file.parity.psnr_min >= 25
    with pytest.raises(GateError, match="under 90 dB"):
        export(wild, photos[:4], tmp_path / "missed", **asked, min_psnr=90.0)
    assert (tmp_path / "missed" / "generator-int8.onnx").exists()  # the best that there is


def test_metadata_says_what_the_file_is_and_how_to_feed_it(six):
    for file in six.files:
        content = (six.folder / file.file).read_bytes()
        if file.runtime == "onnxruntime":
            facts = {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props}
        else:
            tree = tflite.read(content)
            (entry,) = (entry for entry in tree.metadata if entry.name == b"pocketgan")
            facts = json.loads(bytes(tree.buffers[entry.buffer].data))
        assert facts["source_sha256"] == "0" * 64 and facts["precision"] == file.kind
        assert json.loads(facts["input_range"]) == [-1.0, 1.0] and facts["input_layout"] == file.input_layout
        assert facts["preprocessing"] == "input = byte / 255 * 2 + -1" and facts["input_sides"] == "64x64"
        assert int(facts["parameters"]) == sum(p.numel() for p in Wild().parameters())
        assert int(facts["macs"]) > 1_000_000 and facts["macs_at"] == "64x64"


def test_onnx_files_of_open_sides(wild, photos, tmp_path):
    spec = replace(wild.spec, image=replace(wild.spec.image, multiple=2))
    result = export(
        replace(wild, spec=spec),
        photos[:4],
        tmp_path,
        formats=("onnx",),
        images_held_out=photos[4:],
        int8_goal=30.0,
        dynamic=True,
        opset=20,
        processes=0,
    )
    assert result.passed
    for file in result.files:
        assert [image.name for image in file.parity.images][-1] == "4.png at 80x96"
        model = onnx.load(tmp_path / file.file)
        assert model.opset_import[0].version == 20
        session = onnxruntime.InferenceSession(tmp_path / file.file)
        for shape in ((1, 3, 64, 64), (1, 3, 40, 112)):
            x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
            made = session.run(None, {"input": x})[0]
            wanted = wild.module(torch.from_numpy(x)).numpy()
            allowed = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.5}[file.precision]
            assert np.abs(made - wanted).max() < allowed, (file.file, shape)


class FixedSides(nn.Module):
    """Knows its sides by heart."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + torch.ones(1, 3, 64, 64)


def test_a_network_of_fixed_sides_says_so(photos, tmp_path):
    with pytest.raises(UsageError, match="does not take a picture of 80x96"):
        export(generator(FixedSides()), photos, tmp_path, precisions=("fp32",), dynamic=True, processes=0)


def test_int8_files_run_their_planned_layers_on_integers(six):
    model = onnx.load(six.folder / "generator-int8.onnx")
    makers = {out: node.op_type for node in model.graph.node for out in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    integer = [n for n in convolutions if {makers.get(i) for i in n.input} == {"DequantizeLinear"}]
    file = next(f for f in six.files if f.file == "generator-int8.onnx")
    assert len(integer) >= 2
    assert len(integer) + len(file.float_layers) == len(convolutions) + 1  # one is transposed


def test_imitated_arithmetic_predicts_the_files(wild, photos, six):
    job = Job(wild, (64, 64), photos[:4], photos[4:], 30.0)
    plan, (graph, _) = job.plan, job.equalised
    chosen = [layer for layer in layers(graph)[0] if layer.name in plan.bounds]
    run = Simulated(graph, chosen, plan.bounds, plan.shifts)
    imitated = check(run, job.references, job.output_range, 0.0)
    for file in six.files:
        if file.precision == "int8":
            for image, expected in zip(file.parity.images, imitated.images, strict=True):
                assert image.psnr == pytest.approx(expected.psnr, abs=0.5)


def plain() -> nn.Module:
    """Five convolutions, quick to convert."""
    torch.manual_seed(0)
    parts = [part for _ in range(4) for part in (nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), *parts, nn.Conv2d(8, 3, 3, 1, 1))


def test_more_quality_costs_more_float_layers(photos):
    graph = g.capture(plain().eval().requires_grad_(False), torch.zeros(1, 3, 64, 64))
    normalise(graph)
    inputs = [to_tensor(read_image(p), (-1, 1)).numpy() for p in photos[:2]]
    judged = [("", x, graph(torch.from_numpy(x)).numpy()) for x in inputs]
    none, some = (int8.plan(graph, lambda: inputs, judged, (-1.0, 1.0), goal=goal) for goal in (1.0, 99.0))
    assert len(some.kept) > len(none.kept) and some.psnr > none.psnr
    assert set(none.bounds) - set(some.bounds) == set(some.kept) - set(none.kept)
    assert "out of reach" in some.notes[-1]
    demanded = int8.plan(graph, lambda: inputs, judged, (-1.0, 1.0), goal=99.0, demanded=True)
    assert len(demanded.bounds) == 1 < len(some.bounds)


def test_resume_keeps_finished_files_and_mends_the_rest(photos, tmp_path):
    wild = generator(plain())
    few = {
        "formats": ("onnx",),
        "precisions": ("fp32", "int8"),
        "images_held_out": photos[4:],
        "processes": 0,
    }
    whole = export(wild, photos[:4], tmp_path / "a", **few)
    with pytest.raises(Exception, match="already holds files"):
        export(wild, photos[:4], tmp_path / "a", **few)
    kept = (tmp_path / "a" / "generator-fp32.onnx").stat().st_mtime_ns
    (tmp_path / "a" / "generator-int8.onnx").write_bytes(b"half a fi")
    again = export(wild, photos[:4], tmp_path / "a", resume=True, **few)
    assert (tmp_path / "a" / "generator-fp32.onnx").stat().st_mtime_ns == kept
    strip = [(f.file, f.sha256, f.parity, f.float_layers) for f in whole.files]
    assert [(f.file, f.sha256, f.parity, f.float_layers) for f in again.files] == strip  # same figures
    # other settings: nothing is reused
    other = export(wild, photos[:3], tmp_path / "a", resume=True, **few)
    assert (tmp_path / "a" / "generator-fp32.onnx").stat().st_mtime_ns != kept
    assert other.settings["calibration_images"] == 3


class NoConverter(nn.Module):
    """Has an operation that no phone format knows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + torch.linalg.svdvals(x).mean()


def test_a_converter_that_fails_is_named_and_the_others_go_on(photos, tmp_path, capfd):
    with pytest.raises(GateError) as failure:
        export(generator(NoConverter()), photos, tmp_path, precisions=("fp32",), processes=0)
    result = read_export(tmp_path)
    assert [file.passed for file in result.files] == [False, False]
    for file in result.files:
        assert file.error and "failed" in file.error and not (tmp_path / file.file).exists()
        assert file.file in str(failure.value)
    assert capfd.readouterr().out == ""


def test_a_file_too_far_from_pytorch_is_kept_and_flagged(photos, tmp_path, capfd):
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 3, 3, 1, 1))
    with pytest.raises(GateError, match=r"generator-fp16.onnx: .* under 400 dB"):
        export(
            generator(module),
            photos,
            tmp_path,
            formats=("onnx",),
            precisions=("fp32", "fp16"),
            thresholds={"fp16": 400.0},
            processes=0,
        )
    result = read_export(tmp_path)
    assert [file.passed for file in result.files] == [True, False]
    assert (tmp_path / "generator-fp16.onnx").is_file()
    assert result.files[1].kind == "fp16-weights"  # the nearer of the two was taken
    assert capfd.readouterr().out == ""  # stdout belongs to --json


def test_arguments_that_cannot_work_are_refused_before_any_work(photos, tmp_path):
    small = generator(nn.Conv2d(3, 3, 1))
    for wrong in (
        {"formats": ("coreml",)},
        {"precisions": ("int4",)},
        {"precisions": ()},
        {"thresholds": {"int4": 1.0}},
        {"size": (0, 64)},
        {"opset": 11},
    ):
        with pytest.raises(UsageError):
            export(small, photos, tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_reading_an_export_and_the_names_of_export_load_no_torch():
    code = (
        "import sys, exporters.export, exporters.result, exporters.parity;"
        "import compressor.quantisation.calibration;"
        "assert not {'torch', 'onnx', 'onnxruntime', 'litert_torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_grey_pictures_and_other_sizes_are_made_to_fit(photos):
    grey = fit(read_image(photos[0], 1), (32, 48))
    assert to_tensor(grey, (0.0, 1.0)).shape == (1, 1, 32, 48)
