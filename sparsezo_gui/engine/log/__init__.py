"""Curves of a run for other programs: one file per kind, registered in `sparsezo_gui.formats`.

A log has a row for every step that led to the current one, also those of the runs it branched from: the columns of
`sparsezo_gui.engine.runs.curves`, and what was measured after that step, as ``test/accuracy`` or
``general/perplexity``. Step 0, the base model, has a row if it was evaluated. What a run does not have is left empty.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.locks import is_held
from sparsezo_gui.engine.log.table import table_of
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.runs.preparing import LOCK
from sparsezo_gui.formats import log_format
from sparsezo_gui.recipe.events import Progress

EVERY = 2.0  # seconds between looks at a live run
SHARE = 10  # waits at least this many times as long as writing took


def log_run(
    folder: str | Path, kind: str, out: str = "", follow: bool = False, every: float = EVERY
) -> Generator[Progress, None, dict[str, Any]]:
    """Writes the curves of the run in ``folder`` to ``out`` ('': named after the run) in a kind of
    `sparsezo_gui.formats`. With ``follow``, goes on as long as a program writes the run.

    Returns plain facts: ``out``, ``steps``, ``columns`` and ``told``, a sentence. Raises `UserError`.
    """
    run, form = open_run(folder), log_format(kind)
    form.check()
    out = out or form.usual(run.name)
    with form.writing(out, run.name, follow) as write:
        while True:
            live, started = follow and is_held(run.path / LOCK), time.monotonic()
            table = table_of(run)
            write(table)
            yield Progress("Logging", table.last, run.recipe.loop.steps, "steps")
            if not live:
                break
            time.sleep(max(every, SHARE * (time.monotonic() - started)))
    return {"out": out, "steps": len(table.steps), "columns": table.columns, "told": form.told(out)}
