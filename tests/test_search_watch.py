"""What a search leaves to look at: probabilities, widths and pictures over time, TensorBoard's events."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_agd_search import QUICK, _teacher
from tiny_space import TIED, space, write_pictures

from compressor.agd.architecture import Architecture
from compressor.agd.search import search
from compressor.agd.space import Choice
from compressor.budget import Budget
from compressor.errors import PocketganError
from compressor.training import watch

OPTIONS = replace(QUICK, samples=3, device="cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETGAN_CACHE", str(tmp_path / "cache"))


def test_entropy_is_one_where_all_are_alike_and_falls_to_none() -> None:
    """Over positions with a choice alone, each in units of its most."""
    architecture = Architecture([1, 2, 4], [[3], [3], [3]])
    assert architecture.entropy() == pytest.approx(1.0)
    with torch.no_grad():
        architecture.alpha[1] = torch.tensor([np.log(3.0), 0.0, 0.0, 0.0])  # 3/4 and 1/4
        architecture.alpha[2] = torch.tensor([60.0, 0.0, 0.0, 0.0])
    binary = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert architecture.entropy() == pytest.approx(binary / 2, abs=1e-6)
    assert Architecture([1], [[3, 4]]).entropy() == 0.0


def test_a_family_is_watched_member_by_member(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'pocketgan[watch]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    options = replace(OPTIONS, tensorboard=tmp_path / "board")
    budgets = Budget.parse_family("macs=200k,80k")
    found = search(of, _teacher(of), pictures, budgets, tmp_path / "out", options)
    everything = {"images": 0, "scalars": 0}
    events = EventAccumulator(str(tmp_path / "board" / "search"), size_guidance=everything).Reload()
    for result, name in zip(found, ("macs-200k", "macs-80k"), strict=True):
        course = result.document["course"]
        assert course["steps"] == [3, 4, 5]  # after two steps of pretraining
        positions = {position["name"]: position for position in result.document["positions"]}
        open_to = [
            p.name for p in of.positions if len(p.operators) > 1 or len(p.widths) > 1 or p.tied is not None
        ]
        assert [row["name"] for row in course["positions"]] == open_to
        for row in course["positions"]:
            chances = np.array(row["chances"])
            assert chances.shape == (3, len(row["operators"]))
            assert chances.sum(1) == pytest.approx(np.ones(3), abs=1e-3)
            last = dict(zip(row["operators"], chances[-1].tolist(), strict=True))
            assert last == pytest.approx(positions[row["name"]]["operators"], abs=1e-4)
            assert all(0 < channels <= row["widest"] for channels in row["channels"])
            own = positions[positions[row["name"]]["tied"] or row["name"]]
            mean = sum(int(width) * chance for width, chance in own["widths"].items())
            assert row["channels"][-1] == pytest.approx(mean, abs=0.02)
            if len(row["operators"]) > 1:
                tag = f"operator_{name}/{row['name']}/{row['operators'][0]}"
                assert [e.value for e in events.Scalars(tag)] == pytest.approx(chances[:, 0].tolist())
        shares = [point["share"] for point in result.document["trajectory"] if "share" in point]
        assert [e.value for e in events.Scalars(f"budget/share_{name}")] == pytest.approx(shares, rel=1e-5)
        assert [e.value for e in events.Scalars(f"budget/target_{name}")] == [1.0] * 3
        assert len(events.Scalars(f"budget/multiplier_{name}")) == 3
        assert len(events.Scalars(f"architecture/entropy_{name}")) == 3
        assert [e.step for e in events.Images(f"samples_{name}/teacher | student")] == [1, 2, 4]
        files = sorted((result.folder / "samples").iterdir())
        assert [file.name for file in files] == [f"step_{step:06d}.png" for step in (1, 2, 4)]
    assert len(events.Scalars("architecture/temperature")) == 3
    assert events.Scalars("loss/loss") and events.Scalars("loss/weights")


def test_the_pictures_are_the_teachers_and_the_landings(tmp_path: Path) -> None:
    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    options = replace(OPTIONS, samples=5)
    (result,) = search(of, _teacher(of), pictures, [Budget.parse("macs=90k")], tmp_path / "out", options)
    assert result.document["samples"] == {"panels": ["teacher", "student"], "steps": [1, 2, 3, 4, 5]}
    shown = [np.asarray(Image.open(file)) for file in sorted((result.folder / "samples").iterdir())]
    side = 2 * of.image.size[0]
    assert all(picture.shape == (side, 2 * side, 3) for picture in shown)
    assert all(np.array_equal(picture[:, :side], shown[0][:, :side]) for picture in shown)
    assert not np.array_equal(shown[0][:, side:], shown[-1][:, side:])
    # the last one is what the weights of the end make of the landing then, a candidate of the end
    landed = [c for c in result.document["candidates"] if c["within"]]
    assert Choice.from_json(result.document["choice"]) in [
        Choice(tuple(c["operators"]), tuple(c["widths"])) for c in landed
    ]


def test_looking_changes_no_search(tmp_path: Path) -> None:
    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    weights = []
    for samples in (0, 5):
        options, folder = replace(OPTIONS, samples=samples), tmp_path / f"out{samples}"
        search(of, _teacher(of), pictures, [Budget.parse("macs=90k")], folder, options)
        weights.append((folder / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] and not (tmp_path / "out0" / "samples").exists()


def test_missing_tensorboard_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: None)
    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    options = replace(OPTIONS, tensorboard=tmp_path / "board")
    with pytest.raises(PocketganError, match=r"pocketgan\[watch\]"):
        search(of, _teacher(of), pictures, [Budget.parse("macs=90k")], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_feature_networks_path_is_kept_in_the_record(tmp_path: Path) -> None:
    """Settings that are paths are text in search.json."""
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    widths, state = [3, 64, 64, 128, 128], {}
    for (block, number), (before, after) in zip(
        [(1, 1), (1, 2), (2, 1), (2, 2)], itertools.pairwise(widths), strict=True
    ):
        state[f"block{block}_conv{number}.weight"] = 0.05 * torch.randn(after, before, 3, 3, generator=draw)
        state[f"block{block}_conv{number}.bias"] = torch.zeros(after)
    save_file(state, tmp_path / "vgg.safetensors")
    of, pictures = space(TIED), write_pictures(tmp_path / "pictures", 4, 24)
    options = replace(OPTIONS, perceptual=tmp_path / "vgg.safetensors", pretrain=0, steps=1, samples=0)
    search(of, _teacher(of), pictures, [Budget.parse("macs=90k")], tmp_path / "out", options)
    told = json.loads((tmp_path / "out" / "search.json").read_text())
    assert told["options"]["perceptual"] == str(tmp_path / "vgg.safetensors")
