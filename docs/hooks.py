"""Pages that mkdocs builds from what lies elsewhere: the README, records, and the code's own words."""

from __future__ import annotations

import dataclasses
import html
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the code beside these pages, not an installed one
PLACE = "<!-- generated from the code -->"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    made = {target: _moved(_read(source)) for source, target in PAGES.items()}
    made["LICENSE.txt"] = _read("LICENSE")
    for record in sorted((REPOSITORY / "benchmarks" / "results").glob("*.md")):
        made[f"results/{record.name}"] = record.read_text(encoding="utf-8")
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fill in what is generated from the code, and let links to records lead to their pages here."""
    match page.file.src_uri:
        case "reference/commands.md":
            return markdown.replace(PLACE, commands())
        case "reference/recipe.md":
            return markdown.replace(PLACE, recipe_settings())
        case "reference/formats.md":
            return markdown.replace(PLACE, format_fields())
    return re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/results/", r"](\1results/", markdown)


def _read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def _moved(text: str) -> str:
    """A page of the repository's root, with its links as they are in the site."""
    for source, target in {**PAGES, "LICENSE": "LICENSE.txt"}.items():
        text = text.replace(f"]({source})", f"]({target})")
    return text.replace("](benchmarks/results/", "](results/").replace("](docs/", "](")


# Commands


def commands() -> str:
    """Usage, words and options of every command, as its --help has them."""
    from pocketgan.cli import COMMANDS, load_command

    parts = []
    for name in COMMANDS:
        command = load_command(name)
        context = click.Context(command, info_name=f"pocketgan {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        options = (each for each in command.get_params(context) if isinstance(each, click.Option))
        records = (option.get_help_record(context) for option in options)
        rows = [(f"`{option}`", html.escape(said)) for option, said in filter(None, records)]
        parts += [f"## {name}\n", f"```text\n{usage}\n```\n", f"{inspect.cleandoc(command.help or '')}\n"]
        parts.append(_table(("option", "meaning"), rows))
    return "\n".join(parts)


# Recipes


def recipe_settings() -> str:
    """Every setting of a recipe, from the dataclasses that read it."""
    from pocketgan.recipe import Recipe

    types = typing.get_type_hints(Recipe)
    words = attributes(Recipe)
    top = [field for field in dataclasses.fields(Recipe) if _section(types[field.name]) is None]
    parts = ["## At the top\n", _settings(Recipe, top, types)]
    for field in dataclasses.fields(Recipe):
        section = _section(types[field.name])
        if section is not None:
            parts += [f"## {field.name}\n", f"{_sentence(words.get(field.name) or _summary(section))}\n"]
            parts.append(_settings(section, dataclasses.fields(section), typing.get_type_hints(section)))
    return "\n".join(parts)


def _section(kind: Any) -> type | None:
    """The dataclass behind a field's type, if it is one."""
    choices = [kind, *typing.get_args(kind)]
    return next((choice for choice in choices if dataclasses.is_dataclass(choice)), None)  # type: ignore[return-value]


def _settings(owner: type, fields: typing.Iterable[dataclasses.Field[Any]], types: dict[str, Any]) -> str:
    from compressor.generators.spec import ImageFormat

    own = {name: said for name, said in attributes(owner).items() if not said.startswith("see ")}
    words = {**attributes(ImageFormat), **own}  # what a generator's source says of pictures is told there
    rows = []
    for field in fields:
        said = field.metadata.get("help") or words.get(field.name, "")
        rows.append((f"`{field.name}`", _kind(types[field.name]), _default(field), _sentence(said)))
    return _table(("setting", "is", "default", "meaning"), rows)


def _kind(kind: Any) -> str:
    """A type in words: "number", "path or none"."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return f"list of {_kind(arguments[0])}s"
    if typing.get_origin(kind) is dict:
        return "names and values"
    if arguments:
        return " or ".join(_kind(each) for each in arguments if each is not type(None))
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "" if field.default_factory is not dataclasses.MISSING else "must be given"
    value = field.default
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# Formats


def format_fields() -> str:
    """What our JSON files hold, from the classes that write and read them."""
    from benchmarks.samples import Series
    from compressor.generators.spec import GeneratorSpec, ImageFormat
    from exporters.result import Delegation, ExportedFile, ImageParity, Parity

    parts = []
    for heading, classes in {
        "pocketgan.generator/1: architecture.json": (GeneratorSpec, ImageFormat),
        "pocketgan.export/1: export.json": (ExportedFile, Parity, ImageParity, Delegation),
        "pocketgan.bench/1: the entries of bench.json's series": (Series,),
    }.items():
        parts.append(f"## {heading}\n")
        for owner in classes:
            parts += [f"### {owner.__name__}\n", f"{_summary(owner)}\n"]
            rows = [(f"`{name}`", _sentence(text)) for name, text in attributes(owner).items()]
            parts.append(_table(("field", "meaning"), rows) if rows else "")
    return "\n".join(parts)


# Docstrings


def attributes(owner: type) -> dict[str, str]:
    """Name -> meaning, from the "Attributes" of a class's docstring; one entry may name several."""
    _, _, listed = (inspect.getdoc(owner) or "").partition("Attributes:\n")
    return {name: text for names, text in _entries(listed) for name in names.split(", ")}


def _entries(listed: str) -> Iterator[tuple[str, str]]:
    indented = listed.split("\n\n")[0]
    for entry in re.split(r"\n(?=    \S)", "\n" + indented.rstrip()):
        if found := re.match(r"\s*(\w+(?:, \w+)*): (.*)", entry, re.DOTALL):
            yield found[1], " ".join(found[2].split())


def _summary(owner: type) -> str:
    return " ".join((inspect.getdoc(owner) or "").partition("\n\n")[0].split())


def _sentence(text: str) -> str:
    text = text.strip()
    first = text[:1] if text[1:2].isupper() else text[:1].upper()  # "dB" stays
    return f"{first}{text[1:]}{'' if text.endswith(('.', ':')) or not text else '.'}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
