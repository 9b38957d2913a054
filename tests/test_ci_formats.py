"""What CI services read: each format read back by a reader of its own, hostile names among the rows."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench_files import PHONE, samples, series, write_bench
from click.testing import CliRunner, Result
from small_files import write_onnx

from benchmarks.ci.junit import junit
from benchmarks.ci.outputs import FORMATS, Outputs
from benchmarks.ci.rows import Row, plain, rows_of
from benchmarks.ci.tables import csv_table, markdown
from benchmarks.ci.trackers import bencher, github_benchmark
from benchmarks.samples import read_bench
from compressor.errors import PocketganError, UsageError
from pocketgan.cli import main

HOSTILE = [
    "\x00\x01\x1b[31mred\x7f\ufffe\udc80.onnx",
    "two\nlines\r\u2028three\u202egnp.onnx",
    '<script>alert(1)</script>&"]]>.onnx',
    "$(touch pwned);`id`'|| x.onnx",
    '=HYPERLINK("http://x.example","y")',
    "+1+1|cell\\|@org/team #1 [a](b) ![c](d)",
    "`" * 4 + "|\\",
    "@SUM(A1)",
    "back\\nslash",
    "back\nslash",
    "x" * 5000 + "1",
    "x" * 5000 + "2",
]
FLAGS = ("junit", "markdown", "csv", "github-benchmark", "bencher")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """A stable row, an unstable one, one with another picture, and the hostile names."""
    entries = [
        series("good.onnx", samples(20)),
        series("wild.tflite", [10.0, 30.0] * 15, runtime="litert", precision="int8", threads=4),
        series("wrong.onnx", samples(5)),
        *(series(name, samples(20)) for name in HOSTILE),
    ]
    parity = [{"group": "compressed", "file": "wrong.onnx", "max_abs": 0.5, "psnr": 12.0, "passed": False}]
    phone = {**PHONE, "model": "=cmd|' /C calc'!A0<b>\n"}
    return rows_of(read_bench(write_bench(tmp_path / "in", entries, parity=parity, device=phone)))


def test_plain_text_holds_no_control_and_keeps_names_apart() -> None:
    shown = [plain(name) for name in HOSTILE]
    assert len(set(shown)) == len(HOSTILE) and all(text.isprintable() for text in shown)
    assert all(len(text) <= 400 for text in shown)
    assert plain("générateur-fp32 (α).onnx") == "générateur-fp32 (α).onnx"
    assert plain("a\nb") == "a\\nb" and plain("a\\nb") == "a\\\\nb"


def test_junit_is_read_back(rows: list[Row]) -> None:
    from junitparser import Failure, JUnitXml, Skipped

    text = junit(rows)
    document = JUnitXml.fromstring(text.encode())
    assert (document.tests, document.failures, document.errors, document.skipped) == (len(rows), 1, 0, 1)
    cases = {case.name: case for suite in document for case in suite}
    assert len(cases) == len(rows)
    good, wild, wrong = (cases[row.key.name] for row in rows[:3])
    assert good.time == pytest.approx(rows[0].summary.median / 1e3) and good.is_passed  # type: ignore[union-attr]
    assert isinstance(wild.result[0], Skipped) and "interquartile" in wild.result[0].message
    assert isinstance(wrong.result[0], Failure) and "12.0 dB" in wrong.result[0].message
    found = {p.get("name"): p.get("value") for p in ElementTree.fromstring(text).iter("property")}
    assert float(found["median_ms"]) > 0 and found["model_sha256"] == "ab" * 32 and found["serial"] == "R3CX"


def test_junit_keeps_to_the_schema_that_ci_servers_check(rows: list[Row]) -> None:
    """The rules of Jenkins' junit-10.xsd and pytest's xunit2 on what may stand where."""
    root = ElementTree.fromstring(junit(rows))
    allowed = {
        "testsuites": {"testsuite"},
        "testsuite": {"properties", "testcase"},
        "testcase": {"properties", "skipped", "failure", "error"},
        "properties": {"property"},
    }
    for element in root.iter():
        assert {child.tag for child in element} <= allowed.get(element.tag, set()), element.tag
    for case in root.iter("testcase"):
        assert set(case.attrib) == {"name", "classname", "time"} and float(case.attrib["time"]) >= 0
        assert all(child.get("message") for child in case if child.tag != "properties")
    for suite in root.iter("testsuite"):
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert {"name", "errors", "failures", "skipped"} <= set(suite.attrib)


def test_markdown_stays_a_table_of_text(rows: list[Row]) -> None:
    MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(rows))
    kinds = [token.type for token in tokens]
    assert kinds.count("tr_open") == len(rows) + 1 and kinds.count("td_open") == 7 * len(rows)
    assert kinds.count("th_open") == 7 and "html_block" not in kinds
    inner = [token for token in tokens if token.type == "inline"]
    assert not {c.type for t in inner for c in t.children or ()} & {"html_inline", "link_open", "image"}
    cells = [[c.content for c in t.children or () if c.type == "code_inline"] for t in inner]
    assert {plain(f"compressed/{name}") for name in HOSTILE} <= {c.strip() for cell in cells for c in cell}
    loose = "".join(c.content for t in inner for c in t.children or () if c.type == "text")
    assert "@" not in loose and "pwned" not in loose and "#" not in loose
    assert "❌" in tokens[[t.type for t in tokens].index("td_open") + 1].content  # what failed comes first


def test_markdown_is_cut_between_rows_and_says_so(rows: list[Row]) -> None:
    many = rows * 400
    text = markdown(many, limit=100_000)
    lines = text.splitlines()
    shown = sum(line.startswith("|") for line in lines) - 2
    assert len(text.encode()) <= 100_000 and 0 < shown < len(many)
    assert lines[-1].startswith(f"{len(many) - shown} more rows")


def test_csv_is_read_back_and_holds_no_formula(rows: list[Row]) -> None:
    found = list(csv.DictReader(io.StringIO(csv_table(rows))))
    assert [row["model"] for row in found] == [plain(row.key.model) for row in rows]
    assert float(found[0]["median_ms"]) == rows[0].summary.median  # type: ignore[union-attr]
    assert found[1]["state"] == "skipped" and found[1]["threads"] == "4" and found[0]["unstable"] == ""
    for row in found:
        assert not [cell for cell in row.values() if cell.startswith(tuple("=+-@|%"))]
    assert all(row["device"].startswith("Samsung =cmd") for row in found)
    alone = [
        Row(row.key.__class__(*("=1+1", "@x", "-2", name, 1)), None, "error")
        for row, name in zip(rows, HOSTILE, strict=False)
    ]
    for cells in list(csv.reader(io.StringIO(csv_table(alone))))[1:]:
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@|%"))]


def test_trackers_get_one_entry_a_name(rows: list[Row]) -> None:
    listed, metrics = json.loads(github_benchmark(rows)), json.loads(bencher(rows))
    assert len(listed) == len(metrics) == len(rows) and {entry["name"] for entry in listed} == set(metrics)
    assert all(entry.keys() == {"name", "unit", "value", "range", "extra"} for entry in listed)
    first, summary = rows[0].key.name, rows[0].summary
    assert summary is not None and listed[0]["value"] == summary.median and listed[0]["unit"] == "ms"
    latency = metrics[first]["latency"]
    assert latency["value"] == summary.median * 1e6  # nanoseconds
    assert latency["lower_value"] <= latency["value"] <= latency["upper_value"]
    assert (
        len(json.loads(bencher([*rows, *rows]))) == len(rows) == len(json.loads(github_benchmark(rows * 2)))
    )


def test_an_error_is_told_in_every_format_and_replaces_what_was_there(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in FORMATS}
    outputs = Outputs(paths)
    for path in paths.values():
        path.write_text("stale")
    with pytest.raises(PocketganError), outputs.told_of_errors("bench on R3CX"):
        raise PocketganError("the phone\x00 went away", got="<eof>")
    case = next(ElementTree.fromstring(paths["junit"].read_text()).iter("testcase"))
    assert "bench on R3CX" in case.attrib["name"] and case[1].tag == "error"
    assert case[1].attrib["message"] == "the phone\\x00 went away got: <eof>"
    assert paths["bencher"].read_text() == "{}\n" and paths["github_benchmark"].read_text() == "[]\n"
    with pytest.raises(UsageError), outputs.told_of_errors("x"):
        raise UsageError("a slip of the fingers leaves the files alone")
    assert "went away" in paths["junit"].read_text()


def test_bench_and_report_write_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path / "exports" / "$(touch pwned)\n-fp32.onnx")
    where = [tmp_path / "exports", "--output-dir", tmp_path / "out", "--threads", 1, "--rounds", 5]
    flags = [word for flag in FLAGS for word in (f"--{flag}", tmp_path / "bench" / flag)]
    done = call("bench", *where, *flags)
    assert done.exit_code == 0, done.output
    again = [word for flag in FLAGS for word in (f"--{flag}", tmp_path / "report" / flag)]
    assert call("report", tmp_path / "out", *again).exit_code == 0
    for flag in FLAGS:
        written = (tmp_path / "bench" / flag).read_text()
        assert written == (tmp_path / "report" / flag).read_text() and "pwned" in written
    assert not list(tmp_path.rglob("pwned"))


def test_a_bench_that_fails_leaves_its_cause(tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "broken.onnx").write_bytes(b"no model")
    done = call("bench", tmp_path / "exports", "--threads", 1, "--junit", tmp_path / "junit.xml")
    assert done.exit_code == 1
    assert next(ElementTree.parse(tmp_path / "junit.xml").iter("error")).attrib["message"]
