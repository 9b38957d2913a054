"""What commands share: the kind of command, its answer, and the options that mean the same everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from compressor.errors import PocketganError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Answer:
    """What a command has to say.

    Attributes:
        text: for people.
        document: the same as JSON types, printed with --json.
        problem: a check that failed although the work is done; gives the exit code.
    """

    text: str
    document: dict[str, Any]
    problem: PocketganError | None = None


class _Command(click.Command):
    """A command whose standard output stays free for its answer, whatever a library chats meanwhile."""

    def invoke(self, ctx: click.Context) -> Any:
        with _stdout_to_stderr():
            return super().invoke(ctx)


def command(name: str) -> Callable[[F], click.Command]:
    """Make a function a command that knows --json and --verbose and returns an `Answer`."""

    def make(function: F) -> click.Command:
        return click.command(name, cls=_Command)(common(function))

    return make


def common(function: F) -> F:
    """--json and --verbose; `pocketgan.cli` looks for them itself, so that errors obey them too."""
    for option in (
        click.option(
            "-v", "--verbose", is_flag=True, expose_value=False, help="Show the traceback of an error."
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            help="Print one JSON document on stdout; progress and messages go to stderr.",
        ),
    ):
        function = option(function)
    return function


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest allowed word, or all of them."""
    choices = list(allowed)
    close = difflib.get_close_matches(word, choices, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; it is one of: {', '.join(choices)}"


class CommaList(click.ParamType):
    """Comma-separated choices, such as fp32,int8."""

    name = "list"

    def __init__(self, *choices: str):
        self.choices = choices

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return ",".join(self.choices)

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        words = tuple(dict.fromkeys(word.strip() for word in value.split(",")))
        for word in words:
            if word not in self.choices:
                self.fail(f"there is no {word!r}{nearest(word, self.choices)}", param, ctx)
        return words


class Numbers(click.ParamType):
    """A fixed form of numbers, such as -1,1 or 256x256."""

    def __init__(self, form: str, kind: type[int] | type[float], separator: str, count: int | None = None):
        self.name, self.kind, self.separator, self.count = form, kind, separator, count

    def get_metavar(self, *_: Any, **__: Any) -> str:
        return self.name

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int | float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self.kind(part) for part in value.lower().split(self.separator))
        except ValueError:
            numbers = ()
        if not numbers or (self.count and len(numbers) != self.count):
            self.fail(f"{value!r} does not have the form {self.name}", param, ctx)
        return numbers


class Decibels(click.ParamType):
    """An amount above 0, with or without its unit: 0.5 or 0.5dB."""

    name = "DB"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            number = float(str(value).lower().removesuffix("db"))
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is no amount of decibels above 0", param, ctx)
        return number


FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)

images = click.option(
    "--images", type=FOLDER, required=True, metavar="DIR", help="Folder of input pictures; searched deeply."
)
new_output = click.option(
    "--output-dir", "output", type=FOLDER, required=True, metavar="OUT", help="New folder for the result."
)
seed = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of everything drawn at random; the same seed gives the same result on the same machine.",
)
resume = click.option(
    "--resume", is_flag=True, help="Go on in --output-dir where an earlier call was stopped."
)
adb_server = click.option(
    "--adb-server", metavar="HOST[:PORT]", help="Phones of another machine's adb server."
)


def generator_options(function: F) -> F:
    """The options for a user's own network; the command gets them as `source`, to be called with a path.

    `source(path)` is a `pocketgan.source.GeneratorSource`.
    """
    pair = Numbers("LO,HI", float, ",", 2)

    @functools.wraps(function)
    def collect(
        *args: Any,
        factory: str | None,
        arguments: dict[str, Any],
        input_range: Any,
        output_range: Any,
        size: Any,
        scale: Any,
        multiple: Any,
        channels: Any,
        **kwargs: Any,
    ) -> Any:
        from pocketgan.source import GeneratorSource

        source = functools.partial(
            GeneratorSource,
            factory=factory,
            arguments=arguments,
            input_range=input_range,
            output_range=output_range,
            size=size,
            scale=scale,
            multiple=multiple,
            channels=channels,
        )
        return function(*args, source=source, **kwargs)

    made: Any = collect
    for option in reversed(
        (
            click.option(
                "--factory",
                metavar="MODULE:CALLABLE",
                help="Your own network: what builds it, importable from here. Its code is run.",
            ),
            click.option(
                "--argument",
                "arguments",
                multiple=True,
                metavar="NAME=VALUE",
                callback=_arguments,
                help="What the checkpoint does not tell of a family we know, e.g. statistics=running.",
            ),
            click.option("--input-range", type=pair, help="Values of black and white at the input."),
            click.option("--output-range", type=pair, help="Values of black and white at the output."),
            click.option(
                "--size",
                type=Numbers("HxW", int, "x", 2),
                help="Usual input size; costs and exports refer to it.",
            ),
            click.option(
                "--scale", type=click.IntRange(1), help="Output side over input side: 4 upscales x4."
            ),
            click.option("--multiple", type=click.IntRange(1), help="Input sides must be multiples of this."),
            click.option(
                "--channels", type=Numbers("IN,OUT", int, ",", 2), help="Channels: 1 grey, 3 colour."
            ),
        )
    ):
        made = option(made)
    return made


def from_settings(kind: type[Any]) -> Callable[[F], F]:
    """An option for each field of a settings dataclass, its help the field's; the command gets `settings`."""
    fields = dataclasses.fields(kind)
    hints = typing.get_type_hints(kind)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def collect(*args: Any, **kwargs: Any) -> Any:
            settings = kind(**{field.name: kwargs.pop(field.name) for field in fields})
            return function(*args, settings=settings, **kwargs)

        made: Any = collect
        for field in reversed(fields):
            value_type = next(part for part in (*typing.get_args(hints[field.name]), hints[field.name]))
            flag = "--" + field.name.replace("_", "-")
            told = _sentence(field.metadata["help"])
            if value_type is bool:
                made = click.option(flag, is_flag=True, default=field.default, help=told)(made)
                continue
            made = click.option(
                flag,
                type=FILE if value_type is Path else value_type,
                default=field.default,
                show_default=field.default is not None,
                help=told,
            )(made)
        return made

    return decorate


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _arguments(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    from pocketgan.strict_yaml import read_word

    pairs = [value.partition("=") for value in values]
    if wrong := [
        value for value, (name, equals, _) in zip(values, pairs, strict=True) if not name or not equals
    ]:
        raise click.BadParameter(f"{wrong[0]!r} does not have the form NAME=VALUE", ctx, param)
    return {name: read_word(text) for name, _, text in pairs}


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send all that is written to standard output inside, by Python or by native code, to stderr."""
    try:
        real = sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):  # a stand-in for stdout, as tests and notebooks have
        real = False
    if not real:
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
