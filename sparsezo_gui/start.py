"""Entry points of both programs.

While libraries load, Ctrl-C exits at once with a sentence: there is nothing to save yet, and a `KeyboardInterrupt`
raised inside an import could surface as any error of a library.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
LOADING = (10_000, 50, 100)
"""Thresholds of garbage collection until `loaded`, then Python's own."""
_USUAL = gc.get_threshold()


def terminal() -> int:
    """``sparsezo``; returns the exit code."""
    begin()
    from sparsezo_gui import cli

    return cli.main()


def window() -> int:
    """``sparsezo-gui``; returns the exit code."""
    begin()
    from sparsezo_gui import __main__

    return __main__.main()


def begin() -> None:
    """What comes before the first library: Ctrl-C exits at once, and garbage is hardly looked for until `loaded`."""
    signal.signal(signal.SIGINT, _exit)
    # Libraries make half a million objects that stay: looking through them while they load, and once more at exit,
    # takes as long as a third of both.
    gc.set_threshold(*LOADING)
    atexit.register(gc.freeze)


def loaded() -> None:
    """A run begins, or the window is there: what exists stays, and garbage is collected as usual again."""
    if gc.get_threshold() == LOADING:
        gc.freeze()
        gc.set_threshold(*_USUAL)


def _exit(*_: object) -> None:
    if "--json" in sys.argv:
        os.write(1, b'{"event": "error", "message": "Interrupted."}\n')
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
