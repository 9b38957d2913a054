"""The documentation: it builds without a warning or a network, and its commands can be run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from pages import PAGES, REPOSITORY, blocks, follow, prepare, surroundings
from phone import Phone

from devices.adb_server import AdbServer
from pocketgan.boundary import Stopped
from pocketgan.cli import COMMANDS, load_command

GUIDES = [page for page in PAGES if any(block.is_run for block in blocks(page))]
QUICK = "ci.md"  # needs exported files and no training
PHONE = "not run: needs a phone"
INSTALLING = [page for page in PAGES if any(block.is_in_clone for block in blocks(page))]
WITH_PHONE = [page for page in PAGES if any(block.note == PHONE for block in blocks(page))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="builds the pages: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING -" not in done.stderr, done.stderr  # --quiet would hide some
    return folder


def test_the_pages_need_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:link|script|img|iframe)[^>]*?(?:href|src)=\"?([^\" >]+)", page.read_text())
        assert [address for address in loaded if re.match("(?:https?:)?//", address)] == [], page


def test_the_reference_has_every_option_and_every_setting(site: Path) -> None:
    commands = (site / "reference" / "commands" / "index.html").read_text()
    for name in COMMANDS:
        assert f'id="{name}"' in commands
        for option in options_of(load_command(name)):
            assert option in commands, f"{name} {option}"
    recipe = (site / "reference" / "recipe" / "index.html").read_text()
    rows = dict(re.findall(r"<td><code>(\w+)</code></td>(?:\s*<td>.*?</td>){2}\s*<td>(.*?)</td>", recipe))
    assert {"held_out", "latent_learning_rate", "descendants", "max_drop", "warmup", "seed"} <= set(rows)
    assert [name for name, meaning in rows.items() if not re.match(r"\S.*[.]$", meaning)] == []
    formats = (site / "reference" / "formats" / "index.html").read_text()
    assert all(field in formats for field in ("samples_ms", "float_layers", "input_range", "max_abs"))


def test_the_exit_codes_are_those_of_the_errors() -> None:
    from compressor.errors import GateError, PocketganError, UsageError

    text = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    errors = (PocketganError, UsageError, GateError, Stopped)
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", *(str(each.exit_code) for each in errors)]


def test_the_figures_of_the_readmes_tables_are_in_the_records() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    records = [REPOSITORY / name for name in re.findall(r"benchmarks/results/\w+\.md", text)]
    recorded = {
        figure for record in records for figure in re.findall(r"\d+\.\d+", record.read_text(encoding="utf-8"))
    }
    shown = re.findall(r"\d+\.\d+", "".join(re.findall(r"^\|.*\d.*\n", text, re.MULTILINE)))
    assert len(shown) > 30 and set(shown) <= recorded


# Commands


def options_of(command: click.Command) -> set[str]:
    """All options of a command and of those below it."""
    found = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    for below in getattr(command, "commands", {}).values():
        found |= options_of(below)
    return found


def told(page: Path) -> list[str]:
    """What a page shows as command lines: those of its blocks, and those in its sentences."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`]+)`", prose.replace("\n", " "))
    lines = "\n".join(block.text.replace("\\\n", " ") for block in blocks(page) if block.kind == "shell")
    return [line for line in [*inline, *lines.splitlines()] if re.match(r"\s*pocketgan \w+", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_that_pages_name_exist(page: Path) -> None:
    for line in told(page):
        name = line.split()[1]
        assert name in COMMANDS, line
        known = options_of(load_command(name))
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", line):
            assert option in known | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_command_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if re.search(r"^(?:pocketgan |python\d? |\$NDK)", block.text, re.MULTILINE) and block.kind != "text":
            assert block.kind == "shell", block.text
        if block.kind == "shell" and not block.is_run and not block.is_in_clone:
            assert re.match(r"not run(?: here)?: .{6}", block.note), block.text
        assert block.note == "" or block.note.startswith(("not run", "run: acceptance")), block.note


def test_the_quick_page_can_be_followed(six_files: Path, tmp_path: Path) -> None:
    (page,) = (page for page in GUIDES if page.name == QUICK)
    few = tmp_path / "few"
    few.mkdir()
    for name in ("generator-fp32.onnx", "generator-int8.onnx"):
        (few / name).write_bytes((six_files / name).read_bytes())
    folder = tmp_path / "reader"
    folder.mkdir()
    prepare(folder, few)
    follow(page, folder, long=False)
    assert (folder / "out" / "compare.xml").is_file()


@pytest.mark.acceptance
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_every_page_can_be_followed(page: Path, six_files: Path, tmp_path: Path) -> None:
    """Minutes each: small networks and pictures, the pages' own settings."""
    makes_files = page.name in ("upscaler.md", "cyclegan.md")
    prepare(tmp_path, None if makes_files else six_files)
    follow(page, tmp_path, long=True)


@pytest.mark.acceptance
@pytest.mark.usefixtures("gathered")
@pytest.mark.parametrize("page", WITH_PHONE, ids=lambda page: page.stem)
def test_what_needs_a_phone(
    page: Path, phone: Phone, adb: AdbServer, six_files: Path, tmp_path: Path
) -> None:
    """The real adb and a simulated phone, whose processor is emulated: that much has to be allowed."""
    (tmp_path / "exported").symlink_to(six_files)
    environment = surroundings() | {"ANDROID_ADB_SERVER_PORT": str(adb.port)}
    for block in blocks(page):
        if block.note == PHONE:
            for line in block.text.replace("SERIAL", f"{phone.serial} --allow-emulated").splitlines():
                arguments = line.removeprefix("pocketgan ").split()
                done = subprocess.run(
                    [sys.executable, "-m", "pocketgan", *arguments], cwd=tmp_path, env=environment
                )
                assert done.returncode == 0, line


@pytest.mark.acceptance
@pytest.mark.parametrize("page", INSTALLING, ids=lambda page: page.stem)
def test_installing(page: Path, tmp_path: Path) -> None:
    """In a clone of what is committed, with nothing of this environment but Python; 3 GB while it runs."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    for block in blocks(page):
        if block.is_in_clone:
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            done = subprocess.run(["bash", "-euc", block.text], cwd=clone, env=environment)
            assert done.returncode == 0, block.text
            line = [clone / ".venv" / "bin" / "pocketgan", "doctor"]
            assert subprocess.run(line, cwd=tmp_path, env=environment).returncode == 0
            if "quickstart" in block.text:
                assert (clone / "quickstart" / "run" / "report.html").is_file()
    shutil.rmtree(clone)
