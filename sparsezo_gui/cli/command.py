"""What a command is, the arguments that several of them take, and what these arguments name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui import recipe
from sparsezo_gui.console import Console
from sparsezo_gui.recipe import Recipe

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session

Run = Callable[[argparse.Namespace, Console], int | None]
Argument = Callable[[argparse.ArgumentParser], object]


@dataclass(frozen=True)
class Command:
    """A command: ``help`` is a sentence or two, and ``run`` returns the exit code (None: 0). A command that ``loads`` a
    model or its tokenizer also takes --trust-remote-code; one that is ``shared`` also runs under torchrun, where its
    options have the ``workers``."""

    name: str
    help: str
    arguments: tuple[Argument, ...]
    loads: bool
    run: Run
    shared: bool = False


def command(
    name: str, help: str, *arguments: Argument, loads: bool = False, shared: bool = False
) -> Callable[[Run], Command]:
    """Makes a `Command` of the function below. `sparsezo_gui.cli.parser` lists all of them."""
    return lambda run: Command(name, help, arguments, loads, run, shared)


def argument(*names: str, **options: Any) -> Argument:
    """An argument with the parameters of `argparse.ArgumentParser.add_argument`."""
    return lambda parser: parser.add_argument(*names, **options)


def positive(text: str) -> int:
    """A positive integer, for an argument parser."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def _step(text: str) -> int | str:
    if text == "best":
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a step number or 'best', not '{text}'")
    return int(text)


RECIPE = argument("recipe", metavar="RECIPE", help="a recipe file (TOML), or the name of a bundled one")
SETTINGS = argument(
    "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting, such as loop.steps=100"
)
RUN = argument("run", metavar="RUN", help="folder or name of a run")
STEP = argument(
    "--step", type=_step, metavar="N|best", help="use the run as of step N, or as of its best step on the validation "
    "examples (default: the last step)",
)  # fmt: skip
CHANGED = argument(
    "--changed-inputs", action="store_true", help="continue even if the examples, the tokenizer or the model's "
    "configuration changed since the run started; marks the result",
)  # fmt: skip
JSON = argument("--json", action="store_true", help="one JSON object per line on standard output")
AUTOMATIC = "SPARSEZO_AUTO"
FLAG = "--trust-remote-code"
TRUST = argument(
    FLAG, action="store_true", help="let the model's Python code run. It can do anything you can on this computer, so "
    "read it first. Needed again when the code changes",
)  # fmt: skip


def code_settings(options: argparse.Namespace) -> list[str]:
    """The setting that --trust-remote-code stands for."""
    return ["model.trust_remote_code=true"] if options.trust_remote_code else []


def recipe_of(options: argparse.Namespace, name: str = "") -> Recipe:
    """The recipe that the options name, with their settings; the environment variable `AUTOMATIC` makes 'auto' the
    user's default estimator."""
    given = recipe.load(name or options.recipe, os.environ.get(AUTOMATIC, "0") not in ("", "0"))
    return recipe.with_settings(given, [*options.set, *code_settings(options)], Path.cwd())


def past(options: argparse.Namespace) -> tuple[RunFolder, int | None]:
    """The run and the step that the options name; checks that the run has that step."""
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.runs.lineage import step_of

    run = open_run(options.run)
    return run, step_of(run, options.step)


def session_of(options: argparse.Namespace, console: Console) -> tuple[Session, RunFolder]:
    """The run that the options name, loaded as of their step."""
    from sparsezo_gui.engine.session.opening import open_session

    run, step = past(options)
    return console.finish(open_session(run, step, accept=options.changed_inputs)), run
