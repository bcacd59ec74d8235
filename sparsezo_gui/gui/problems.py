"""What went wrong, in words a person can act on, with the details at hand."""

from __future__ import annotations

import platform
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from sparsezo_gui import __version__
from sparsezo_gui.errors import ChangedInputs, ConsentNeeded, UserError, out_of_memory
from sparsezo_gui.masking import masked
from sparsezo_gui.plain import readable


@dataclass(frozen=True)
class Problem:
    """``what`` happened and what to do; ``details`` is a report for a bug tracker, empty for a user's mistake; ``code``
    is what the user has to let run first, or None; with a ``question`` it can be done all the same."""

    what: str
    details: str = ""
    code: Any = None
    question: bool = False

    @property
    def defect(self) -> bool:
        """Whether this is a fault of the program rather than of what it was given."""
        return bool(self.details)


def explain(error: BaseException, doing: str) -> Problem:
    """A `UserError` says it all by itself; anything else is told as our defect, with a traceback at hand."""
    if isinstance(error, ChangedInputs):
        return Problem(error.args[0], question=len(error.args) > 1)
    if isinstance(error, UserError) and not out_of_memory(error):
        return Problem(str(error), code=error.code if isinstance(error, ConsentNeeded) else None)
    if out_of_memory(error):
        what = (
            f"The computer ran out of memory while {doing}. Close other programs, choose fewer bits, a smaller "
            "model or a smaller batch, then try again."
        )
    elif isinstance(error, OSError) and error.errno == 28:
        what = f"The disk is full ({doing}). Make room, then try again; a run goes on where it stopped."
    else:
        what = (
            f"Something unexpected happened while {doing}: {type(error).__name__}"
            f"{': ' + masked(str(error)).strip() if str(error) else ''}. Your files are untouched. "
            "Try again; if it happens again, copy the details into a bug report."
        )
    trace = "".join(traceback.format_exception(error))
    about = f"SparseZO {__version__}, Python {sys.version.split()[0]}, {platform.platform()}\nwhile {doing}\n\n"
    return Problem(what, readable(masked(about + trace)))
