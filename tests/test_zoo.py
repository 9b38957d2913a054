"""The zoo: cards say what the records say, and the files still load and paint the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.zoo import ANIMALS, CARD, FIGURES, FILES, GIVEN, HERE, LARGEST, MODEL, PAINTED, card, keep
from compressor.data.images import read_image, to_pixels, to_tensor
from compressor.errors import PocketganError
from compressor.files import read_json, sha256
from compressor.metrics.fidelity import psnr

FOLDERS = sorted(path for path in HERE.iterdir() if path.is_dir())


def test_every_network_has_its_folder_and_every_folder_its_network() -> None:
    assert [folder.name for folder in FOLDERS] == sorted(ANIMALS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestAnimal:
    def test_the_card_is_its_record_and_the_record_is_of_these_files(self, folder: Path) -> None:
        told = read_json(folder / FIGURES)
        assert (folder / CARD).read_text(encoding="utf-8") == card(told)
        assert told["sha256"] == {name: sha256(folder / name) for name in (*MODEL, *FILES)}
        changed = {**told, "psnr_to_original": {"cat": 12.34}}
        assert "12.3 dB" in card(changed) and "12.3 dB" not in card(told)

    def test_it_is_small(self, folder: Path) -> None:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert max(sizes) <= LARGEST and sum(sizes) < 2_000_000

    def test_its_cost_is_the_recorded_one(self, folder: Path) -> None:
        from compressor.cost import count
        from compressor.generators import load

        generator, told = load(folder), read_json(folder / FIGURES)
        cost = count(generator.module, generator.spec.image.input_shape)
        assert (cost.macs, cost.parameters) == (told["reached"]["macs"], told["reached"]["parameters"])
        assert cost.macs / told["original"]["macs"] == pytest.approx(told["share"])

    def test_pytorch_paints_the_picture_of_the_card(self, folder: Path) -> None:
        from compressor.evaluate import run
        from compressor.generators import load

        made = run(load(folder), read_image(folder / GIVEN))
        assert np.abs(made - read_image(folder / PAINTED)).max() <= 1.01 / 255
        assert psnr(read_image(folder / GIVEN), read_image(folder / PAINTED)) < 25  # it does something

    @pytest.mark.parametrize("name", FILES)
    def test_the_files_paint_it_as_near_as_recorded(self, folder: Path, name: str) -> None:
        from compressor.evaluate import run
        from compressor.generators import load
        from exporters.runtime import open_onnx, open_tflite

        generator, told = load(folder), read_json(folder / FIGURES)
        given, image = read_image(folder / GIVEN), generator.spec.image
        opened = (open_onnx if name.endswith(".onnx") else open_tflite)((folder / name).read_bytes())
        made = to_pixels(opened(to_tensor(given, image.input_range).numpy()), image.output_range)
        found = psnr(made, run(generator, given))
        assert found == pytest.approx(told["files"][name]["psnr"][told["picture"]], abs=0.5)


def test_files_that_are_too_large_stay_out(tmp_path: Path) -> None:
    for part in ("distill", "export/compressed"):
        (tmp_path / "run" / part).mkdir(parents=True)
    for name in MODEL:
        (tmp_path / "run" / "distill" / name).write_bytes(b"small")
    for name in FILES:
        (tmp_path / "run" / "export" / "compressed" / name).write_bytes(bytes(LARGEST + 1))
    with pytest.raises(PocketganError, match=f"{FILES[0]} is too large"):
        keep("watercolour", tmp_path / "run", tmp_path / "none.png", tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
