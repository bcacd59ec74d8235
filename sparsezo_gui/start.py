"""Where both programs begin. While their libraries load, and nothing is at stake yet, Ctrl-C leaves with a sentence: an
interrupt raised inside an import comes out as whatever the library makes of it."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code."""


def terminal() -> int:
    """``sparsezo``; gives the exit code."""
    signal.signal(signal.SIGINT, _leave)
    from sparsezo_gui import cli

    return cli.main()


def window() -> int:
    """``sparsezo-gui``; gives the exit code."""
    signal.signal(signal.SIGINT, _leave)
    from sparsezo_gui import __main__

    return __main__.main()


def _leave(*_: object) -> None:
    if "--json" in sys.argv:
        os.write(1, b'{"event": "error", "message": "Interrupted."}\n')
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
