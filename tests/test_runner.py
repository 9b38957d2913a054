"""The arm64 runner: cross-built, pushed by the real adb, run emulated, equal to this machine's runtimes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phone import Phone
from phone_fixtures import wait_until_ready
from small_files import write_onnx, write_tflite

from compressor.errors import GateError, PocketganError, UsageError
from devices.adb import AdbTransport
from devices.adb_server import AdbServer
from devices.runner import bundle as bundles
from devices.runner.bundle import Bundle, build, cache_folder, glibc
from devices.runner.run import FORMAT, Measured, Runner, fnv1a64, known_answer, parse
from devices.runtimes import open_session
from devices.transport import DeviceError, DeviceLost, DeviceTimeout, Workspace

SUFFIX = {"onnxruntime": ".onnx", "litert": ".tflite"}
RUNTIMES = tuple(SUFFIX)


@pytest.fixture(scope="session")
def small_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions as FP32 and static INT8, in both formats."""
    from ai_edge_quantizer import quantizer, recipe
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"in0": picture((1, 3, 32, 32))}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    folder = tmp_path_factory.mktemp("small")
    write_onnx(folder / "generator-fp32.onnx")
    quantize_static(
        folder / "generator-fp32.onnx",
        folder / "generator-int8.onnx",
        Pictures(),
        activation_type=QuantType.QInt8,
    )
    write_tflite(folder / "generator-fp32.tflite")
    work = quantizer.Quantizer(str(folder / "generator-fp32.tflite"), recipe.static_wi8_ai8())
    source = open_session(folder / "generator-fp32.tflite")
    data = {"serving_default": [{"args_0": picture(source.input_shape)}]}
    work.quantize(work.calibrate(data)).export_model(str(folder / "generator-int8.tflite"))
    return folder


@pytest.fixture(scope="module")
def runner_phone(adb: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """One phone for all tests here, so that the runtimes are pushed once."""
    with Phone(tmp_path_factory.mktemp("runner") / "phone", "MT6989") as phone:
        adb.connect(phone.serial)
        wait_until_ready(adb, phone.serial)
        yield phone
        adb.disconnect(phone.serial)


@pytest.fixture
def phone(runner_phone: Phone) -> Iterator[Phone]:
    yield runner_phone
    runner_phone.fault = None
    assert runner_phone.left() == []


@pytest.fixture
def work(phone: Phone, adb: AdbServer) -> Iterator[Workspace]:
    with Workspace(AdbTransport(phone.serial, adb)) as work:
        yield work


def picture(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)


def equals_the_host(runner: Runner, path: Path, precision: str) -> Measured:
    """The device's output is the host's: within float error, and one step of an INT8 file."""
    host = open_session(path)
    values = host.encode(picture(host.input_shape))
    measured, output = runner.measure(
        path, values, threads=2, warmup=1, runs=3, affinity=0x80, with_output=True
    )
    expected = host.run(values)
    assert output is not None and output.dtype == expected.dtype and output.shape == expected.shape
    step = 1.0 if expected.dtype.kind in "iu" else float(np.ptp(expected)) / 255
    allowed = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1.01 * step}[precision]
    assert np.abs(output.astype(float) - expected.astype(float)).max() <= allowed
    assert np.ptp(expected.astype(float)) > 20 * allowed  # a flat picture would prove nothing
    assert len(measured.samples_ms) == 3 and len(measured.warmup_ms) == 1 and measured.emulated
    assert measured.peak_rss_kb > measured.base_rss_kb > 0 and measured.init_ms > 0
    return measured


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_equal_the_hosts(
    gathered: dict[str, Bundle], small_exports: Path, phone: Phone, work: Workspace, runtime: str
) -> None:
    runner = Runner(work, gathered[runtime], allow_emulated=True)
    for precision in ("fp32", "int8"):
        measured = equals_the_host(
            runner, small_exports / f"generator-{precision}{SUFFIX[runtime]}", precision
        )
        assert measured.version in (gathered[runtime].version, "")
    assert (phone.folder / "state/affinity").read_text() == "80\n"


@pytest.mark.acceptance
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_real_export_equals_the_hosts(
    gathered: dict[str, Bundle], six_files: Path, work: Workspace, runtime: str
) -> None:
    runner = Runner(work, gathered[runtime], allow_emulated=True)
    for precision in ("fp32", "fp16", "int8"):
        equals_the_host(runner, six_files / f"generator-{precision}{SUFFIX[runtime]}", precision)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_are_as_asked(gathered: dict[str, Bundle], work: Workspace, runtime: str) -> None:
    runner = Runner(work, gathered[runtime], allow_emulated=True)
    model = Path(bundles.__file__).parent / f"selftest{SUFFIX[runtime]}"
    values, _ = known_answer(runtime)
    four, _ = runner.measure(model, values, threads=4, runs=1)
    assert four.process_threads - runner.tested.process_threads == 3


def test_emulated_times_are_refused_unless_asked(gathered: dict[str, Bundle], work: Workspace) -> None:
    with pytest.raises(GateError, match="emulates"):
        Runner(work, gathered["litert"])


def test_the_runners_own_errors(
    gathered: dict[str, Bundle], phone: Phone, work: Workspace, tmp_path: Path
) -> None:
    runner = Runner(work, gathered["litert"], allow_emulated=True)
    values, _ = known_answer("litert")
    broken = tmp_path / "model $(touch pwned);'.tflite"
    broken.write_bytes(b"\x08\x07rubbish")
    with pytest.raises(DeviceError, match="runner failed"):
        runner.measure(broken, values)
    good = Path(bundles.__file__).parent / "selftest.tflite"
    with pytest.raises(DeviceError, match=r"holds 96 bytes, the model takes 192"):
        runner.measure(good, values[:, :2])
    with pytest.raises(UsageError, match="other elements"):
        runner.measure(good, values.view(np.int32), runs=1)
    with pytest.raises(UsageError):
        runner.measure(Path("model.onnx"), values)
    phone.fault = "zero"
    with pytest.raises(DeviceLost):
        runner.measure(good, values)
    with pytest.raises(DeviceTimeout):
        runner.measure(good, values, runs=1_000_000, timeout=2)
    assert not list(phone.folder.rglob("pwned"))


def test_a_wrong_answer_is_refused(
    gathered: dict[str, Bundle], work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, answer = known_answer("litert")
    monkeypatch.setattr("devices.runner.run.known_answer", lambda runtime: (values, answer + 1))
    with pytest.raises(DeviceError, match="wrong answers"):
        Runner(work, gathered["litert"], allow_emulated=True)


def test_the_self_test_files_answer_as_computed() -> None:
    for runtime, suffix in (("onnxruntime", ".onnx"), ("litert", ".tflite")):
        session = open_session(Path(bundles.__file__).parent / f"selftest{suffix}")
        values, answer = known_answer(runtime)
        assert answer.min() == 0 < answer.max()
        np.testing.assert_allclose(session.run(np.ascontiguousarray(values)), answer, atol=1e-6)


def test_the_program_is_built_alike_again(gathered: dict[str, Bundle], tmp_path: Path) -> None:
    first = gathered["litert"].runner
    program = first.read_bytes()
    assert program[:4] == b"\x7fELF" and program[18] == 183
    (tmp_path / "zig").symlink_to(cache_folder() / "zig")  # what zig has made of its own parts
    again = build(tmp_path)
    assert again != first and again.read_bytes() == program
    assert str(Path.home()).encode() not in program and str(tmp_path).encode() not in program


def test_a_wheel_of_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")  # and none that cannot be had hangs
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PocketganError, match="cannot be fetched"):
        bundles.runtime_library(bundles.WHEELS["litert"], tmp_path)
    assert not list(tmp_path.rglob("*.so"))


def test_missing_c_library_says_what_to_install() -> None:
    with pytest.raises(PocketganError, match="libc6-arm64-cross"):
        glibc(["/nowhere"])


GOOD = {
    "format": FORMAT, "runtime": "litert", "version": "", "threads": 1, "init_ms": 5.5, "first_ms": 2.0,
    "warmup_ms": [1.5], "samples_ms": [1.0, 1.25], "input": {"dtype": "float32", "shape": [1, 4, 4, 3]},
    "output": {"dtype": "float32", "shape": [1, 4, 4, 2]}, "fully_accelerated": True, "base_rss_kb": 1,
    "peak_rss_kb": 2, "process_threads": 1, "output_bytes": 128, "output_fnv1a64": "0", "emulated": False,
}  # fmt: skip


def test_a_whole_document_is_read() -> None:
    measured = parse(f"a library's chatter\n{json.dumps(GOOD)}\n", 0, b"", warmup=1, runs=2)
    assert measured.samples_ms == (1.0, 1.25) and not measured.emulated
    assert json.loads(json.dumps(measured.as_json()))["output_shape"] == [1, 4, 4, 2]


@pytest.mark.parametrize("key", sorted(set(GOOD) - {"fully_accelerated", "output_bytes"}))
def test_a_document_with_a_hole_is_refused(key: str) -> None:
    text = json.dumps({name: value for name, value in GOOD.items() if name != key})
    with pytest.raises(DeviceError):
        parse(text, 0, b"", warmup=1, runs=2)


@pytest.mark.parametrize(
    "bad", [[1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, "2"], [1.0, True], None, [1, [2]]]
)
def test_samples_out_of_range_are_refused(bad: object) -> None:
    with pytest.raises(DeviceError):
        parse(json.dumps({**GOOD, "samples_ms": bad}), 0, b"", warmup=1, runs=2)


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps)),
    st.integers(0, 255),
)
def test_rubbish_ends_in_our_error(text: str, code: int) -> None:
    with pytest.raises(DeviceError):
        parse(text, code, b"\xff<script>", warmup=0, runs=1)


@given(st.integers(0, len(json.dumps(GOOD)) - 1))
def test_a_document_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(DeviceError):
        parse(json.dumps(GOOD)[:length], 0, b"", warmup=1, runs=2)


def test_fnv1a64_is_the_published_one() -> None:
    assert fnv1a64(b"") == "cbf29ce484222325" and fnv1a64(b"foobar") == "85944171f73967e8"
