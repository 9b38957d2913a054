"""No seam of a grey level or more is written: networks are measured anew on harder pictures, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_apply import blur, centred, noise

from compressor.data.images import write_image
from exporters.apply.apply import ApplyOptions, ApplyResult, apply
from exporters.apply.painter import Painter
from exporters.apply.pictures import read_picture
from exporters.apply.record import JOURNAL

GREY = np.float32(51 / 255)  # exact in 8 bits


def painted(painter: Painter, folder: Path, tile: int | None = None, *, resume: bool = False) -> ApplyResult:
    pictures = sorted(folder.glob("*.png"))
    return apply(
        painter, [(p, Path(p.name)) for p in pictures], folder / "out", ApplyOptions(tile), resume=resume
    )


def off(painter: Painter, folder: Path, name: str) -> float:
    """Largest difference in grey levels between a tiled picture and the same painted at once."""
    picture = read_picture(folder / name)
    whole = painter.paint(picture.values(painter.image.channels[0])(picture.pixels)) * 255
    return float(np.abs(read_picture(folder / "out" / name).pixels - whole).max())


def surrounded(painter: Painter) -> Painter:
    """The same with grey around the picture in place of black."""
    return replace(painter, _run=lambda values: painter._run(values - GREY) + GREY)


def in_tiles(painter: Painter, side: int) -> Painter:
    return replace(painter, fixed=(side, side))


def test_a_harder_picture_is_measured_and_painted_again(tmp_path: Path) -> None:
    """In a flat picture a mean over 11x11 pixels needs no context but at the border."""
    painter = blur(5)
    inner = surrounded(painter)
    write_image(tmp_path / "1.png", np.full((90, 90, 3), GREY, np.float32))
    write_image(tmp_path / "2.png", noise(90, 100))
    write_image(tmp_path / "3.png", noise(100, 90, seed=1))
    tiled = in_tiles(inner, 48)
    result = painted(tiled, tmp_path)
    assert not result.failed and result.reach is not None and result.reach.context == 5
    assert [picture.tiles >= 4 for picture in result.pictures] == [True, True, True]
    for number in (2, 3):
        assert off(inner, tmp_path, f"{number}.png") < 0.51
    lines = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_text().splitlines()]
    contexts = [line["reach"]["context"] for line in lines if "reach" in line]
    assert contexts == [0, 5]  # measured twice, not thrice
    again = painted(tiled, tmp_path, resume=True)
    assert again.kept == 3 and again.reach == result.reach


def test_what_the_diagonal_does_not_show_is_met_by_more_context(tmp_path: Path) -> None:
    """The network is measured along the diagonal; the hard part of this picture lies far from it."""
    painter = blur(7)
    inner = surrounded(painter)
    pixels = np.full((300, 300, 3), GREY, np.float32)
    pixels[:90, -90:] = noise(90, 90)
    write_image(tmp_path / "1.png", pixels)
    result = painted(in_tiles(inner, 64), tmp_path)
    assert not result.failed and off(inner, tmp_path, "1.png") < 0.51
    lines = [json.loads(line) for line in (tmp_path / "out" / JOURNAL).read_text().splitlines()]
    contexts = [line["reach"]["context"] for line in lines if "reach" in line]
    assert contexts[0] == 0 and contexts[1:] == [2 << step for step in range(len(contexts) - 1)] != []


@pytest.mark.parametrize(
    ("painter", "words"),
    [(centred(), "looks at the whole picture"), (blur(15), "sees further than its tiles")],
)
def test_tiles_that_cannot_agree_are_refused_unless_chosen(
    tmp_path: Path, painter: Painter, words: str
) -> None:
    ramp = np.linspace(0, 1, 120, dtype=np.float32)[:, None, None]
    write_image(tmp_path / "1.png", noise(120, 120) / 2 + ramp / 2)
    write_image(tmp_path / "2.png", noise(30, 30))
    fixed = in_tiles(painter, 32)
    result = painted(fixed, tmp_path)
    ((name, why),) = result.failed
    assert name.endswith("1.png") and words in why and "--tile 32" in why and "larger --size" in why
    assert result.problem is not None and result.problem.exit_code == 3
    assert [Path(picture.picture).name for picture in result.pictures] == ["2.png"]  # one tile
    assert not (tmp_path / "out" / "1.png").exists()
    chosen = painted(fixed, tmp_path, 32, resume=True)
    assert not chosen.failed and chosen.notes and (tmp_path / "out" / "1.png").exists()


def test_a_network_of_free_size_that_needs_all_is_given_all(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", noise(600, 560))
    result = painted(centred(), tmp_path)
    assert result.pictures[0].tiles == 1 and off(centred(), tmp_path, "1.png") < 0.51


NETWORKS = "benchmarks.networks"


@pytest.mark.parametrize(
    ("weights", "factory", "side", "words"),
    [
        ("vdsr_x4.safetensors", "vdsr:vdsr", 128, None),
        ("IMDN_x4.pth", "imdn:imdn_x4", 64, "looks at the whole picture"),  # pooled attention
        ("fast_style_la_muse.safetensors", "fast_style:fast_style", 128, "looks at the whole picture"),
    ],
)
def test_real_networks(
    shared_data: Path, tmp_path: Path, weights: str, factory: str, side: int, words
) -> None:
    from compressor.generators import load
    from exporters.apply.painter import of_generator

    painter = of_generator(load(shared_data / "weights" / weights, factory=f"{NETWORKS}.{factory}"))
    write_image(
        tmp_path / "1.png", np.tile(np.linspace(0.3, 0.5, 160, dtype=np.float32)[:, None, None], (1, 160, 3))
    )
    real = read_picture(shared_data / "sr" / "Set14_x4" / "img_001_SRF_4_HR.png")
    write_image(tmp_path / "2.png", real.values(3)(real.pixels[150:310, 150:310]))
    result = painted(in_tiles(painter, side), tmp_path)
    if words is None:
        assert not result.failed
        assert off(painter, tmp_path, "1.png") < 0.6 and off(painter, tmp_path, "2.png") < 0.6
        return
    assert words in result.failed[-1][1] and result.failed[-1][0].endswith("2.png")
    for picture in result.pictures:  # the smooth one may pass; then no seam shows in it
        assert picture.seam is not None and picture.seam < 1
