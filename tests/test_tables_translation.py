"""Tables of translation and Pix2Pix: measured from what is at hand, recorded, and what is missing."""

# ruff: noqa: F811 - tests take fixtures by their names

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import upstream_layouts as up
from safetensors.torch import save_file
from table_rows import data, noise, row, write  # noqa: F401 - a fixture among them

from benchmarks.judging import ZEBRA
from benchmarks.networks.mobilenet import MobileNet
from benchmarks.tables import pix2pix, st
from benchmarks.tables.kept import Kept
from benchmarks.tables.records import HERE
from compressor.generators import load


def test_translation_without_data_says_so(tmp_path: Path) -> None:
    table = st.build(tmp_path, HERE, Kept(tmp_path / "cache"))
    assert "nothing is measured" in table.notes[0] and "pocketgan data fetch horse2zebra" in table.notes[0]
    assert row(table, "CycleGAN, run here")["source"] == "missing"
    assert row(table, "OMGD, ngf 16")["fid"] == 51.92
    assert row(table, "gan_compression at macs=50%, coronet")["psnr"] == pytest.approx(23.21, abs=0.01)


def test_horses_as_they_are_fetched_are_measured(tmp_path: Path) -> None:
    """An untrained classifier takes nothing for a zebra, or everything."""
    write(tmp_path / "cyclegan" / "horse2zebra" / "testA" / "n01.jpg", noise(1, 64))
    (tmp_path / "weights").mkdir()
    state = {k: v for k, v in MobileNet().state_dict().items() if "num_batches" not in k}
    state["conv_preds.bias"][ZEBRA] = 1e3
    save_file(state, tmp_path / st.CLASSIFIER)
    table = st.build(tmp_path, HERE, Kept(tmp_path / "cache"))
    assert row(table, "untranslated")["zebra_rate"] == 1 and "psnr" not in row(table, "untranslated")
    assert "measured on 1 horses" in table.notes[0]


def test_methods_without_a_record_say_their_command_until_there_is_one(tmp_path: Path) -> None:
    own = tmp_path / "records"
    own.mkdir()
    shutil.copy(HERE / "pruning_quality.json", own)
    table = st.build(tmp_path, own, Kept(tmp_path / "cache"))
    cec = row(table, "gan_compression, cec")
    assert cec["source"] == "missing" and "benchmarks.pruning_quality" in str(cec["told"])
    assert "--only gan_compression --method cec" in str(cec["told"])
    record = str(cec["told"]).rpartition("--record ")[2]
    assert Path(record).parent == own and "median" not in str(cec["told"])
    ours = {"generator": "gan_compression", "method": "cec", "share": 0.5, "psnr": 20.0}
    cells = [{**ours, "budget": "macs=50%", "seed": seed} for seed in (0, 1)]
    document = {"date": "2026-11-29", "command": "python -m benchmarks.pruning_quality", "cells": cells}
    (own / Path(record).name).write_text(json.dumps(document))
    table = st.build(tmp_path, own, Kept(tmp_path / "cache"))
    found = row(table, "gan_compression at macs=50%, cec")
    assert found["psnr"] == 20 and "2026-11-29" in str(found["told"]) and "of 2 seeds" in str(found["told"])
    assert row(table, "gan_compression at macs=50%, coronet")["psnr"] == pytest.approx(23.21, abs=0.01)


@pytest.mark.acceptance
def test_zebra_rates(shared_data: Path, tmp_path: Path) -> None:
    table = st.build(shared_data, HERE, Kept(tmp_path / "cache"))
    rates = {each.name: each.figures.get("zebra_rate") for each in table.rows if each.source == "measured"}
    assert rates["untranslated"] == 0
    assert rates["official CycleGAN, its outputs"] == pytest.approx(30 / 35)
    assert rates["GAN Compression"] == pytest.approx(28 / 35)
    assert row(table, "CycleGAN, run here")["source"] == "missing"


def test_pix2pix_figures_are_those_of_the_pictures(data: Path, tmp_path: Path) -> None:
    table = pix2pix.build(data, HERE, Kept(tmp_path / "cache"))
    found = row(table, "official U-Net-256, its outputs")
    assert found["l1"] == pytest.approx(10 / 255, abs=1e-4)  # every level is 10 too high
    assert found["psnr"] == pytest.approx(20 * np.log10(25.5), abs=1e-2)
    assert row(table, "official U-Net-256, run here")["source"] == "missing"
    assert any("pix2pix/maps" in note and "fetch maps" in note for note in table.notes)


def test_pairs_as_they_are_fetched_are_measured(data: Path, tmp_path: Path) -> None:
    """A photograph at the left, its labels 10 levels darker at the right."""
    photo = np.clip(noise(3, 256), 10, 255)
    both = np.concatenate([photo, photo - 10], axis=1)
    write(tmp_path / "pix2pix" / "facades" / "test" / "1.png", both)
    (tmp_path / "pix2pix" / "facades" / "test" / "1.png").rename(
        tmp_path / "pix2pix" / "facades" / "test" / "1.jpg"
    )
    (tmp_path / "weights").mkdir()
    torch.save(up.unet(2, 8), tmp_path / "weights" / "pix2pix_facades.pth")
    table = pix2pix.build(tmp_path, HERE, Kept(tmp_path / "cache"))
    found = row(table, "its input, untranslated")
    assert found["l1"] == pytest.approx(10 / 255, abs=1e-4) and found["set"] == "facades"
    assert row(table, "official U-Net-256, run here")["source"] == "measured"
    assert "its outputs" not in "".join(each.name for each in table.rows)


def test_the_cost_of_omgds_scheme_is_its_records(tmp_path: Path) -> None:
    table = pix2pix.build(tmp_path, HERE, Kept(tmp_path / "cache"))
    document = json.loads((HERE / "omgd_cost-unet-128.json").read_text())
    taken = {name: sum(each["seconds"]) for name, each in document["rows"].items()}
    found = row(table, "128x128, OMGD's scheme to macs=25%")
    assert found["training"] == pytest.approx(taken["omgd"] / taken["plain"])
    assert found["macs"] == document["macs"]["omgd"] and "2026-11-21" in str(found["told"])
    assert row(table, "128x128, plain training")["training"] == 1
    bare = row(pix2pix.build(tmp_path, tmp_path, Kept(tmp_path / "cache")), "OMGD's scheme")
    assert bare["source"] == "missing" and "python -m benchmarks.omgd_cost" in str(bare["told"])


def test_pix2pix_weights_are_run_once_they_are_there(data: Path, tmp_path: Path) -> None:
    path = data / "weights" / "pix2pix_facades.pth"
    path.parent.mkdir()
    torch.save(up.unet(2, 8), path)
    found = row(pix2pix.build(data, tmp_path, Kept(tmp_path / "cache")), "official U-Net-256, run here")
    assert found["source"] == "measured" and found["psnr"] is not None
    assert found["parameters"] == sum(value.numel() for value in load(path).module.parameters())
