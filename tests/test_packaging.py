"""The package as it is built and installed, and the two commands of the README."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pocketgan.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of the files under version control, built without a network."""
    pytest.importorskip("setuptools", minversion="77")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    line = [*(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")]
    done = subprocess.run([*line, "-w", str(built), "."], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_code_and_data_of_the_five_packages(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    tops = {"pocketgan", "benchmarks", "devices", "exporters", "compressor"}
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == tops
    tracked = subprocess.run(
        ["git", "ls-files", *tops], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {name for name in tracked if not name.startswith("benchmarks/results/")}
    assert {name for name in wanted if (REPOSITORY / name).is_file()} <= inside  # nothing forgotten
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_the_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    weights = sum(item.file_size for item in wheel.infolist() if item.filename.endswith(".safetensors"))
    assert weights < 3_000_000
    assert sum(item.compress_size for item in wheel.infolist()) < 5_000_000


def test_the_base_install_has_no_torch_and_the_extras_do(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w.-]+)(.*)$", wheel.read(metadata).decode(), re.MULTILINE)
    base = {name for name, rest in required if "extra ==" not in rest}
    assert (
        base.isdisjoint({"torch", "onnx", "onnxruntime", "litert-torch", "scikit-image"}) and "click" in base
    )
    assert any(name == "torch" and 'extra == "compress"' in rest.replace("'", '"') for name, rest in required)


def test_the_wheel_starts_where_only_it_and_click_are(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from pocketgan.cli import main; main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "quickstart" in done.stdout


def test_installed_versions_are_in_the_stated_ranges() -> None:
    from pocketgan.doctor import packages

    installed = [package for package in packages() if package.installed]
    assert not [package for package in installed if not package.fits]


def commands_of_the_readme() -> list[str]:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^python3 -m venv .*$", text, re.MULTILINE)


def test_ci_runs_the_readmes_second_command_word_for_word() -> None:
    first, second = commands_of_the_readme()
    assert first.endswith("pocketgan quickstart") and second.endswith("python -m pytest")
    assert second in (REPOSITORY / ".ci" / "run").read_text().splitlines()


def test_the_readme_names_every_command_and_only_files_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `pocketgan (\w+)", text, re.MULTILINE)) == set(COMMANDS)
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (REPOSITORY / target).exists(), target


def test_the_recipe_in_the_readme_is_one(tmp_path: Path) -> None:
    from pocketgan.recipe import read_recipe

    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```yaml[^\n]*\n(.*?)```", text, re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert read_recipe(tmp_path / "recipe.yaml").budget == "macs=50%"


def test_the_map_of_the_house_is_true() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in re.findall(r"^(\w+)/ ", text, re.MULTILINE):
        assert (REPOSITORY / folder).is_dir(), folder
    text += (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(
        r"`((?:pocketgan|benchmarks|devices|exporters|compressor|tests)/[\w/.]+\.py)`", text
    ):
        assert (REPOSITORY / path).is_file() or "NAME" in path, path


def test_imports_go_one_way() -> None:
    order = ["compressor", "exporters", "devices", "benchmarks", "pocketgan"]
    for height, package in enumerate(order):
        for file in (REPOSITORY / package).rglob("*.py"):
            for found in re.findall(
                r"^\s*(?:from|import) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE
            ):
                assert found not in order[height + 1 :], f"{file} imports {found}"


def test_python_versions_and_licence_are_stated_alike() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert 'license = "Apache-2.0"' in project and 'requires-python = ">=3.10,<3.14"' in project
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()
    assert "Python 3.10 to 3.13" in (REPOSITORY / "README.md").read_text()
