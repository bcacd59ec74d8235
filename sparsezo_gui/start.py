"""Entry points of both programs.

While libraries load, Ctrl-C exits at once with a sentence: there is nothing to save yet, and a `KeyboardInterrupt`
raised inside an import could surface as any error of a library.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def terminal() -> int:
    """``sparsezo``; returns the exit code."""
    signal.signal(signal.SIGINT, _exit)
    from sparsezo_gui import cli

    return cli.main()


def window() -> int:
    """``sparsezo-gui``; returns the exit code."""
    signal.signal(signal.SIGINT, _exit)
    from sparsezo_gui import __main__

    return __main__.main()


def _exit(*_: object) -> None:
    if "--json" in sys.argv:
        os.write(1, b'{"event": "error", "message": "Interrupted."}\n')
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
