"""Search spaces as users write them, and the networks that are saved and loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from spaces import LAYERS, SMALL, changed, picture

from compressor.agd.definition import read_space
from compressor.agd.space import FOLDER, Choice, load_space
from compressor.agd.supernet import Supernet, derive
from compressor.cost import count
from compressor.errors import PocketganError, UsageError
from compressor.generators import GeneratorSpec, load, save


def place(**changes: Any) -> dict[str, Any]:
    definition = copy.deepcopy(SMALL)
    definition["layers"][1] |= changes
    return {
        **definition,
        "layers": [{k: v for k, v in d.items() if v is not None} for d in definition["layers"]],
    }


def operator(*body: Any, **more: Any) -> dict[str, Any]:
    return changed(operators={**SMALL["operators"], "mine": {"body": list(body), **more}})


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (changed(layer=[]), "there is no 'layer'; did you mean 'layers'"),
        (changed(format="pocketgan.space/2"), "a format we do not know"),
        (changed(norm="batch"), "there is no 'batch'"),
        (changed(image={"sizes": [4, 4]}), "did you mean 'size'"),
        (changed(image={"input_range": [1, 0]}), "does not rise"),
        (changed(layers=[]), "layers is not a list"),
        (changed(multipliers=["1e99"]), "not a positive number or fraction"),
        (changed(name="train"), "is no name"),
        ([], "is not a section"),
        (place(operators=["residual", "dwsblok"]), "did you mean 'dwsblock'"),
        (place(operators=["skip", "skip"]), "stands twice"),
        (place(name="start"), "two positions of this name"),
        (place(name="a.b"), "is no name"),
        (place(width=3), "says its width 2 times"),
        (place(widths=None), "says its width 0 times"),
        (place(widths=[5, 3]), "do not rise"),
        (place(widths=[0]), "not a whole number"),
        (place(widths=None, width=True), "not a whole number"),
        (place(widths=None, width_as="strat"), "did you mean 'start'"),
        (place(repeat=0), "not a whole number"),
        (place(repeat=1001), "not a whole number"),
        (place(stride=2), "there is no 'stride'"),
        (operator({"conv": 3, "too": "out"}), "did you mean 'to'"),
        (operator({"conv": 2}), "odd kernels"),
        (operator({"conv": 3, "to": "5"}), "is no width"),
        (operator({"conv": 3, "to": "in"}), "does not end in the output's width"),
        (operator({"conv": 3}, {"shuffle": 2}), "a shuffle by 2 cannot divide"),
        (operator({"conv": 3, "stride": 2}, shortcut=True), "cannot have a shortcut"),
        (operator("rel"), "did you mean 'relu'"),
        (operator({"konv": 3}), "did you mean 'conv'"),
        (operator({"conv": 3, "bias": 1}), "not true or false"),
        (operator(), "does nothing"),
        (operator({"conv": 3}, last=[{"conv": 3}]), "a layer with channels of its own"),
        (changed(layers=LAYERS[:-1]), "the last position makes the picture"),
        (changed(layers=[{"residual": 1, "layers": LAYERS[:2]}, *LAYERS[2:]]), "adds different widths"),
    ],
)  # fmt: skip
def test_definitions_that_do_not_fit(definition: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_space(definition)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "set twice"),
        ("name: &x a\nbase: *x\n", "anchors"),
        ("name: !!python/object:os.system a\n", "tags"),
        ("name: [\n", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_files_that_are_no_settings(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_space(tmp_path / "mine.yaml")


def test_a_space_that_is_not_there_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sr_tail'"):
        load_space("sr_tial")


def test_a_user_adds_operators_and_widths_in_a_file(tmp_path: Path) -> None:
    """Copy a shipped file, add an operator and a width: nothing else is needed."""
    definition = yaml.safe_load((FOLDER / "st.yaml").read_text())
    definition["operators"]["ghost"] = {
        "body": [{"conv": 1, "to": "out/2"}, "norm", "relu", {"depthwise": 5}, "norm", {"conv": 1}],
        "shortcut": True,
    }
    cell = next(layer for layer in definition["layers"] if layer["name"] == "cell")
    cell["operators"].append("ghost")
    cell["widths"] = [16, 48, 100]
    del cell["widths_of"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(definition))
    space = load_space(tmp_path / "mine.yaml")
    choice = Choice((0, 0, 0, *[4] * 9, 0, 0, 0), (0, 0, 0, *[1] * 9, 0, 0, 0))
    assert set(space.names(choice)[3:12]) == {"ghost"} and set(space.widths(choice)[3:12]) == {48}
    net, x = Supernet(space, 0), picture(space, 16)
    with torch.no_grad():
        assert torch.allclose(derive(net, choice).module(x), net(x, net.picks_of(choice)), atol=1e-5)


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parent.parent / "docs" / "search-spaces.md").read_text()
    space = read_space(yaml.safe_load(text.split("```yaml")[1].split("```")[0]))
    net, choice = Supernet(space, 0), Choice.random(space, np.random.default_rng(0))
    with torch.no_grad():
        y = net(picture(space, 16), net.picks_of(choice))
    assert y.shape == (2, 3, 16, 16) and count(derive(net, choice).module, (1, 3, 16, 16)).uncounted == ()


def test_sums_that_begin_together_are_nested() -> None:
    """x + 3 * (x + 2 * x) is 10 x: which sum is the outer one counts."""
    inner = {"residual": 2, "layers": [{"name": "nothing", "operators": ["identity"], "width": 3}]}
    definition = {"name": "nested", "layers": [{"residual": 3, "layers": [inner]}]}
    definition["layers"] = [*definition["layers"], {"name": "end", "operators": ["identity"], "width": 3}]
    space = read_space(definition)
    net, x = Supernet(space, 0), picture(space)
    assert torch.allclose(net(x, net.picks_of(Choice.widest(space))), 10 * x)


# -- the family -----------------------------------------------------------------------------------


def test_a_derived_network_is_saved_and_loaded(tmp_path: Path) -> None:
    from compressor.generators.inspection import inspect

    space = load_space("sr_tail")
    generator = derive(Supernet(space, 0), Choice.random(space, np.random.default_rng(2)))
    assert GeneratorSpec.from_json(json.loads(json.dumps(generator.spec.as_json()))) == generator.spec
    save(generator.spec, generator.module, tmp_path / "model", {})
    loaded, x = load(tmp_path / "model"), picture(space)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), generator.module(x))
    assert loaded.spec == generator.spec and loaded.spec.image.scale == 4
    found = inspect(tmp_path / "model", size=(16, 16))
    assert found.family == "agd" and found.cost == count(generator.module, (1, 3, 16, 16))


def test_a_folder_with_an_operator_the_space_does_not_have(tmp_path: Path) -> None:
    space = load_space("st")
    generator = derive(Supernet(read_space(SMALL), 0), Choice.widest(read_space(SMALL)))
    save(generator.spec, generator.module, tmp_path, {})
    document = json.loads((tmp_path / "architecture.json").read_text())
    document["arguments"]["operators"][1] = "conv7x7"
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    with pytest.raises(PocketganError, match="no such operator at cell"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no choice"):
        derive(Supernet(read_space(SMALL), 0), Choice.widest(space))
