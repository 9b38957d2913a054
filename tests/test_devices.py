"""The host's facts and the runtimes' sessions, with real ONNX Runtime and LiteRT."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_files import write_onnx, write_tflite

from compressor.errors import PocketganError, UsageError
from devices.host import facts, usable_cores
from devices.isolated import IsolatedSession
from devices.runtimes import Delegation, _delegation, open_session, versions


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    pytest.importorskip("onnxruntime", reason="needs the export extra")
    pytest.importorskip("litert_torch", reason="needs the export extra")
    write_onnx(folder / "small.onnx")
    write_tflite(folder / "small.tflite")
    write_tflite(folder / "mirror.tflite", mirror=True)
    return folder


def convolve(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Zero-padded 3x3 correlation of (C, H, W) with (O, C, 3, 3), written out."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    height, width = image.shape[1:]
    return sum(
        np.einsum("oc,chw->ohw", weight[:, :, y, x], padded[:, y : y + height, x : x + width])
        for y in range(3)
        for x in range(3)
    )


def test_facts_are_those_of_the_system():
    host = facts()
    assert host.logical_cores == os.cpu_count()
    assert 1 <= host.usable_cores <= host.logical_cores
    assert host.architecture == os.uname().machine
    assert abs(host.memory_mb * 2**20 - os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) < 2**21
    assert host.as_json()["cpu"] == host.cpu != ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity mask")
def test_usable_cores_follow_the_affinity_mask():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from devices.host import usable_cores; print(usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"1\n"
    assert usable_cores() >= 1


def test_devices_and_benchmarks_load_no_torch():
    code = "import sys, devices.host, devices.runtimes, devices.isolated, benchmarks.latency\n"
    code += "print({'torch', 'onnxruntime', 'ai_edge_litert', 'skimage'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def test_onnx_session_computes_the_convolutions(files):
    weights = write_onnx(files / "small.onnx")
    first, second = weights[: 8 * 27].reshape(8, 3, 3, 3), weights[8 * 27 :].reshape(3, 8, 3, 3)
    values = np.random.default_rng(1).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    session = open_session(files / "small.onnx", 2)
    wanted = convolve(np.maximum(convolve(values[0], first), 0), second)
    np.testing.assert_allclose(session.run(values)[0], wanted, atol=1e-5)
    assert (session.input_shape, session.layout, session.threads) == ((1, 3, 32, 32), "NCHW", 2)
    assert (session.dtype, session.runtime, session.delegation) == (np.float32, "onnxruntime", None)
    assert session.version == versions()["onnxruntime"]


def test_litert_session_is_deterministic_over_threads_and_says_its_layout(files):
    values = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    one, two = (open_session(files / "small.tflite", threads) for threads in (1, 2))
    np.testing.assert_allclose(one.run(values), two.run(values), atol=1e-6)
    assert (one.input_shape, one.output_shape, one.layout) == ((1, 32, 32, 3), (1, 32, 32, 3), "NHWC")


def test_delegation_names_what_xnnpack_leaves(files):
    whole = open_session(files / "small.tflite").delegation
    assert whole is not None and (whole.nodes, whole.delegated, whole.partitions, whole.kept) == (2, 2, 1, {})
    split = open_session(files / "mirror.tflite").delegation
    assert split is not None and split.kept == {"MIRROR_PAD": 1}
    assert (split.nodes - split.delegated, split.partitions) == (1, 2)


def node(index: int, name: str, inputs: list[int], outputs: list[int]) -> dict[str, object]:
    return {"index": index, "op_name": name, "inputs": np.array(inputs), "outputs": np.array(outputs)}


def test_delegation_of_a_graph_without_delegate():
    operators = [node(0, "CONV_2D", [0, -1], [1]), node(1, "TANH", [1], [2])]
    assert _delegation(operators, [2]) == Delegation(2, 0, 0, {"CONV_2D": 1, "TANH": 1})


def test_delegation_counts_branches_once():
    operators = [
        node(0, "PAD", [0], [1]),
        node(1, "CONV_2D", [1], [2]),
        node(2, "RELU", [2], [3]),
        node(3, "ADD", [1, 3], [4]),
        node(4, "DELEGATE", [1], [4]),
    ]
    assert _delegation(operators, [4]) == Delegation(4, 3, 1, {"PAD": 1})


@pytest.mark.parametrize("ending", [".onnx", ".tflite"])
@pytest.mark.parametrize("damage", ["empty", "junk", "half"])
def test_damaged_files_are_refused(files, tmp_path, ending, damage):
    whole = (files / f"small{ending}").read_bytes()
    content = {"empty": b"", "junk": b"<html>" * 99, "half": whole[: len(whole) // 2]}[damage]
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(content)
    with pytest.raises(PocketganError, match=r"cannot load .*damaged") as error:
        open_session(path)
    assert "export it again" in str(error.value)


def test_missing_foreign_and_misused_files_are_refused(files, tmp_path):
    with pytest.raises(PocketganError, match="there is no file"):
        open_session(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="no runtime"):
        open_session(files / "small.pth")
    with pytest.raises(UsageError, match="one thread"):
        open_session(files / "small.onnx", 0)
    write_onnx(tmp_path / "two.onnx", inputs=2)
    with pytest.raises(PocketganError, match="not a generator") as error:
        open_session(tmp_path / "two.onnx")
    assert "2 inputs" in str(error.value)
    with pytest.raises(PocketganError, match="does not take this input"):
        open_session(files / "small.onnx").run(np.zeros((1, 3, 16, 16), np.float32))
    with pytest.raises(PocketganError, match="does not take this input"):
        open_session(files / "small.onnx").run(np.zeros((1, 3, 32, 32)))


def test_isolated_session_reports_what_the_file_needs(files):
    with IsolatedSession(files / "mirror.tflite", 1) as session:
        assert session.facts["delegation"]["kept"] == {"MIRROR_PAD": 1}
        assert session.facts["init_ms"] > 0
        assert len(session.run(3)) == 3 and min(session.run(2)) > 0
        assert session.peak_rss_mb() >= session.facts["base_rss_mb"] > 1


def test_peak_memory_is_the_files_own_not_the_parents(files, tmp_path):
    """A parent that holds 300 MB must not show in the child; a picture of 1024 pixels a side must."""
    ballast = np.ones(300 * 2**17)
    write_onnx(tmp_path / "large.onnx", width=32, size=1024)
    with (
        IsolatedSession(files / "small.onnx", 1) as small,
        IsolatedSession(tmp_path / "large.onnx", 1) as large,
    ):
        small.run(), large.run()
        assert small.peak_rss_mb() < 200 < ballast.nbytes / 2**20
        assert large.peak_rss_mb() - small.peak_rss_mb() > 32 * 1024 * 1024 * 4 / 2**20 * 0.9


def test_isolated_session_passes_errors_on_and_survives_a_crash(files, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"junk")
    with pytest.raises(PocketganError, match="cannot load"):
        IsolatedSession(tmp_path / "bad.onnx", 1)
    with IsolatedSession(files / "small.onnx", 1) as session:
        session._child.kill()
        with pytest.raises(PocketganError, match="the runtime died") as error:
            session.run()
        assert "SIGKILL" in str(error.value)
