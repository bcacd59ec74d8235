"""What a window leaves behind that is killed or crashes, so that the next one can say so, and offer to resume its run.

Every open window has a folder in `WINDOWS`, with

- ``crash.txt``: versions, and after a fatal error where each thread was, written by `faulthandler`,
- ``log.txt``: what the window asked of the engine, and warnings,
- ``run.txt``: the folder of the run in progress, while there is one,

and beside it ``NAME.lock``, which its process holds. A window that is closed removes them. When nobody holds the lock,
the process ended otherwise, and `collect` turns what it left into a report, without secrets.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from sparsezo_gui import __version__
from sparsezo_gui.answers import Crash, RunSummary
from sparsezo_gui.engine.files import home, make_folder, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError
from sparsezo_gui.names import free
from sparsezo_gui.plain import readable
from sparsezo_gui.redaction import redacted

WINDOWS, REPORTS = "windows", "crash-reports"  # folders beside the runs
CRASH, LOG, RUN = "crash.txt", "log.txt", "run.txt"
KEPT = 20  # reports
MOST_BYTES, LINES = 1 << 18, 200  # of a file that a report quotes, and of the log in it
# What is removed has these names: with SPARSEZO_HOME, other folders may be beside it, on Windows even C:\Windows.
_WINDOW, _REPORT = re.compile(r"\d+-\d+"), re.compile(r"\d{8}-\d{6}(-\d+)?\.txt")
NO_TRACE = "No trace: the process was killed, for example because memory ran out, or the computer was switched off."


def program() -> str:
    """The versions of program, Python and system, in one line."""
    return f"SparseZO {__version__}, Python {sys.version.split()[0]}, {platform.platform()}"


@dataclass(frozen=True)
class Recorder:
    """Notes what a later report needs; nothing where its ``folder`` cannot be made."""

    folder: Path | None

    def note_run(self, run: Path | None) -> None:
        """Notes which run is in progress, or that none is."""
        with suppress(UserError, OSError):
            if self.folder is not None and run is not None:
                write_text(self.folder / RUN, str(run))
            elif self.folder is not None:
                (self.folder / RUN).unlink(missing_ok=True)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Records until the block ends, which removes the records."""
    folder = home() / WINDOWS / f"{os.getpid()}-{time.time_ns()}"
    with ExitStack() as stack:
        try:
            make_folder(folder.parent)
            stack.enter_context(held(_lock(folder))).forget = True
            make_folder(folder)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_logging(folder / LOG))
            stack.enter_context(_catching_faults(folder / CRASH))
        except OSError:  # `sparsezo doctor` says what is wrong with the disk
            yield Recorder(None)
        else:
            yield Recorder(folder)


def collect() -> list[Crash]:
    """Reports of the windows that ended without being closed, newest first; removes what else they left."""
    found = []
    left = [each for each in (home() / WINDOWS).glob("*") if _WINDOW.fullmatch(each.name) and not each.is_symlink()]
    for folder in sorted(filter(Path.is_dir, left), key=_last_sign, reverse=True):
        # Errors: its process lives, or another window was faster, or the disk is full.
        with suppress(UserError, OSError), held(_lock(folder)) as lock:
            if folder.is_dir():
                found.append(_report(folder))
                shutil.rmtree(folder, ignore_errors=True)
            lock.forget = True
    return found


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _last_sign(folder: Path) -> float:
    with suppress(OSError):
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return 0.0


def _report(folder: Path) -> Crash:
    from sparsezo_gui import doctor

    ended, run = datetime.fromtimestamp(_last_sign(folder)), _run(folder)
    about, *trace = _lines(folder / CRASH) or ["SparseZO"]
    checks = (f"{each.check}: {each.problem or each.found}" for each in doctor.examine(doctor.look()))
    progress = f"{run.path}, step {run.step} of {run.steps}" if run else "none"
    parts = (
        ("", [about, f"Ended without being closed; last sign at {ended:%Y-%m-%d %H:%M:%S}.", f"Run: {progress}"]),
        ("Fatal error", trace or [NO_TRACE]), ("Log", _lines(folder / LOG)[-LINES:]), ("Computer", checks),
    )  # fmt: skip
    text = "\n\n".join("\n".join(filter(None, (title, *lines))) for title, lines in parts)
    text = readable(redacted(text)) + "\n"
    reports = home() / REPORTS
    path = free(reports / f"{ended:%Y%m%d-%H%M%S}.txt")
    write_text(path, text)
    for old in sorted(each for each in reports.iterdir() if _REPORT.fullmatch(each.name))[:-KEPT]:
        old.unlink(missing_ok=True)
    return Crash(path, text, run)


def _run(folder: Path) -> RunSummary | None:
    """The run that was in progress, if it can be resumed."""
    lines = _lines(folder / RUN)
    if not lines:
        return None
    from sparsezo_gui.engine.runs.listing import summary

    run = summary(Path(lines[0]))
    return run if run.state in ("stopped", "interrupted") else None


def _lines(path: Path) -> list[str]:
    """The first lines of one of our files; none if it is not there."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(MOST_BYTES).decode(errors="replace").splitlines()
    return []


@contextmanager
def _catching_faults(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        print(program(), file=file, flush=True)
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()


class _Log(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk costs the log, and nothing else."""


@contextmanager
def _logging(path: Path) -> Iterator[None]:
    handler = _Log(path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("sparsezo_gui")
    if not root.handlers and logging.lastResort is not None:
        root.addHandler(logging.lastResort)  # which a root with handlers would no longer use: warnings on the terminal
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
