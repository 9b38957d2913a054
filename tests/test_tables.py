"""Tables: rows measured from pictures of known figures, recorded and published ones, and what is missing."""

# ruff: noqa: F811 - tests take fixtures by their names

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import upstream_layouts as up
from bench_files import samples, series, write_bench
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from table_rows import data, noise, row, write  # noqa: F401 - a fixture among them

from benchmarks.tables import latency, pix2pix, render, sr, st
from benchmarks.tables.kept import Kept
from benchmarks.tables.records import HERE
from compressor.data.published import find
from compressor.errors import PocketganError
from pocketgan.cli import main


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Super resolution


def test_what_is_missing_is_said_and_what_is_there_is_measured(data: Path, tmp_path: Path) -> None:
    table = sr.build(data, HERE, Kept(tmp_path / "cache"))
    assert row(table, "bicubic (MATLAB's)")["source"] == "measured"
    told = str(row(table, "ESRGAN (PSNR-trained)")["told"])
    assert told.endswith(f"pocketgan data fetch esrgan_psnr --output-dir {data}")
    assert any("pytorch-vdsr" in each.told for each in table.rows if each.name == "VDSR")
    assert row(table, "IMDN")["source"] == "missing"
    assert any("Urban100_x4 is not in" in note and "fetch urban100" in note for note in table.notes)
    assert row(table, "AGD")["Set5 PSNR"] == 31.79 and row(table, "AGD")["source"] == "published"
    recorded = row(table, "at 11 GMACs, search")
    assert recorded["source"] == "recorded" and recorded["Set5 PSNR"] == pytest.approx(30.319, abs=1e-3)
    assert "2026-" in str(recorded["told"]) and "python -m benchmarks.agd_quality" in str(recorded["told"])
    bare = sr.build(tmp_path / "nothing", tmp_path, Kept(tmp_path / "cache"))
    assert {each.source for each in bare.rows} == {"missing", "published"}


def test_every_name_that_is_to_be_fetched_is_one_that_can_be(tmp_path: Path) -> None:
    """The commands of what is missing, by the list of `pocketgan data`, and that they lead to rows."""
    kept = Kept(tmp_path / "cache")
    tables = [module.build(tmp_path, tmp_path, kept) for module in (sr, st, pix2pix)]
    said = [text for table in tables for text in (*table.notes, *(each.told for each in table.rows))]
    names = [name for text in said for name in re.findall(r"data fetch (\w+) --output-dir", text)]
    assert {"set5", "urban100", "imdn", "horse2zebra", "facades", "pix2pix_facades"} <= set(names)
    assert [entry.name for entry in find(names)] == list(dict.fromkeys(names))


def test_published_weights_are_measured_once_they_are_there(data: Path, tmp_path: Path) -> None:
    """In the layout of the published ESRGAN file: BasicSR's names behind "generator."."""
    state = {f"generator.{name}": value for name, value in up.rrdbnet("basicsr", 6, 4, 1).items()}
    (data / "weights").mkdir()
    torch.save({"state_dict": state}, data / "weights" / "esrgan_psnr_x4.pth")
    found = row(sr.build(data, tmp_path, Kept(tmp_path / "cache")), "ESRGAN (PSNR-trained)")
    assert found["source"] == "measured" and 0 < float(str(found["Set5 PSNR"])) < 40
    assert found["parameters"] == sum(value.numel() for value in state.values())


def test_a_stopped_measurement_goes_on_and_a_second_one_measures_nothing(data: Path, tmp_path: Path) -> None:
    pictures = sorted((data / "sr" / "Set5_x4").glob("*_HR.png"))
    asked: list[str] = []

    def measure(path: Path) -> list[float]:
        asked.append(path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [float(len(asked))]

    kept = Kept(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        kept.of_pictures("a measure", pictures, measure)
    assert kept.of_pictures("a measure", pictures, measure) == [[1.0], [3.0]]
    assert kept.of_pictures("a measure", pictures, measure) == [[1.0], [3.0]] and len(asked) == 3
    write(pictures[0], noise(7, 64))  # another picture is another measurement
    assert kept.of_pictures("a measure", pictures, measure) == [[4.0], [5.0]]
    for file in (tmp_path / "cache").iterdir():
        file.write_text("damaged")
    assert kept.of_pictures("a measure", pictures, measure) == [[6.0], [7.0]]


def test_bicubic_of_set5_is_the_published_figure(shared_data: Path, tmp_path: Path) -> None:
    table = sr.build(shared_data, tmp_path, Kept(tmp_path / "cache"), ("Set5",))
    found = row(table, "bicubic (MATLAB's)")
    assert found["Set5 PSNR"] == pytest.approx(28.418, abs=6e-4)
    assert found["Set5 SSIM"] == pytest.approx(0.8101, abs=6e-5)
    srcnn = row(table, "SRCNN")
    assert (srcnn["source"], srcnn["Set5 PSNR"]) == ("published", pytest.approx(30.08, abs=0.01))


@pytest.mark.acceptance
def test_networks_on_set5_give_their_figures(shared_data: Path, tmp_path: Path) -> None:
    table = sr.build(shared_data, HERE, Kept(tmp_path / "cache"), ("Set5", "Set14"))
    for name, psnr, ssim in (
        ("IMDN", 32.211, 0.8948),
        ("realesr-animevideov3 (GAN-trained)", 28.232, 0.8268),
        ("VDSR", 31.44, None),
    ):
        found = row(table, name)
        assert found["Set5 PSNR"] == pytest.approx(psnr, abs=0.01), name
        assert ssim is None or found["Set5 SSIM"] == pytest.approx(ssim, abs=1e-4)
    assert row(table, "IMDN")["Set14 PSNR"] == pytest.approx(28.587, abs=0.01)
    assert row(table, "IMDN")["Set14 SSIM"] == pytest.approx(0.7811, abs=1e-4)


# Latency


def session(folder: Path, **other: object) -> Path:
    entries = [
        series("generator-fp32.onnx", samples(20, 1), group="original"),
        series("generator-fp32.onnx", samples(10, 2)),
        series("generator-int8.onnx", samples(5, 3), precision="int8"),
    ]
    return write_bench(folder, entries, **other)  # type: ignore[arg-type]


def test_latency_sets_each_file_against_the_originals(tmp_path: Path) -> None:
    session(tmp_path / "a", ended="2026-11-22T00:00:00+00:00")
    table = latency.build([tmp_path], tmp_path)
    whole, small = (row(table, f"a/compressed/generator-{name}.onnx") for name in ("fp32", "int8"))
    assert float(str(whole["ratio"])) == pytest.approx(2, rel=0.02) and whole["low"] < whole["ratio"]  # type: ignore[operator]
    assert "ratio" not in small and "no file of the original" in str(small["told"])
    assert float(str(small["over_fp32"])) == pytest.approx(4, rel=0.02)
    assert str(whole["told"]) == "2026-11-22"
    (tmp_path / "b").mkdir()
    with pytest.raises(PocketganError, match="holds no measurements"):
        latency.build([tmp_path / "b"], tmp_path)


def test_latency_of_an_emulated_processor_is_refused(tmp_path: Path) -> None:
    session(tmp_path, emulated=True)
    assert call("table", "latency", tmp_path).exit_code == 3


def test_latency_without_folders_shows_the_record(tmp_path: Path) -> None:
    table = latency.build([], HERE)
    assert {each.source for each in table.rows} == {"recorded"}
    found = row(table, "imdn at macs=50%", runtime="litert", precision="int8", threads=1)
    assert found["ratio"] == pytest.approx(3.96, abs=0.01)
    assert "nothing was found" in latency.build([], tmp_path).notes[-1]


# Formats and the command


def test_formats_hold_the_same_and_survive_hostile_names(tmp_path: Path) -> None:
    hostile = "=cmd|' /C calc'!A0<script>&\n"
    entries = [series("a.onnx", samples(2), group="original"), series("a.onnx", samples(1), group=hostile)]
    write_bench(tmp_path, entries)
    table = latency.build([tmp_path], tmp_path)
    (line,) = list(csv.DictReader(io.StringIO(render.csv_text(table))))
    assert line["name"].startswith("'=cmd") and float(line["ratio"]) == pytest.approx(2, rel=0.02)
    html = MarkdownIt("commonmark").enable("table").render(render.markdown(table))
    assert html.count("<tr>") == 2 and "<script>" not in html
    assert html.count("<th>") == html.count("<td>")
    drawn = ElementTree.fromstring(render.svg(table))
    texts = "".join(drawn.itertext())
    assert "=cmd" in texts and "2.0" in texts
    assert ", onnxruntime, fp32, 1" in texts  # tells rows of one name apart
    bars = [each for each in drawn.iter("{http://www.w3.org/2000/svg}rect") if each.get("height") == "16"]
    assert len(bars) == 1


def test_the_command(data: Path, tmp_path: Path) -> None:
    line = ("table", "sr", "--set", "set5", "--data", data, "--cache", tmp_path / "cache")
    shown = call(*line)
    assert shown.exit_code == 0, shown.output
    assert "bicubic" in shown.stdout and "published" in shown.stdout and "missing" in shown.stdout
    document = json.loads(call(*line, "--json").stdout)
    assert "Set5 PSNR" in document["columns"]
    for form, begins in (("markdown", "## "), ("csv", "name,from"), ("svg", "<svg"), ("terminal", "Super")):
        file = tmp_path / f"table.{form}"
        assert call(*line, "--format", form, "--output", file).exit_code == 0
        assert file.read_text().startswith(begins)
    for wrong, said in (
        (("table", "st", tmp_path), "no folders"),
        (("table", "st", "--set", "set5"), "no sets"),
        (("table", "sr", "--set", "set6"), "set5"),
        (("table", "srr"), "latency"),
    ):
        refused = call(*wrong)
        assert refused.exit_code == 2 and said in refused.output, refused.output
