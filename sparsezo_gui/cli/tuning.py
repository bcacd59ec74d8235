"""Commands that tune: `train` and `resume`."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

from sparsezo_gui import start
from sparsezo_gui.cli import launch
from sparsezo_gui.cli.command import RECIPE, RUN, SETTINGS, STEP, argument, command, past, recipe_of
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import load
from sparsezo_gui.stages import RESUMING, starting


@command(
    "train", "Run a recipe.", RECIPE, SETTINGS,
    argument("--run", metavar="DIR", help="folder of the new run (default: a dated one in your runs folder)"),
    loads=True, shared=True,
)  # fmt: skip
def train(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.training import resume, train

    chosen, commands = recipe_of(options), SimpleQueue[e.Command]()
    folder = Path(options.run or chosen.run.folder) if options.run or chosen.run.folder else None
    if folder and launch.again() and (folder / "run.json").exists():
        console.prepare(RESUMING)
        _watch(resume(folder, commands, workers=options.workers), commands, console)
        return
    console.prepare(starting(chosen))
    _watch(train(chosen, commands, folder, workers=options.workers), commands, console)


@command(
    "resume", "Resume a run after any stop; with --step, go back to that step first.", RUN, STEP, loads=True,
    shared=True,
)  # fmt: skip
def resume(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import find
    from sparsezo_gui.engine.runs.preparing import RECIPE, is_start
    from sparsezo_gui.engine.training import resume

    commands = SimpleQueue[e.Command]()
    path = find(options.run)
    if is_start(path) and options.step is None:
        console.prepare(starting(load(path / RECIPE)))
        _watch(resume(path, commands, workers=options.workers), commands, console)
        return
    run, step = past(options)
    if step is not None and step < run.start:
        raise UserError(
            f"Run '{run.name}' branched off at step {run.start}, so it cannot go back to step {step}. Branch "
            "from the original run instead: sparsezo branch"
        )
    if step is not None:
        commands.put(e.GoBack(step))
    console.prepare(RESUMING)
    _watch(resume(run.path, commands, workers=options.workers), commands, console)


def _watch(events: Iterator[e.Event], commands: SimpleQueue[e.Command], console: Console) -> None:
    """Shows events. While the loop runs, the first Ctrl-C stops it after the current step, a second one immediately."""
    running, prepared = False, ""

    def interrupt(_signal: int, _frame: object) -> None:
        nonlocal running
        if not running:
            raise KeyboardInterrupt
        running = False
        commands.put(e.Stop())
        console.say("Stopping after this step. Press Ctrl-C again to stop immediately.")

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for event in events:
            if isinstance(event, e.Started):
                running = True
                start.loaded()
            prepared = event.run if isinstance(event, e.Preparing) else prepared
            console.event(event)
    except KeyboardInterrupt:
        if prepared and not running:
            console.say(f"To resume it: {shlex.join(['sparsezo', 'resume', prepared])}")
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
