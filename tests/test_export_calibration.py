"""Streamed ranges against numpy with all values at hand; parity's corner cases; the result's JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import PocketganError
from compressor.quantisation.calibration import METHODS, TensorRange
from exporters.parity import check, compare
from exporters.result import Delegation, ExportedFile, ExportResult, ImageParity, Parity, read_export


def streamed(pictures: list[np.ndarray]) -> TensorRange:
    found = TensorRange()
    for values in pictures:
        found.update(values)
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.floats(1e-3, 1e3), st.floats(-2, 2), st.integers(1, 5))
def test_one_pass_finds_what_numpy_finds(seed, scale, shift, count):
    random = np.random.default_rng(seed)
    pictures = [
        (scale * (random.standard_normal((1, 4, 200, 250)) * (1 + i) + shift)).astype(np.float32)
        for i in range(count)
    ]
    values, found = np.stack(pictures), streamed(pictures)
    low, high = values.min(), values.max()
    assert found.bounds("minmax") == (min(low, 0), max(high, 0))
    means = [f((1, 2, 3, 4)).mean() for f in (values.min, values.max)]
    np.testing.assert_allclose(found.bounds("average"), (min(means[0], 0), max(means[1], 0)), rtol=1e-5)
    wanted = [min(np.quantile(values, 5e-5), 0), max(np.quantile(values, 1 - 5e-5), 0)]
    np.testing.assert_allclose(found.bounds("percentile"), wanted, atol=(high - low) * 0.02)
    assert found.histogram.sum() == values.size


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=5))
def test_ranges_of_two_halves_merge_to_that_of_all(seed, scales):
    random = np.random.default_rng(seed)
    pictures = [(s * random.standard_normal((1, 2, 20, 20))).astype(np.float32) for s in scales]
    merged, whole = streamed(pictures[0::2]).merged(streamed(pictures[1::2])), streamed(pictures)
    assert merged.reach == whole.reach and merged.pictures == whole.pictures
    np.testing.assert_array_equal(merged.histogram.sum(), whole.histogram.sum())
    for method in METHODS:
        np.testing.assert_allclose(merged.bounds(method), whole.bounds(method), rtol=1e-3, atol=1e-6)


def test_least_error_clips_an_outlier_and_leaves_even_values_alone():
    even = np.linspace(-1, 1, 100_000, dtype=np.float32)
    assert streamed([even]).bounds("mse") == pytest.approx((-1, 1))
    random = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    random[0] = 30.0
    low, high = streamed([random]).bounds("mse")
    assert 4 < high < 25

    def error(bounds):
        scale = (bounds[1] - bounds[0]) / 255
        levels = np.clip(np.rint(random / scale), *(np.rint(b / scale) for b in bounds))
        return np.mean((levels * scale - random) ** 2)

    assert error((low, high)) < 0.8 * error(streamed([random]).bounds("minmax"))


def test_a_dead_tensor_has_bounds():
    for method in METHODS:
        assert streamed([np.zeros((1, 2, 3, 3), np.float32)] * 2).bounds(method) == (0.0, 0.0)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, 3, 16, 16)).astype(np.float32) * 2 - 1


def test_parity_is_measured_in_shares_of_the_output_range():
    x = picture()
    found = compare("a.png", x + 0.02, x, (-1.0, 1.0))
    assert found.max_abs == pytest.approx(0.01, rel=1e-3)
    assert found.psnr >= 40 - 1e-3  # an error of 0.01 everywhere, but where clipping hides it
    assert compare("a.png", x, x, (-1.0, 1.0)).psnr == math.inf


@pytest.mark.parametrize("wrong", [picture()[:, :, :8], np.full((1, 3, 16, 16), np.nan, np.float32)])
def test_a_wrong_shape_and_nan_fail_the_gate(wrong):
    parity = check(lambda x: wrong, [("a.png", picture(), picture())], (-1.0, 1.0), 0.1)
    assert not parity.passed and parity.psnr_min == 0.0
    json.dumps(parity.as_json(), allow_nan=False)


def test_the_gate_goes_by_the_worst_picture():
    x = picture()
    pictures = [("good.png", x, x), ("bad.png", x, np.clip(x + 0.2, -1, 1))]
    parity = check(lambda y: y, pictures, (-1.0, 1.0), 50.0)
    assert parity.worst == "bad.png" and not parity.passed
    assert check(lambda y: y, pictures[:1], (-1.0, 1.0), 50.0).passed


def test_a_result_comes_back_from_its_json(tmp_path):
    images = (ImageParity("a.png", 0.0, math.inf, 1.0), ImageParity("b.png", 0.25, 31.5, None))
    file = ExportedFile(
        "generator-int8.tflite",
        "litert",
        "int8",
        "int8-static",
        bytes=7,
        sha256="ab",
        seconds=1.5,
        peak_mb=700.0,
        input_layout="NHWC",
        parity=Parity(images, 25.0),
        dtypes={"int8": 9},
        delegation=Delegation(5, 4, 2),
        float_layers=("head",),
        notes=("a note",),
    )
    missing = ExportedFile("generator-fp32.onnx", "onnxruntime", "fp32", "fp32", error="no such operator")
    result = ExportResult(
        tmp_path, {"name": "g"}, {"shape": [1, 3, 8, 8]}, {}, {"torch": "2"}, (file, missing)
    )
    result.write()
    assert read_export(tmp_path) == result
    assert not result.passed and file.passed and not missing.passed
    (tmp_path / "export.json").write_text('{"format": "pocketgan.export/99"}')
    with pytest.raises(PocketganError, match="does not know"):
        read_export(tmp_path)
