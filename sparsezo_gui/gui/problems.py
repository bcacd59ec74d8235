"""Problems in words that a user can act on, with details for a bug report."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from sparsezo_gui.answers import ModelCode
from sparsezo_gui.crashes import program
from sparsezo_gui.errors import ChangedInputs, ConsentNeeded, UserError, out_of_memory
from sparsezo_gui.gui.wording import in_form_words
from sparsezo_gui.plain import readable
from sparsezo_gui.redaction import redacted


@dataclass(frozen=True)
class Problem:
    """``message`` says what happened and what to do about it; ``details`` is a bug report, empty for a user's mistake;
    ``code`` is the model code that needs the user's consent first, or None; ``can_continue`` is whether the user may do
    it anyway."""

    message: str
    details: str = ""
    code: ModelCode | None = None
    can_continue: bool = False

    @property
    def is_bug(self) -> bool:
        """Whether this is a bug in SparseZO rather than bad input."""
        return bool(self.details)


def explain(error: BaseException, doing: str) -> Problem:
    """A `UserError` explains itself; anything else is reported as a bug of ours, with a traceback."""
    if isinstance(error, ChangedInputs):
        return Problem(in_form_words(error.args[0]), can_continue=len(error.args) > 1)
    if isinstance(error, UserError) and not out_of_memory(error):
        return Problem(in_form_words(str(error)), code=error.code if isinstance(error, ConsentNeeded) else None)
    if out_of_memory(error):
        message = (
            f"The computer ran out of memory while {doing}. Close other programs, or choose fewer bits, a smaller "
            "model or a smaller batch, then try again."
        )
    elif isinstance(error, OSError) and error.errno == 28:
        message = f"The disk is full ({doing}). Free some space, then try again; a run resumes where it stopped."
    else:
        message = (
            f"Something unexpected happened while {doing}: {type(error).__name__}"
            f"{': ' + redacted(str(error)).strip() if str(error) else ''}. Your files are untouched. "
            "Try again; if it happens again, copy the details into a bug report."
        )
    trace = "".join(traceback.format_exception(error))
    about = f"{program()}\nwhile {doing}\n\n"
    return Problem(message, readable(redacted(about + trace)))
