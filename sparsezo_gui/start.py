"""Where both programs start. While their libraries load, Ctrl-C exits immediately with a sentence: an interrupt raised
inside an import comes out as whatever the library makes of it.

What is imported before, here and in the package, is little and fast: Ctrl-C still ends in a traceback there.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def terminal() -> int:
    """``sparsezo``; returns the exit code."""
    signal.signal(signal.SIGINT, _leave)
    from sparsezo_gui import cli

    return cli.main()


def window() -> int:
    """``sparsezo-gui``; returns the exit code."""
    signal.signal(signal.SIGINT, _leave)
    from sparsezo_gui import __main__

    return __main__.main()


def _leave(*_: object) -> None:
    if "--json" in sys.argv:
        os.write(1, b'{"event": "error", "message": "Interrupted."}\n')
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
