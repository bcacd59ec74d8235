"""`doctor`: whether this computer has what the program needs."""

from __future__ import annotations

import argparse
import dataclasses

from sparsezo_gui.cli.command import command
from sparsezo_gui.console import Console


@command(
    "doctor", "Check what is installed: packages, GPU, system libraries, disk, memory. Exits 1 if something is wrong, "
    "and prints the commands that fix it.",
)  # fmt: skip
def doctor(options: argparse.Namespace, console: Console) -> int:
    from sparsezo_gui.doctor import examine, look

    found = examine(look(_token()))
    wrong = [each for each in found if each.problem]
    rows = [dataclasses.asdict(each) for each in found]
    if not options.json:
        for row in rows:
            row["state"] = "wrong" if row["problem"] else "ok"
    console.table(rows, ("check", "state", "found"), "")
    if not options.json:
        lines = [f"{each.problem}\n    {each.command}".rstrip() for each in wrong]
        console.result({}, "\n".join(lines) or "No problems found.")
    return 1 if wrong else 0


def _token() -> str:
    """Where the token comes from; '' if there is none, or if it cannot be looked for."""
    try:
        from sparsezo_gui.engine.hub.token import found
    except ImportError:
        return ""
    text, place = found()
    return place if text else ""
