"""Keeps the computer from going to sleep; its screen may go dark. Nothing happens where the system cannot be asked."""

from __future__ import annotations

import contextlib
import logging
import threading

log = logging.getLogger(__name__)


def on_mains() -> bool:
    """Whether the computer is not running on its battery, as far as it says so."""
    import psutil

    with contextlib.suppress(OSError, AttributeError, RuntimeError):  # not on every system
        battery = psutil.sensors_battery()
        return battery is None or battery.power_plugged is not False
    return True


class Awake:
    """Asks the system from a thread of its own, since it may take its time; it forgets when the program ends."""

    def __init__(self) -> None:
        self._over: threading.Event | None = None

    @property
    def held(self) -> bool:
        """Whether the computer is to be kept awake."""
        return self._over is not None

    def hold(self, wanted: bool) -> None:
        """Keeps the computer awake from now on, or no longer."""
        if wanted and self._over is None:
            self._over = threading.Event()
            threading.Thread(target=_keep, args=(self._over,), name="awake", daemon=True).start()
        elif not wanted and self._over is not None:
            self._over.set()
            self._over = None


def _keep(over: threading.Event) -> None:
    try:
        from wakepy import keep

        with keep.running(on_fail="pass") as mode:
            log.info("kept awake" if mode.active else "cannot be kept awake")
            over.wait()
    except Exception as error:  # a run needs no computer that is kept awake
        log.info("cannot be kept awake: %s", error)
