"""The report in a real browser: the slider reveals pixels, nothing overflows, nothing is requested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, find_chromium
from run_folder import write_run

from benchmarks.report.page import report
from compressor.data.images import write_image

pytest.importorskip("skimage", reason="needs the compress extra for its photographs")
pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def browser():
    with_browser = Browser()
    yield with_browser
    with_browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A run of 100 layers whose first picture is red (original), blue (compressed) and green (input)."""
    run = write_run(tmp_path_factory.mktemp("runs") / "run", layers=100)
    for kind, colour in (("original", RED), ("compressed", BLUE), ("input", GREEN)):
        pixels = np.ones((256, 256, 3), np.float32) * np.float32(colour) / 255
        write_image(run / "eval" / "images" / f"astronaut.{kind}.png", pixels)
    return report(run)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """Long names without a place to break, three thread counts, wide pictures."""
    run = write_run(
        tmp_path_factory.mktemp("runs") / "run",
        name="generator_" + "x" * 120 + ".pth",
        layer_name="module." * 20 + "{}",
        picture_name="<b>" + "y" * 80 + "{}",
        threads=(1, 2, 16),
        layers=140,
    )
    return report(run)


def box(browser: Browser, selector: str) -> tuple[float, float, float, float]:
    """Left, top, width, height in the window, after scrolling there."""
    script = f"document.querySelector({selector!r})"
    browser.run(f"{script}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    return tuple(browser.run(f"(r => [r.x, r.y, r.width, r.height])({script}.getBoundingClientRect())"))


def shares(browser: Browser, left: tuple[int, int, int] = RED) -> float:
    """The part of the slider's picture, on a line clear of handle and tags, that shows the left side."""
    x, y, width, height = box(browser, ".compare")
    line = browser.screenshot()[int(y + height * 0.2), int(x) : int(x + width)].astype(int)
    is_left = np.abs(line - left).sum(1) < 30
    is_right = np.abs(line - BLUE).sum(1) < 30
    assert (is_left | is_right).mean() > 0.98  # all but the divider is one or the other
    begins = np.argmax(is_right) if is_right.any() else len(line)
    assert not is_left[begins:].any()  # left of the cut one, right of it the other
    return is_left.mean()


def test_the_slider_reveals_pixels_by_mouse(browser, page):
    browser.open(page)
    assert shares(browser) == pytest.approx(0.5, abs=0.01)
    x, y, width, height = box(browser, ".compare")
    browser.drag((x + width / 2, y + height / 2), (x + width * 0.8, y + height / 2))
    assert shares(browser) == pytest.approx(0.8, abs=0.01)
    browser.drag((x + width * 0.1, y + height / 2), (x + width * 0.1, y + height / 2))
    assert shares(browser) == pytest.approx(0.1, abs=0.01)
    assert browser.console == []


def test_the_slider_obeys_the_keyboard(browser, page):
    browser.open(page)
    browser.run("document.querySelector('.compare input').focus()")
    for _ in range(10):
        browser.press("ArrowRight")
    assert shares(browser) == pytest.approx(0.6, abs=0.01)
    browser.press("Home")
    assert shares(browser) == pytest.approx(0, abs=0.01)
    browser.press("End")
    assert shares(browser) == pytest.approx(1, abs=0.01)
    assert browser.run("document.querySelector('.compare input').getAttribute('aria-valuetext')") == "100 %"


def test_the_slider_obeys_a_finger(browser, page):
    browser.open(page, width=360, height=760, touch=True)
    x, y, width, height = box(browser, ".compare")
    browser.swipe((x + width / 2, y + height / 2), (x + width * 0.25, y + height / 2))
    assert shares(browser) == pytest.approx(0.25, abs=0.02)


def test_the_input_can_take_the_left_side(browser, page):
    browser.open(page)
    browser.run("document.querySelector('[data-side=input]').click()")
    assert shares(browser, GREEN) == pytest.approx(0.5, abs=0.01)
    assert browser.run("document.querySelector('.tag.left').textContent") == "Input"
    browser.run("document.querySelector('[data-side=original]').click()")
    assert shares(browser) == pytest.approx(0.5, abs=0.01)


def test_pictures_can_be_chosen_by_click_and_by_key(browser, page):
    browser.open(page)
    shown = "[...document.querySelectorAll('.picture')].map(p => p.offsetHeight > 0)"
    assert browser.run(shown) == [True, False, False, False]
    browser.run("document.querySelectorAll('.thumbs button')[2].click()")
    assert browser.run(shown) == [False, False, True, False]
    browser.run("document.querySelectorAll('.thumbs button')[2].focus()")
    browser.press("ArrowRight")
    assert browser.run(shown) == [False, False, False, True]
    browser.press("ArrowRight")
    assert browser.run(shown) == [True, False, False, False]
    pressed = "[...document.querySelectorAll('.thumbs button')].map(b => b.getAttribute('aria-pressed'))"
    assert browser.run(pressed) == ["true", "false", "false", "false"]


def test_nothing_is_requested_and_nothing_complains(browser, page):
    browser.open(page)
    assert browser.requests[0] == page.as_uri()
    assert all(url.startswith("data:image/") for url in browser.requests[1:])
    assert browser.console == []
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert browser.run(broken) == 0 and browser.run("document.images.length") > 12


def test_the_content_policy_stops_foreign_scripts_and_requests(browser, page):
    browser.open(page)
    browser.run(
        "{ const evil = document.createElement('script'); evil.textContent = 'window.evil = 1';"
        "  document.body.append(evil); }"
    )
    assert browser.run("window.evil") is None
    assert browser.run("fetch('https://example.com').then(() => 'went out', () => 'stopped')") == "stopped"


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
@pytest.mark.parametrize("which", ["page", "crowded"])
def test_nothing_overflows(browser, request, which, width):
    browser.open(request.getfixturevalue(which), width=width, height=760, touch=width < 700)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.console == []


def test_a_chart_of_140_layers_names_each(browser, crowded):
    browser.open(crowded, width=360, height=760, touch=True)
    assert browser.run("document.querySelectorAll('.hit').length") == 140
    box(browser, ".layers .plot")
    browser.run("document.querySelector('.layers .plot').focus()")
    for _ in range(3):
        browser.press("ArrowRight")
    assert ".2 · Conv2d · 256 →" in browser.run("document.querySelector('.readout').textContent")
    x, y, width, height = box(browser, ".layers .plot")
    browser.drag((x + width - 1, y + height / 2), (x + width - 1, y + height / 2))
    assert ".139 · Conv2d · 3 → 3" in browser.run("document.querySelector('.readout').textContent")


def luminance(colour: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB values in [0, 1] (WCAG 2.2)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_in_both_colour_schemes(browser, page, dark):
    """Every visible text against the nearest painted background: 4.5 to 1, as WCAG AA asks."""
    browser.open(page, dark=dark)
    script = """(() => {
      document.querySelectorAll('details').forEach(d => d.open = true);
      const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
      const rgb = (css) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const found = [];
      for (const e of document.querySelectorAll('main *, footer, nav *')) {
        if (e.closest('.compare, svg') || !e.offsetHeight) continue;
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
        let b = e, back;
        do {
          back = rgb(getComputedStyle(b).backgroundColor); b = b.parentElement;
        } while (back[3] < 220 && b);
        found.push([e.className || e.tagName, rgb(getComputedStyle(e).color), back]);
      }
      return found; })()"""
    found = browser.run(script)
    assert len(found) > 200
    for name, fore, back in found:
        high, low = sorted(
            (luminance(np.array(fore[:3]) / 255), luminance(np.array(back[:3]) / 255)), reverse=True
        )
        assert (high + 0.05) / (low + 0.05) >= 4.5, (name, fore, back)
    paper = browser.screenshot()[400, 5].astype(int).sum()
    assert paper < 120 if dark else paper > 700


def test_the_colour_scheme_can_be_chosen(browser, page):
    browser.open(page)
    corner = lambda: int(browser.screenshot()[400, 5].astype(int).sum())  # noqa: E731
    light = corner()
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") == "light" and corner() == light
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") == "dark" and corner() < 120
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme") is None and corner() == light


def test_half_finished_and_lone_folders_look_right_too(browser, tmp_path):
    for stages in ((), ("prune",), ("export",), ("bench",)):
        run = write_run(tmp_path / "-".join(("run", *stages)), stages=stages)
        browser.open(report(run), width=360, height=760, touch=True)
        assert browser.run("document.documentElement.scrollWidth") == 360
        assert browser.console == []
