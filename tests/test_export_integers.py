"""Dynamic INT8, w8a16 and files of bytes, with real converters and runtimes: what they hold and give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from click.testing import CliRunner
from onnx import numpy_helper
from torch import nn

from benchmarks.exported import list_files
from benchmarks.on_phone import _compared, _entries
from compressor.agd.teachers.files import FileTeacher
from compressor.data.images import read_image, to_pixels, to_tensor
from compressor.errors import UsageError
from compressor.generators.families import construct
from devices.isolated import IsolatedSession
from exporters import quantise_onnx, tflite
from exporters.apply.painter import open_file
from exporters.byte_pictures import BYTES, moved
from exporters.export import export, read_export
from exporters.job import Job
from exporters.runtime import open_onnx, tflite_interpreter
from pocketgan.cli import main
from tests.test_export import generator, photos  # noqa: F401 - a fixture

FOUR = {f"generator-{p}.{k}" for p in ("int8-dynamic", "w8a16") for k in ("onnx", "tflite")}


class Small(nn.Module):
    """A convolution of each kind that integers meet, between a first and a last one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + self.body(x))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return generator(Small())


@pytest.fixture(scope="module")
def four(small, photos, tmp_path_factory):  # noqa: F811
    return export(
        small,
        photos[:4],
        tmp_path_factory.mktemp("four"),
        images_held_out=photos[4:],
        precisions=("int8-dynamic", "w8a16"),
        processes=0,
    )


def test_files_are_what_they_are_called_and_near_pytorch(four):
    assert {file.file for file in four.files} == FOUR and four.passed
    assert read_export(four.folder) == four
    assert [item.precision for item in list_files([four.folder])] == ["int8-dynamic", "w8a16"] * 2
    for file in four.files:
        assert file.kind == file.precision and file.bytes == (four.folder / file.file).stat().st_size
        assert file.parity.psnr_min > {"int8-dynamic": 40, "w8a16": 60}[file.precision], file
        floated = {"body.0", "body.7", *(["body.5"] if file.precision == "int8-dynamic" else [])}
        assert set(file.float_layers) == floated
        integers = 16 * 8 * 9 + 8 * 16 + (16 * 9 if file.precision == "w8a16" else 0)
        stored = "uint8" if file.file == "generator-int8-dynamic.onnx" else "int8"
        assert integers <= file.dtypes[stored] <= integers + 64, file.dtypes  # and zero points


def test_the_onnx_files_hold_the_arithmetic_they_name(four):
    model = onnx.load(four.folder / "generator-int8-dynamic.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("ConvInteger"), kinds.count("Conv")) == (2, 3)
    assert kinds.count("DynamicQuantizeLinear") == 2
    model = onnx.load(four.folder / "generator-w8a16.onnx")
    assert model.opset_import[0].version == 21
    zeros = {c.name: numpy_helper.to_array(c).dtype.name for c in model.graph.initializer}
    levels = [zeros[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert levels and set(levels) == {"uint16"}


def test_the_tflite_files_hold_the_arithmetic_they_name(four):
    by_name = {file.file: file for file in four.files}
    whole = by_name["generator-int8-dynamic.tflite"]
    assert (whole.delegation.partitions, whole.delegation.delegated) == (1, whole.delegation.nodes)
    wide = by_name["generator-w8a16.tflite"]
    left = [each.operator for each in wide.departures]
    assert left.count("CONV_2D") == 2 and left.count("DEPTHWISE_CONV_2D") == 1
    assert {each.why for each in wide.departures} == {"XNNPACK has no 16-bit integers"}
    tree = tflite.read((four.folder / wide.file).read_bytes())
    graph = tree.subgraphs[0]
    types = [graph.tensors[int(op.outputs[0])].type for op in graph.operators]
    assert types.count(7) >= 3  # int16
    (entry,) = (entry for entry in tree.metadata if entry.name == b"pocketgan")
    facts = json.loads(bytes(tree.buffers[entry.buffer].data))
    assert facts["precision"] == "w8a16" and "int8_ranges" not in facts


def convolution(weight: np.ndarray, bias: np.ndarray | None, **attributes) -> onnx.ModelProto:
    """One convolution of the input, its weight named as the exporter names it."""
    helper, side = onnx.helper, 12
    inputs = ["input", "layer.weight", *(["layer.bias"] if bias is not None else [])]
    constants = [numpy_helper.from_array(weight, "layer.weight")]
    constants += [numpy_helper.from_array(bias, "layer.bias")] if bias is not None else []
    free = helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, len(weight), None, None])
    fed = helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, weight.shape[1], side, side])
    node = helper.make_node("Conv", inputs, ["output"], "conv", **attributes)
    graph = helper.make_graph([node], "one", [fed], [free], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("attributes", [{}, {"pads": [1] * 4, "strides": [2, 2]}, {"dilations": [2, 2]}])
@pytest.mark.parametrize("biased", [False, True])
def test_dynamic_arithmetic_is_the_float_one_on_rounded_numbers(attributes, biased):
    """Against the definition: activations on 256 levels over their range, weights on 255 a channel."""
    draw = np.random.default_rng(0)
    weight = (draw.normal(size=(5, 4, 3, 3)) * 10.0 ** np.arange(-2, 3)[:, None, None, None]).astype("f4")
    bias = draw.normal(size=5).astype("f4") if biased else None
    picture = draw.uniform(-1, 3, (1, 4, 12, 12)).astype("f4")
    whole = convolution(weight, bias, **attributes)
    model, found = quantise_onnx.dynamic(whole, {"layer", "elsewhere"})
    assert found == {"layer"}
    scale = (picture.max() - picture.min()) / np.float32(255)
    zero = np.rint(-picture.min() / scale)
    entry = (np.clip(np.rint(picture / scale) + zero, 0, 255) - zero) * scale
    scales = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    expected = open_onnx(
        convolution(np.rint(weight / scales) * scales, bias, **attributes).SerializeToString()
    )(entry)
    made = open_onnx(model.SerializeToString())(picture)
    reach = np.abs(expected).max((0, 2, 3), keepdims=True)
    assert (np.abs(made - expected) / reach).max() < 1e-4
    plain = open_onnx(whole.SerializeToString())(picture)
    assert 1e-4 < (np.abs(made - plain) / reach).max() < 0.05  # rounded, and every channel by its own scale


# Files of bytes


@pytest.mark.parametrize(("io", "zero"), [("uint8", 0), ("int8", -128)])
def test_a_file_of_bytes_is_the_float_one_in_bytes(small, photos, tmp_path, io, zero):  # noqa: F811
    asked = {"formats": ("tflite",), "precisions": ("int8",), "images_held_out": photos[4:], "processes": 0}
    result = export(small, photos[:4], tmp_path / "made", **asked, integer_io=io)
    (file,) = result.files
    assert result.passed and file.io == io and read_export(result.folder) == result
    assert (file.delegation.partitions, file.delegation.delegated) == (1, file.delegation.nodes)
    path = result.folder / file.file
    interpreter = tflite_interpreter(path.read_bytes())
    entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for each in (entry, end):
        assert each["dtype"] == np.dtype(io) and each["quantization"] == (1.0, zero)

    pixels = read_image(photos[5])  # (64, 64, 3) in [0, 1]
    levels = np.rint(pixels * 255)
    interpreter.set_tensor(entry["index"], (levels + zero).astype(io)[None])
    interpreter.invoke()
    given = interpreter.get_tensor(end["index"])[0].astype(int) - zero
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(path, tmp_path / "alone")
    for each in (path, alone):  # export.json beside it or not
        painted = open_file(Path(each)).paint(pixels)
        assert np.array_equal(np.rint(painted * 255).astype(int), given)
    with torch.no_grad():
        wanted = small.module(to_tensor(pixels, (-1, 1)))
    off = given / 255 - to_pixels(wanted, (-1, 1))
    assert -10 * np.log10(np.mean(off**2)) > 40 and np.abs(off.mean()) < 1 / 512  # no shift by half a level

    (timed,) = list_files([result.folder])
    assert timed.value_range == (0, 255)
    (phone,) = _entries([timed], [1], 0)  # what a phone is fed
    assert phone.values.dtype == np.dtype(io) and np.ptp(phone.values.astype(int)) == 255
    assert _compared(phone, phone.host.run(phone.values)).passed
    with IsolatedSession(path, 1, shape=timed.shape, value_range=timed.value_range) as session:
        assert session.facts["dtype"] == io and session.run()[0] > 0
    facts = FileTeacher(path)._opened.metadata
    assert facts["io"] == io and json.loads(facts["quantisation"]) == {"scale": 1, "zero_point": zero}


def test_bytes_in_and_out_keep_every_level() -> None:
    """Each byte is a value of its own on the way in, and every one that a network gives comes out."""
    every = np.arange(256, dtype=np.float32)
    for own in ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-2.5, 1.5)):
        values = moved(every, BYTES, own)
        assert (values[0], values[-1]) == pytest.approx(own, abs=1e-6)
        assert np.array_equal(np.rint(moved(values, own, BYTES)), every)


def test_bytes_are_refused_where_no_file_would_have_them(small, photos, tmp_path):  # noqa: F811
    for given in ({"formats": ("onnx",)}, {"precisions": ("fp32", "int8-dynamic")}, {"integer_io": "int16"}):
        with pytest.raises(UsageError, match="static INT8 TFLite"):
            export(small, photos, tmp_path / "out", **{"integer_io": "uint8", **given})
    assert not (tmp_path / "out").exists()


# Thresholds


@pytest.fixture
def line(tmp_path) -> list[str]:
    tiny.write_job(tmp_path)
    words = ["export", tmp_path / "tiny.pth", "--images", tmp_path / "pictures", "--size", "32x32"]
    return [str(word) for word in [*words, "--output-dir", tmp_path / "out"]]


def test_thresholds_are_what_files_are_held_to(line, tmp_path):
    line += ["--format", "onnx", "--precision", "fp32,int8-dynamic", "--processes", "0", "--json"]
    line += ["--threshold", "int8-dynamic=99dB", "--threshold", "fp32=80"]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 3 and "under 99 dB" in done.output
    files = {file.precision: file for file in read_export(tmp_path / "out").files}
    assert files["fp32"].passed and not files["int8-dynamic"].passed
    assert [files[name].parity.threshold_psnr for name in ("fp32", "int8-dynamic")] == [80, 99]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "int9=30"], "did you mean 'int8'"),
        (["--threshold", "int8"], "no amount of decibels"),
        (["--threshold", "int8=-3"], "no amount of decibels"),
        (["--threshold", "int8=30", "--min-psnr", "30"], "two limits for INT8"),
    ],
)
def test_thresholds_that_cannot_be(line, words, said):
    done = CliRunner().invoke(main, [*line, *words])
    assert done.exit_code == 2 and said in done.output


def test_scaled_residuals_run_on_integers(photos):  # noqa: F811
    """ESRGAN's: converters fold the factor into the convolution, whose weight loses its name to that."""
    torch.manual_seed(0)
    upscaler = generator(construct("rrdbnet", {"features": 8, "blocks": 1, "growth": 8}), 32)
    job = Job(upscaler, (32, 32), photos[:2], photos[:2], 10.0)
    for kind in ("onnx", "tflite"):
        assert job.make(kind, "int8", 10.0).float_layers == ("conv_first", "conv_last")
