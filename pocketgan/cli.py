"""The door: `pocketgan COMMAND`. Finds the command, prints its answer, turns every error into one message.

A command (pocketgan/commands/*.py, one file each, imported only when called) returns an `Answer`;
only this module prints it: as text, or with `--json` as exactly one JSON document on stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from compressor.errors import UsageError
from compressor.launch import leads, rank, world
from pocketgan import __version__
from pocketgan.boundary import Stopped, explain
from pocketgan.options import Answer, common, nearest

COMMANDS = {
    "quickstart": "The whole job on a generator and photographs that come along. Start here.",
    "run": "The whole job as a recipe says: prune, distill, export, measure, report.",
    "inspect": "What a checkpoint holds, and what its generator costs.",
    "prune": "Make a generator fit a budget with CoroNet.",
    "search": "Find a generator for a budget with AGD, guided by a teacher's pictures.",
    "distill": "Train a pruned generator against the original.",
    "eval": "Compare a generator's pictures with the original's, or with references.",
    "metrics": "Judge pictures: PSNR, SSIM, LPIPS, and FID and KID against real ones.",
    "export": "Write ONNX and TFLite files and check each against PyTorch.",
    "apply": "Paint pictures of any size with an exported file or a generator.",
    "bench": "Measure the latency of exported files on this machine.",
    "compare": "Latency beside a baseline's: exit code 3 if something got slower.",
    "devices": "The phones that adb sees, and whether one is fit to measure on.",
    "farm": "Measure a plan of many files over every phone of every host.",
    "report": "Build the report page of a run folder.",
    "table": "Comparisons with other methods, each row with its source.",
    "data": "Fetch published sets and weights, checked.",
    "doctor": "What is installed, what is missing, and the command that mends it.",
}


TOGETHER = ("prune", "search", "distill")  # what several processes can do, started by torchrun


class Commands(click.Group):
    """A group that knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run one command line, print its answer or its error, and leave with its exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
        as_json, verbose = "--json" in flags, not {"-v", "--verbose"}.isdisjoint(flags)
        line = ["pocketgan", *arguments]
        try:
            _alone_or_together(arguments)
            answer = super().main(arguments, "pocketgan", standalone_mode=False, obj=line)
            if not isinstance(answer, Answer):
                sys.exit(answer or 0)  # --help and --version have printed for themselves
            problem = answer.problem
            if not leads():
                sys.exit(problem.exit_code if problem else 0)
            if problem is not None:
                click.echo(f"pocketgan: {problem}", err=True)
            document = answer.document | (problem.as_json() if problem else {})
            _print(json.dumps(document, indent=2, allow_nan=False) if as_json else answer.text)
            sys.exit(problem.exit_code if problem else 0)
        except BrokenPipeError:  # the reader left, as in `pocketgan inspect FILE | head -1`
            sys.exit(1)
        except Exception as error:
            known = explain(error, line, can_resume=_can_resume(arguments))
            if verbose and not isinstance(known, Stopped):
                import traceback

                traceback.print_exception(error)
            if leads():
                click.echo(f"pocketgan: {known}", err=True)
            elif not (known.told or isinstance(known, UsageError)):  # wrong usage is wrong on rank 0 too
                click.echo(f"pocketgan, rank {rank()}: {known}", err=True)
            if as_json and leads():
                _print(json.dumps(known.as_json(), indent=2))
            sys.exit(known.exit_code)


def _alone_or_together(arguments: list[str]) -> None:
    """Refuse to do several times what one process does."""
    name = next((argument for argument in arguments if argument in COMMANDS), None)
    if world() > 1 and name is not None and name not in TOGETHER:
        raise UsageError(
            f"several processes cannot {name} together",
            got=f"{world()} processes",
            allowed=f"torchrun with {' or '.join(TOGETHER)}",
            fix="call pocketgan itself",
        )


def _print(text: str) -> None:
    try:
        click.echo(text)
    except OSError:  # nobody reads, or the disk is full: what is left in the buffer must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise


def load_command(name: str) -> click.Command:
    """Import one of COMMANDS."""
    module = importlib.import_module(f"pocketgan.commands.{name}")
    command: click.Command = getattr(module, f"{name}_command")
    return command


def _can_resume(arguments: list[str]) -> bool:
    name = next((argument for argument in arguments if argument in COMMANDS), None)
    return name is not None and any(option.name == "resume" for option in load_command(name).params)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check did not pass, 130 stopped.",
)
@click.version_option(__version__, prog_name="pocketgan")
@common
def main() -> None:
    """Make trained image generators small and fast enough for a phone, and prove it."""
