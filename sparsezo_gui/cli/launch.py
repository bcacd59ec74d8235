"""Processes that ``torchrun`` started: one of them runs a command, and the others are its helpers."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sparsezo_gui.errors import UserError

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank() -> int | None:
    """The rank of this process; None if it was started alone."""
    return int(os.environ["RANK"]) if all(name in os.environ for name in LAUNCHED) else None


def again() -> bool:
    """Whether ``torchrun`` restarted all processes because one failed."""
    return rank() is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def help_out(options: argparse.Namespace) -> int:
    """Serves the leader until it ends the run, and returns the exit code. The leader alone obeys signals."""
    from sparsezo_gui.engine.team.helper import Helper
    from sparsezo_gui.engine.team.link import Link

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    link = Link.join()
    code = Helper(link, options.trust_remote_code).serve()
    if not code:
        link.leave()
    return code


@contextmanager
def leading(options: argparse.Namespace) -> Iterator[None]:
    """Inside, ``options.workers`` are those that ``torchrun`` started, if it did, led by this process. Raises
    `UserError` for a command that only one process can run, and `LostWorker`."""
    if rank() is None:
        yield
        return
    if not options.command.shared:
        raise UserError(
            f"'sparsezo {options.command.name}' runs in one process: start it without torchrun. 'train' and 'resume' "
            "run in several."
        )
    from sparsezo_gui.engine.team.leader import Leader
    from sparsezo_gui.engine.team.link import Link

    link = Link.join()
    options.workers = Leader(link)
    try:
        yield
    finally:
        options.workers.end()
    link.leave()
