"""benchmark_model's two dialects: lines as its documentation shows them, partial delegation, rubbish."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import GateError
from devices.benchmark_model import Replaced, parse, require_full_delegation
from devices.transport import DeviceError

CLASSIC = """\
STARTING!
Log parameter values verbosely: [0]
Graph: [/data/local/tmp/model.tflite]
Loaded model /data/local/tmp/model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Replacing 31 out of 33 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions for the whole graph.
The input model file size (MB): 13.51
Initialized session in 5.579ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=1357602

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=1249964 curr=1240143 min=1238588 max=1249964 avg=1.24027e+06 std=2565 p5=1238700 median=1239800 p95=1246000

Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Memory footprint delta from the start of the tool (MB): init=6.36 overall=109.848
Overall peak memory footprint (MB) via periodic monitoring: 112.113
"""  # noqa: E501 - as the tool prints it

LITERT = """\
INFO: [benchmark_litert_model.cc:201] Loaded model
INFO: Replacing 33 out of 33 node(s) with delegate (DispatchDelegate) node, yielding 1 partitions.
========== BENCHMARK RESULTS ==========
Model initialization: 125.20 ms
Warmup (avg):         1.60 ms (1 runs)
First inference:      1.60 ms
Inference (avg):      1.18 ms (20 runs)
Inference (min):      1103 us
Peak memory usage (MB): 88.5
"""


def test_the_classic_dialect() -> None:
    found = parse(CLASSIC)
    assert found.dialect == "classic" and found.runs == 50
    assert found.average_ms == pytest.approx(1240.27) and found.init_ms == pytest.approx(5.579)
    assert found.first_ms == pytest.approx(1357.602) and found.warmup_ms == pytest.approx(1357.6)
    assert (found.minimum_ms, found.maximum_ms) == pytest.approx((1238.588, 1249.964))
    assert (found.deviation_ms, found.median_ms) == pytest.approx((2.565, 1239.8))
    assert (found.p5_ms, found.p95_ms) == pytest.approx((1238.7, 1246.0))
    assert (found.peak_mb, found.footprint_mb) == pytest.approx((112.113, 109.848))
    assert found.partial == (Replaced("TfLiteXNNPackDelegate", 31, 33, 3),)
    prefixed = "".join(f"I tflite  : INFO: {line}\n" for line in CLASSIC.splitlines())
    assert parse(prefixed) == found


def test_the_newer_dialect() -> None:
    found = parse(LITERT)
    assert (found.dialect, found.runs) == ("litert", 20)
    assert (found.average_ms, found.init_ms, found.first_ms) == pytest.approx((1.18, 125.2, 1.6))
    assert found.minimum_ms == pytest.approx(1.103) and found.peak_mb == pytest.approx(88.5)
    assert found.partial == () and json.loads(json.dumps(found.as_json()))["runs"] == 20


def test_a_single_line_of_counts_after_a_warm_up_is_the_warm_ups() -> None:
    cut = "\n".join(line for line in CLASSIC.splitlines() if not line.startswith("count=50"))
    assert parse(cut).median_ms is None and parse(cut).runs is None


def test_a_partial_fallback_is_a_failure() -> None:
    with pytest.raises(GateError, match="took over nothing"):  # XNNPACK is the processor
        require_full_delegation(parse(CLASSIC))
    both = CLASSIC.replace(
        "STARTING!", "VERBOSE: Replacing 5 out of 33 node(s) with delegate (TfLiteNnapiDelegate)"
    )
    with pytest.raises(GateError, match=r"5 of 33 nodes"):
        require_full_delegation(parse(both))
    require_full_delegation(parse(LITERT))
    without = "\n".join(line for line in LITERT.splitlines() if "Replacing" not in line)
    with pytest.raises(GateError, match="ran on the processor"):
        require_full_delegation(parse(without))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ERROR: Failed to apply GPU delegate.\nBenchmarking failed.",
        CLASSIC.split("Inference timings")[0],
        "Inference timings in us: Init: 5, Inference (avg): -3",
        "Inference timings in us: Init: 5, Inference (avg): 1e999",
        "Inference (avg): nan ms (20 runs)",
        "Inference (avg): 1.18 (20 runs)",
    ],
)
def test_no_latency_is_no_result(text: str) -> None:
    with pytest.raises(DeviceError):
        parse(text)


PIECES = [
    *CLASSIC.splitlines(),
    *LITERT.splitlines(),
    "count=",
    "avg=1e",
    "\x1b[31m",
    "<script>",
    "\0",
    "e" * 99,
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text()), max_size=12).map("\n".join))
def test_rubbish_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except DeviceError as error:
        assert all(letter.isprintable() or letter == "\n" for letter in str(error))
        return
    figures = [value for value in found.as_json().values() if isinstance(value, float)]
    assert figures and all(0 <= value < float("inf") for value in figures)
    assert all(item.delegate.isprintable() for item in found.replaced)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(CLASSIC)), st.text(max_size=4))
def test_one_damaged_place_does_no_harm(place: int, rubbish: str) -> None:
    """Inserted rubbish may lose a figure, or change one; it ends in a result or in our error."""
    with contextlib.suppress(DeviceError):
        assert parse(CLASSIC[:place] + rubbish + CLASSIC[place:]).average_ms >= 0


def test_a_long_hostile_line_takes_no_time() -> None:
    with pytest.raises(DeviceError):
        parse("Memory footprint delta" + " " * 2_000_000 + "Replacing 1 out of " * 50_000)
