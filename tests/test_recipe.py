"""Recipes: strict, exact about what is wrong and where, and unharmed by hostile files."""

from __future__ import annotations

import dataclasses
import string
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.errors import PocketganError, UsageError
from compressor.options import DistilOptions, PruneOptions
from pocketgan.recipe import Bench, Data, Export, Recipe, read_recipe, write_recipe
from pocketgan.source import GeneratorSource
from pocketgan.strict_yaml import flatten, parse

MINIMAL = "generator: {checkpoint: a.pth}\ndata: {images: pics}\nbudget: macs=50%\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_whole_recipe(write: Any, tmp_path: Path) -> None:
    recipe = read_recipe(write(tiny.RECIPE))
    assert recipe.generator == GeneratorSource(tmp_path / "tiny.pth", size=(32, 32))
    assert recipe.data == Data(tmp_path / "pictures")
    assert recipe.prune == PruneOptions(steps=8) and recipe.distill == DistilOptions(steps=8)
    assert recipe.bench == Bench(rounds=5, warmup=1) and recipe.export == Export()
    assert (recipe.budget, recipe.seed, recipe.output_dir) == ("macs=50%", 3, None)


def test_paths_refer_to_the_recipe_and_settings_to_the_current_folder(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    recipe = read_recipe(
        write(MINIMAL + "output_dir: /abs/out\nprune: {perceptual: ../vgg.safetensors}\n"),
        ["data.images=mine"],
    )
    assert recipe.generator.checkpoint == tmp_path / "a.pth"
    assert recipe.data.images == elsewhere / "mine"
    assert recipe.output_dir == Path("/abs/out")
    assert recipe.prune.perceptual == tmp_path / "../vgg.safetensors"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "prun: {}\n", ["line 4", "'prun'", "'prune'"]),
        (MINIMAL + "prune:\n  steps: 3\n  stepz: 4\n", ["line 6", "'prune.stepz'", "'steps'"]),
        (MINIMAL + "prune: {steps: many}\n", ["line 4", "prune.steps", "a whole number", "many"]),
        (MINIMAL + "prune: {steps: '3'}\n", ["prune.steps", "a whole number", "'3'"]),
        (MINIMAL + "prune: {steps: 3.5}\n", ["prune.steps", "a whole number", "3.5"]),
        (MINIMAL + "prune: {steps: [3]}\n", ["prune.steps", "a list"]),
        (MINIMAL + "prune: {steps:}\n", ["prune.steps", "nothing"]),
        (MINIMAL + "prune: {steps: 0}\n", ["line 4", "prune.steps", "1 or more"]),
        (MINIMAL + "prune: {learning_rate: .nan}\n", ["prune.learning_rate", "a number"]),
        (MINIMAL + "prune: 3\n", ["line 4", "prune", "a section"]),
        (MINIMAL + "export: {formats: onnx}\n", ["export.formats", "a list"]),
        (MINIMAL + "export: {formats: [onx]}\n", ["line 4", "'onx'", "'onnx'"]),
        (MINIMAL + "export: {precisions: []}\n", ["export.precisions", "empty"]),
        (MINIMAL + "bench: {threads: [1, zwei]}\n", ["bench.threads[1]", "a whole number"]),
        (MINIMAL + "seed: -1\n", ["seed", "-1"]),
        (MINIMAL + "seed: 1\nseed: 2\n", ["line 5", "'seed'", "twice", "line 4"]),
        (MINIMAL.replace("50%", "150%"), ["150%", "macs=25%"]),
        (MINIMAL.replace("pics", "true"), ["data.images", "a path"]),
        (MINIMAL.replace("images: pics", "images: pics, held_out: 1.5"), ["line 2", "held_out", "1.5"]),
        ("generator: {checkpoint: a.pth}\nbudget: macs=50%\n", ["'data'", "missing"]),
        ("generator: {}\ndata: {images: pics}\nbudget: macs=50%\n", ["line 1", "'generator.checkpoint'"]),
        ("", ["'generator'", "missing"]),
        ("- a\n- b\n", ["line 1", "a section", "a list"]),
        ("a: [1\nb: 2\n", ["line 2", "not YAML"]),
        ("{a: 1}: 2\n", ["a key must be a word"]),
        (MINIMAL + "--- \nseed: 2\n", ["line 4", "not YAML"]),
    ],
)
def test_a_mistake_is_named_with_its_place(write: Any, text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(write(text))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("prune.steps", ["--set section.key=value"]),
        ("=3", ["--set section.key=value"]),
        ("prune..steps=3", ["--set section.key=value"]),
        ("prune.stepz=3", ["--set prune.stepz=3", "'steps'"]),
        ("prune.steps=x", ["--set prune.steps=x", "a whole number"]),
        ("budget.macs=3", ["--set budget.macs=3"]),
        ("prune={steps: &a 3}", ["--set", "anchors"]),
    ],
)
def test_a_wrong_setting_is_named(write: Any, setting: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(write(MINIMAL), [setting])
    for word in words:
        assert word in str(caught.value)


def test_settings_equal_the_file_that_says_the_same(write: Any) -> None:
    by_option = read_recipe(
        write(MINIMAL),
        ["prune.steps=7", "export.formats=[onnx]", "prune.crop=64", "prune.crop=", "budget=params=350k"],
    )
    text = MINIMAL.replace("macs=50%", "params=350k") + "prune: {steps: 7}\nexport: {formats: [onnx]}\n"
    assert by_option == read_recipe(write(text))


def test_numbers_are_read_as_people_write_them(write: Any) -> None:
    text = MINIMAL + "prune: {learning_rate: 1e-3}\ndistill: {learning_rate: 1}\nbench: {threads: [1, 2]}\n"
    recipe = read_recipe(write(text))
    assert recipe.prune.learning_rate == 0.001
    assert recipe.distill.learning_rate == 1.0 and isinstance(recipe.distill.learning_rate, float)
    assert recipe.bench.threads == (1, 2)


def test_arguments_of_a_family_take_any_plain_value(write: Any) -> None:
    text = MINIMAL.replace("a.pth", "a.pth, arguments: {statistics: running, blocks: 6, bias: false}")
    assert read_recipe(write(text)).generator.arguments == {
        "statistics": "running",
        "blocks": 6,
        "bias": False,
    }


# Hostile files

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
    for before, after in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
)


@pytest.mark.parametrize(
    "content",
    [
        LAUGHS,
        "a: " + "[" * 50_000,
        "a: " + "{a: " * 20_000,
        "- " * 50_000,
        "a: !!python/object/apply:os.system ['touch hacked']\n",
        "a: !!binary aGk=\n",
        "x: 1\n" * 300_000,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"\x00" * 4096,
        b"\xff\xfe\x00\x00",
        "%YAML 9.9\n---\na: 1\n",
        'generator: {checkpoint: "a\\0b"}\ndata: {images: p}\nbudget: macs=50%\n',
        'generator: {checkpoint: "a\\uD800b"}\ndata: {images: p}\nbudget: macs=50%\n',
        "generator: {checkpoint: ~nobody-of-this-name/x}\ndata: {images: p}\nbudget: macs=50%\n",
        MINIMAL + "seed: " + "9" * 10_000 + "\n",
    ],
    ids=range(15),
)
def test_hostile_files_are_refused_at_once(write: Any, content: str | bytes, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        read_recipe(write(content))
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 25_000
    assert not Path("hacked").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=200), st.text(alphabet="abc:-[]{}&*!|>'\"#%@ \n\t0", max_size=80)))
def test_any_text_is_a_recipe_or_a_usage_error(write: Any, text: str) -> None:
    with pytest.raises(PocketganError):  # no random text has the three required sections
        read_recipe(write(text.encode("utf-8", "replace")))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_politely(write: Any, content: bytes) -> None:
    with pytest.raises(PocketganError):
        read_recipe(write(content))


# Round trips

words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20).filter(
    lambda text: not text.startswith("~")
)
paths = words.map(lambda text: Path("/data", text.strip("/") or "x"))
rates = st.floats(1e-9, 10, allow_nan=False)
positive = st.integers(1, 10**6)
recipes = st.builds(
    Recipe,
    generator=st.builds(
        GeneratorSource,
        checkpoint=paths,
        factory=st.none() | words,
        arguments=st.dictionaries(st.sampled_from(["norm", "blocks"]), positive | st.booleans() | rates),
        input_range=st.none() | st.tuples(rates, rates),
        size=st.none() | st.tuples(positive, positive),
        scale=st.none() | positive,
    ),
    data=st.builds(Data, images=paths, held_out=st.floats(0.01, 0.99) | paths),
    budget=st.sampled_from(["macs=50%", "params=350k", "bytes=1.8MB"]),
    prune=st.builds(
        PruneOptions, steps=positive, learning_rate=rates, crop=st.none() | st.integers(16, 512),
        perceptual=st.none() | paths,
    ),
    distill=st.builds(DistilOptions, steps=positive, learning_rate=rates),
    export=st.builds(Export, precisions=st.sampled_from([("fp32",), ("int8", "fp16")]), calibration=positive),
    bench=st.builds(Bench, threads=st.none() | st.just((1, 4)), rounds=positive),
    seed=st.integers(0, 2**32 - 1),
    output_dir=st.none() | paths,
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes)
def test_a_written_recipe_reads_back_equal(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "written.yaml"
    write_recipe(recipe, path)
    assert read_recipe(path) == recipe


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes, st.data())
def test_any_key_misspelt_is_refused_by_its_name(tmp_path: Path, recipe: Recipe, data: Any) -> None:
    keys = [key for key in flatten(recipe.as_plain()) if "arguments" not in key]
    key = data.draw(st.sampled_from(keys))
    head, _, last = key.rpartition(".")
    plain = recipe.as_plain()
    section = plain[head] if head else plain
    section[last + "x"] = section.pop(last)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    with pytest.raises(UsageError, match=repr(key + "x")) as caught:
        read_recipe(path)
    assert f"did you mean '{last}'" in str(caught.value)


def test_every_setting_is_told_in_the_written_recipe(tmp_path: Path) -> None:
    recipe = Recipe(GeneratorSource(Path("/a.pth")), Data(Path("/pics")), "macs=50%")
    plain = flatten(recipe.as_plain())
    for section in (PruneOptions, DistilOptions, Export, Bench):
        name = {"PruneOptions": "prune", "DistilOptions": "distill"}.get(
            section.__name__, section.__name__.lower()
        )
        for field in dataclasses.fields(section):
            assert f"{name}.{field.name}" in plain


def test_lines_are_counted_from_one() -> None:
    tree = parse("a: 1\nb:\n  c: 2\n", "r.yaml", Path())
    assert isinstance(tree.data, dict)
    inner = tree.data["b"].data
    assert isinstance(inner, dict) and inner["c"].where == "r.yaml, line 3"
