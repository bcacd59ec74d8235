"""Where files from outside meet the libraries that read them: whatever these raise comes out as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsezo_gui.errors import UserError, out_of_memory


@contextmanager
def outside(what: object, fault: str, cure: str = "Download or copy it again.") -> Iterator[None]:
    """Within: any exception over ``what``, mostly a path, is a `UserError`: 'WHAT: FAULT (reason). CURE'.

    Memory that ran out stays what it is, for it is told otherwise.
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
    """Whether something went wrong, as opposed to an order to leave. A panic in Rust is no Exception, and its class has
    no public name."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """What an exception says, in one line without a stop."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".:")


def resolved(path: Path) -> Path:
    """``path`` without links. Raises `UserError` for links that lead in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # until Python 3.13, a circle is a RuntimeError
        raise UserError(
            f"{path}: this path cannot be followed; most likely its links lead in a circle. Remove the link, or choose "
            "another path."
        ) from error
