"""The report of a search: charts that hold the figures, the Pareto front, and how it looks in a browser."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, find_chromium
from run_folder import write_run
from search_folder import OPERATORS, write_pareto, write_search
from test_report_browser import luminance

from benchmarks.report.findings import find
from benchmarks.report.front import front, log_axis, rows
from benchmarks.report.page import render, report
from benchmarks.report.run_folder import read_run
from benchmarks.report.searched import draw_turn
from benchmarks.report.summary import summary, summary_json


def test_a_search_alone_has_a_page_of_its_own(tmp_path: Path) -> None:
    write_search(tmp_path / "out")
    run = read_run(tmp_path / "out")
    assert run.only_search and not run.missing and not run.problems
    page = render(run)
    assert "1.76 %" in page and 'id="search"' in page  # 998 M of 56.8 G
    for absent in ('id="latency"', 'id="files"', "Not run.", 'class="tiles"'):
        assert absent not in page
    for caption in (
        "Expected cost over target",
        "Entropy of the operators",
        "Temperature",
        "sample pictures",
    ):
        assert caption in page
    (check,) = find(run).checks
    assert check.passed and "asked macs=1G" in check.text
    assert "not run" not in summary(tmp_path / "out")


def test_areas_of_probabilities_fill_the_strip(tmp_path: Path) -> None:
    """The lowest begins at the bottom, each next one where the one before ends, the last at the top."""
    write_search(tmp_path / "out")
    found = read_run(tmp_path / "out").search
    assert found is not None
    turn, chances = found.turns[3], found.turns[3].chances
    drawn = re.findall(r'class="k(\d)" d="M([^"]+)Z"', draw_turn(turn, found.steps, found.operators))
    assert [int(colour) for colour, _ in drawn] == [found.operators.index(name) for name in OPERATORS]
    count, below = len(found.steps), [30.0] * len(found.steps)
    for index, (_, path) in enumerate(drawn):
        points = [tuple(map(float, point.split())) for point in path.split("L")]
        assert len(points) == 2 * count and points[0][0] == 0 and points[count - 1][0] == 1000
        above = [y for _, y in points[:count]]
        assert [y for _, y in reversed(points[count:])] == pytest.approx(below, abs=0.02)
        heights = [low - high for low, high in zip(below, above, strict=True)]
        assert heights == pytest.approx([30 * row[index] for row in chances], abs=0.02)
        below = above
    assert below == pytest.approx([0.0] * count, abs=0.02)


@pytest.mark.parametrize("scale", [1, 4])
def test_the_front_places_networks_teacher_and_published_rows(tmp_path: Path, scale: int) -> None:
    write_pareto(tmp_path, scale=scale)
    run = read_run(tmp_path)
    assert run.pareto is not None and run.only_search
    drawn = front(run.pareto)
    own = [pin for pin in drawn.pins if pin.kind == "own"]
    assert [pin.sign for pin in own] == ["1", "2", "3", "4", "5"]
    gaps = [a.x - b.x for a, b in itertools.pairwise(own)]
    assert gaps == pytest.approx([gaps[0]] * 4, rel=1e-3)  # each half as dear: equal steps of a logarithm
    span = drawn.up.high - drawn.up.low
    assert [(pin.y * span + drawn.up.low) for pin in own] == pytest.approx([0.03 * 1.3**k for k in range(5)])
    (teacher,) = (pin for pin in drawn.pins if pin.kind == "teacher")
    zero = next(share for share, text in drawn.up.ticks if float(text) == 0)
    assert teacher.y == pytest.approx(zero) and teacher.x > own[0].x
    published = [row for row in rows(run.pareto) if row["kind"] == "published"]
    page = render(run)
    if scale == 1:
        assert not published and "ESRGAN" not in page
        return
    # true at 128x128, and four times as dear at the 256x256 that published figures refer to
    assert rows(run.pareto)[0]["macs"] == 4 * int(0.99 * 4e9)
    assert [(row["name"], row["macs"], row["psnr"][0]) for row in published] == [
        ("ESRGAN", 1176.61e9, 32.73),
        ("VDSR", 699.36e9, 31.35),
        ("AGD", 110.9e9, 31.79),
    ]
    assert "not measured here" in page and page.count(">published<") == 3


def test_a_dominated_network_is_not_on_the_front(tmp_path: Path) -> None:
    write_pareto(tmp_path, count=3)
    document = json.loads((tmp_path / "pareto.json").read_text())
    document["members"][0]["validation_loss"] = 1.0  # the dearest, and the worst
    (tmp_path / "pareto.json").write_text(json.dumps(document))
    pareto = read_run(tmp_path).pareto
    assert pareto is not None
    drawn = front(pareto)
    path = re.search(r'class="smooth" d="M([^"]+)"', drawn.svg)
    assert path is not None and len(path.group(1).split("L")) == 2


@pytest.mark.parametrize(("low", "high"), [(1e9, 1e9), (3e8, 5e10), (1e6, 1.2e12), (9e5, 1.1e6)])
def test_logarithmic_axes_hold_their_values_and_have_ticks(low: float, high: float) -> None:
    scale = log_axis(low, high)
    assert scale.low < math.log10(low) <= math.log10(high) < scale.high
    assert 1 <= len(scale.ticks) <= 12 and all(0 <= share <= 1 for share, _ in scale.ticks)


def test_a_run_that_searches_compares_with_its_teacher(tmp_path: Path) -> None:
    """Without pruning there is no gap for it; what is pruned afterwards is told from what was searched."""
    run = write_run(tmp_path / "run", stages=("distill", "eval", "export", "bench"))
    write_search(run / "search")
    folder = read_run(run)
    assert (
        not folder.missing and folder.whole is not None and folder.whole.share == pytest.approx(998 / 56_800)
    )
    page = render(folder)
    assert 'id="budget"' not in page and "Pruning has not run" not in page
    both = write_run(tmp_path / "both")
    told = write_search(both / "search")
    whole = read_run(both).whole
    assert whole is not None and whole.original == told["teacher_cost"]
    assert "of the found network's MACs" in render(read_run(both))
    assert summary_json(both)["budget"]["original"]["macs"] == 56_800_000_000
    unknown = write_run(tmp_path / "unknown", stages=("distill",))
    write_search(unknown / "search", teacher=False)
    assert "what the original takes is not known" in render(read_run(unknown))
    assert summary_json(unknown)["budget"]["share"] is None


def test_a_damaged_record_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    write_pareto(tmp_path)
    document = json.loads((tmp_path / "pareto.json").read_text())
    document["members"][1]["validation_loss"] = None
    (tmp_path / "pareto.json").write_text(json.dumps(document))
    assert "pareto.json is damaged" in read_run(tmp_path).problems["pareto"]
    told = write_search(tmp_path / "macs-4G")
    told["course"]["steps"] = [1]
    (tmp_path / "macs-4G" / "search.json").write_text(json.dumps(told))
    assert "do not fit their steps" in read_run(tmp_path / "macs-4G").problems["search"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("searches")
    write_pareto(folder / "pareto", scale=4)
    run = write_run(folder / "run", layers=12)
    write_search(run / "search", name="module." * 9 + "{}", positions=40)
    return [report(folder / "pareto"), report(folder / "pareto" / "macs-4G"), report(run)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    opened = Browser()
    yield opened
    opened.close()


def test_in_a_browser_nothing_overflows_and_pins_stand_where_they_should(
    browser: Browser, pages: list[Path]
) -> None:
    for page in pages:
        for width, dark in ((320, True), (1280, False)):
            browser.open(page, width=width, height=800, dark=dark, touch=width < 700)
            browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert browser.run("document.documentElement.scrollWidth") == width
            assert browser.console == []
    browser.open(pages[0])
    places = browser.run(
        "[...document.querySelectorAll('.pinned .pin')].map(p => p.getBoundingClientRect().x)"
    )
    assert len(places) == 9  # five found, their teacher, three published
    steps = [a - b for a, b in itertools.pairwise(places[:5])]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.5) and steps[0] > 20


@pytest.mark.parametrize("dark", [False, True])
def test_operators_are_told_apart_by_colour(browser: Browser, pages: list[Path], dark: bool) -> None:
    """Every operator has its own, 3 to 1 against the page as WCAG asks of graphics."""
    browser.open(pages[1], dark=dark)
    colour = "e => getComputedStyle(e).backgroundColor.match(/[0-9.]+/g).map(Number)"
    last = "[...document.querySelectorAll('figure')].filter(f => f.querySelector('.turns'))[0]"
    shown = browser.run(f"[...{last}.querySelectorAll('.swatch')].map({colour})")
    (paper,) = browser.run(f"[document.body].map({colour})")
    assert len({tuple(each) for each in shown}) == len(shown) == len(OPERATORS)
    light = luminance(np.array([paper, *shown])[:, :3] / 255) + 0.05
    contrast = np.maximum(light[1:], light[0]) / np.minimum(light[1:], light[0])
    assert (contrast >= 3).all(), contrast
