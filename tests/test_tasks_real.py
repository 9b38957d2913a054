"""Pix2Pix and CycleGAN from nothing on real pictures at reduced size: pruned to a quarter and exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketgan.cli import main

pytestmark = pytest.mark.acceptance
PAIRS = 30
BRIEF = ["--scratch", "--epochs", "4", "--epochs-decay", "4", "--search-epochs", "3", "--check-every", "10"]
BRIEF += ["--discriminator-width", "16", "--discriminator-layers", "2", "--budget", "macs=25%"]


def call(*words: object) -> dict:
    result = CliRunner().invoke(main, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def pictures(source: Path, folder: Path) -> Path:
    """The first pairs, without what another generator painted."""
    folder.mkdir()
    for kind in ("real_A", "real_B"):
        found = sorted(source.rglob(f"*{kind}*"))[:PAIRS]
        assert len(found) == PAIRS
        for path in found:
            (folder / path.name).symlink_to(path)
    return folder


def exported(model: Path, images: Path, out: Path) -> None:
    """Six files that agree with PyTorch."""
    document = call("export", model, "--images", images, "--output-dir", out)
    assert len(document["files"]) == 6
    assert all(file["parity"]["passed"] for file in document["files"])


def test_pix2pix_from_nothing_on_facades(shared_data, tmp_path):
    pairs = pictures(shared_data / "pix2pix" / "facades", tmp_path / "pairs")
    unet = ["--argument", "depth=6", "--argument", "width=32", "--size", "64x64"]
    document = call(
        "prune", "unet", *unet, "--task", "pix2pix", "--images", pairs, "--direction", "BtoA", *BRIEF,
        "--output-dir", tmp_path / "small",
    )  # fmt: skip
    assert 0.2475 <= document["share"] <= 0.25
    exported(tmp_path / "small", pairs, tmp_path / "files")


def test_cyclegan_from_nothing_on_maps(shared_data, tmp_path):
    pairs = pictures(shared_data / "pix2pix" / "maps", tmp_path / "pairs")
    for kind in "AB":
        (tmp_path / kind).mkdir()
        for path in sorted(pairs.glob(f"*real_{kind}*")):
            (tmp_path / kind / path.name).symlink_to(path.resolve())
    resnet = ["--argument", "blocks=4", "--argument", "width=16", "--size", "64x64"]
    document = call(
        "prune", "resnet", *resnet, "--task", "cyclegan", "--images", tmp_path / "A", *BRIEF,
        "--partner-images", tmp_path / "B", "--output-dir", tmp_path / "small",
    )  # fmt: skip
    assert all(0.2475 <= made["share"] <= 0.25 for made in document["generators"])
    for name, images in (("A_to_B", "A"), ("B_to_A", "B")):
        exported(tmp_path / "small" / name, tmp_path / images, tmp_path / f"files_{name}")
