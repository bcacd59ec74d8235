"""The command line: parse, build a recipe, consume events. Every command takes --json.

Exit codes: 0 success, 2 bad input (with a sentence on standard error), 1 failure, 130 interrupted before a run began.
With --json, errors on standard error are also events on standard output: {"event": "error", "message": …}.
The engine is imported inside the commands, so that --help and lists appear instantly.

A command is a function with its arguments in one of the modules here, and a line in `parser`.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsezo_gui import plain, start
from sparsezo_gui.cli import launch
from sparsezo_gui.cli.command import Command
from sparsezo_gui.cli.parser import parser
from sparsezo_gui.console import Console
from sparsezo_gui.engine.sandbox import child
from sparsezo_gui.errors import OUT_OF_MEMORY, ConsentNeeded, LostWorker, UserError, out_of_memory
from sparsezo_gui.redaction import redacted
from sparsezo_gui.untrusted import is_fault


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    if sys.argv[1:] == [child.WORD]:
        return child.main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that is not the system's
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    with plain.streams():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: list[str]) -> int:
    console = Console("--json" in arguments)
    warnings.simplefilter("ignore")  # from libraries, meant for programmers
    try:
        with _interruptible():
            return _run(parser().parse_args(arguments), console) or 0
    except UserError as error:
        if not launch.rank():  # the leader says it
            console.error(OUT_OF_MEMORY if out_of_memory(error) else str(error))
        return 1 if isinstance(error, LostWorker) else 2
    except KeyboardInterrupt:
        console.error("Interrupted.")
        exec("")  # if the last exec() was interrupted, Python would exit by the signal instead of with this code
        return start.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone, so nothing can be written any more, not even when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        if not is_fault(error):
            raise
        if out_of_memory(error):
            console.error(OUT_OF_MEMORY)
            return 2
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            console.error(f"{str(error.filename)[:80]}…: this file name is too long. Choose a shorter one.")
            return 2
        console.error(redacted(f"Unexpected error: {type(error).__name__}: {error}\nDetails: {_details()}"))
        return 1
    finally:
        console.end_progress()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C in the block raises `KeyboardInterrupt`, even if a library turns that into another error."""
    interrupted = False

    def interrupt(_signal: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        if interrupted and is_fault(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def _run(options: argparse.Namespace, console: Console) -> int | None:
    """Runs the command; if it needs code that the user allows with --trust-remote-code, starts it again."""
    command: Command = options.command
    if command.shared and launch.rank():
        return launch.help_out(options)
    with launch.leading(options):
        return _run_here(command, options, console)


def _run_here(command: Command, options: argparse.Namespace, console: Console) -> int | None:
    try:
        return command.run(options, console)
    except ConsentNeeded as needed:
        if not options.trust_remote_code:
            raise
        from sparsezo_gui.engine.pretrained import consent

        consent.give(needed.code)
        files = (f"  {name} ({len(content):,} bytes)" for name, content in sorted(needed.code.files.items()))
        console.note(f"You allowed this code to run, from {needed.code.folder}:", *files)
    return command.run(options, console)


def _details() -> Path | str:
    """Writes the traceback to a file and returns its path; if that fails, the end of the traceback itself."""
    import traceback

    from sparsezo_gui.engine.files import write_text
    from sparsezo_gui.engine.runs.folder import runs_home

    path = runs_home().parent / "logs" / f"error-{os.getpid()}.txt"
    text = plain.readable(redacted(traceback.format_exc()))
    try:
        write_text(path, text)
    except UserError:
        return text[-2000:]
    return path
