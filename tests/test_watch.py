"""What a training leaves to look at: widths and samples in its own files, and TensorBoard's."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import two_processes
from PIL import Image
from safetensors.torch import save_file
from test_training import Killed, _kill_after
from torch import nn

from compressor.coronet.prune import prune
from compressor.coronet.widths import latent_vectors
from compressor.data.images import write_image
from compressor.errors import PocketganError
from compressor.graph import trace
from compressor.options import AdversarialOptions, DistilOptions, PruneOptions
from compressor.training import watch
from compressor.training.distil import distil
from compressor.training.watch import Watch, at_rest

OPTIONS = PruneOptions(steps=12, batch=1, device="cpu", samples=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for index in range(3):
        coarse = np.kron(draw.random((4, 4, 3)), np.ones((8, 8, 1))).astype(np.float32)
        write_image(tmp_path / "A" / f"{index}.png", coarse)
        write_image(tmp_path / "B" / f"{index}.png", 1 - coarse)
    torch.manual_seed(0)
    save_file(two_processes.Small().state_dict(), tmp_path / "small.safetensors")
    return tmp_path


def search(data: Path, output: Path, options: PruneOptions = OPTIONS, **more) -> dict:
    pictures = sorted((data / "A").iterdir())
    generator = two_processes.generator(data)
    return prune(generator, pictures, two_processes.HALF, output, options, **more).document


def test_latent_vectors_are_all_prunable_classes_once(data):
    graph = trace(two_processes.generator(data).module, two_processes.FORMAT.input_shape)
    vectors = latent_vectors(graph)
    members = np.concatenate(list(vectors.values()))
    assert sorted(members) == np.flatnonzero(graph.prunable).tolist()
    assert all(len(set(graph.groups[each])) == 1 for each in vectors.values())
    assert "head" in vectors  # and not the blocks, whose sums share it


def test_widths_end_where_the_layers_do(data):
    document = search(data, data / "out")
    widths = document["widths"]
    assert widths["steps"] == list(range(1, 13))
    after = {layer["name"]: layer for layer in document["layers"]}
    for vector in widths["vectors"]:
        assert len(vector["kept"]) == len(vector["latent"]) == 12
        assert vector["kept"][0] == vector["whole"]
        assert all(0 <= here <= vector["whole"] for here in vector["kept"])
    (head,) = (vector for vector in widths["vectors"] if vector["name"] == "head")
    assert (head["whole"], head["kept"][-1]) == (after["head"]["out_before"], after["head"]["out"])
    assert sum(v["kept"][-1] for v in widths["vectors"]) < sum(v["whole"] for v in widths["vectors"])


def test_widths_stay_few_however_long_the_run(tmp_path):
    class Flat:
        kind, target, searching = "flat", 0.5, True

        def rows(self) -> dict[str, list[int]]:
            return {"kept": [4]}

    seen = Watch("prune", 12345, {"": tmp_path}, replace(OPTIONS, samples=0), dict, {"": Flat()})
    for step in range(1, 12346):
        seen.look(step, {})
    assert 45 <= len(seen.steps) <= 51 and not list(tmp_path.iterdir())


def test_samples_show_original_and_student_side_by_side(data):
    document = search(data, data / "out")
    assert document["samples"] == {"panels": ["original", "student"], "steps": [1, 4, 8, 12]}
    files = sorted((data / "out" / "samples").iterdir())
    assert [file.name for file in files] == [f"step_{step:06d}.png" for step in (1, 4, 8, 12)]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert all(picture.shape == (32, 64, 3) for picture in pictures)
    for picture in pictures[1:]:
        assert np.array_equal(picture[:, :32], pictures[0][:, :32])  # the original stays what it is
        assert not np.array_equal(picture[:, 32:], pictures[0][:, 32:])
    assert not (data / "none").exists()
    assert "samples" not in search(data, data / "none", replace(OPTIONS, samples=0))


def test_a_resumed_run_has_seen_the_same(data, monkeypatch):
    whole = search(data, data / "whole")
    with monkeypatch.context() as context:
        _kill_after(context, 7)
        with pytest.raises(Killed):
            search(data, data / "part")
    assert search(data, data / "part", resume=True) == whole
    for file in (data / "whole" / "samples").iterdir():
        assert file.read_bytes() == (data / "part" / "samples" / file.name).read_bytes()


def test_looking_changes_no_training(data, monkeypatch):
    """Painting leaves running averages alone."""
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    module[0].train(), module[1].eval()
    with at_rest(module):
        module(torch.rand(1, 3, 4, 4))
    assert module[0].num_batches_tracked == 0 and (module[0].training, module[1].training) == (True, False)
    weights = [
        search(data, data / f"out{samples}", replace(OPTIONS, samples=samples))
        and (data / f"out{samples}" / "weights.safetensors").read_bytes()
        for samples in (0, 12)
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("job", ["pix2pix", "cyclegan"])
def test_adversarial_runs_can_be_watched_too(data, monkeypatch, job):
    monkeypatch.setattr(
        two_processes, "GAME", replace(two_processes.GAME, batch=1, tensorboard=data / "board")
    )
    two_processes.JOBS[job](data, data / "out")
    for folder in [data / "out"] if job == "pix2pix" else sorted((data / "out").glob("*_to_*")):
        document = json.loads((folder / "prune.json").read_text())
        assert document["widths"]["steps"][-1] == document["steps"]
        for vector in document["widths"]["vectors"]:
            widths = [layer["out"] for layer in document["layers"] if layer["name"] == vector["name"]]
            assert widths in ([], [vector["kept"][-1]])
        steps = document["samples"]["steps"]
        assert steps[-1] > document["steps"] and document["samples"]["panels"] == ["given", "student"]
        assert len(list((folder / "samples").iterdir())) == len(steps)


def test_tensorboard_gets_losses_budget_widths_latents_and_pictures(data):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'pocketgan[watch]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = data / "board"
    document = search(data, data / "out", replace(OPTIONS, tensorboard=board))
    student = two_processes.load(data / "out", factory=two_processes.FACTORY)
    pictures = sorted((data / "A").iterdir())
    options = DistilOptions(steps=4, batch=1, device="cpu", tensorboard=board)
    distil(student, two_processes.generator(data), pictures, data / "trained", options)

    everything = {"histograms": 0, "images": 0, "scalars": 0}
    events = EventAccumulator(str(board / "prune"), size_guidance=everything).Reload()
    shares = [event.value for event in events.Scalars("budget/share")]
    assert shares == pytest.approx([point["share"] for point in document["trajectory"]], rel=1e-5)
    assert all(a >= b for a, b in itertools.pairwise(shares)) and shares[-1] <= 0.5 < shares[0]
    targets = [event.value for event in events.Scalars("budget/target")]
    assert targets == pytest.approx([0.5] * 12, rel=1e-3)
    assert len(events.Scalars("loss/loss")) == 12
    for vector in document["widths"]["vectors"]:
        kept = {event.step: event.value for event in events.Scalars(f"width/{vector['name']}")}
        assert list(kept.values()) == vector["kept"]
    assert len(events.Histograms("latent")) >= 12
    assert [event.step for event in events.Images("samples/original | student")] == [1, 4, 8, 12]
    assert EventAccumulator(str(board / "distill")).Reload().Scalars("loss/loss")


def test_tensorboard_missing_is_said_before_anything_is_written(data, monkeypatch):
    monkeypatch.setattr(watch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PocketganError, match=r"pocketgan\[watch\]"):
        search(data, data / "out", replace(OPTIONS, tensorboard=data / "board"))
    assert not (data / "out").exists() and not (data / "board").exists()


def test_where_it_is_watched_is_no_setting_of_the_result(data, monkeypatch):
    with monkeypatch.context() as context:
        _kill_after(context, 7)
        with pytest.raises(Killed):
            search(data, data / "out")
    pytest.importorskip("tensorboard")
    search(data, data / "out", replace(OPTIONS, tensorboard=data / "board"), resume=True)
    assert AdversarialOptions().samples == PruneOptions().samples == DistilOptions().samples == 8
