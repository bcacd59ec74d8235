"""Reading untrusted files with libraries: any exception becomes a sentence for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsezo_gui.errors import UserError, out_of_memory


@contextmanager
def outside(what: object, fault: str, cure: str = "Download or copy it again.") -> Iterator[None]:
    """Turns any exception in its block into a `UserError`: 'WHAT: FAULT (reason). CURE'; ``what`` is usually a path.

    Out-of-memory errors pass unchanged, as they have their own message.
    """
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not is_fault(error) or out_of_memory(error):
            raise
        raise UserError(f"{what}: {fault} ({reason(error)}). {cure}") from error


def is_fault(error: BaseException) -> bool:
    """Whether this is an error, not a request to exit. A Rust panic is no Exception, and its class is not public."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """The message of an exception, in one line without a full stop."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".:")


def resolved(path: Path) -> Path:
    """``path`` without links. Raises `UserError` for a loop of links."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # until Python 3.13, a loop is a RuntimeError
        raise UserError(
            f"{path}: this path cannot be resolved; most likely it contains a loop of links. Remove the link, or "
            "choose another path."
        ) from error
