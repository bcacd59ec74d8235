"""Exporting a step of a run for other programs: one file per format, registered in `sparsezo_gui.formats`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import export_format
from sparsezo_gui.recipe.events import Notice, Progress


def export_run(
    folder: str | Path, form: str, out: Path, step: int | None = None, *, accept: bool = False, **options: str
) -> Generator[Progress | Notice, None, dict[str, Any]]:
    """Exports a step (None: the last) of the run in ``folder`` to ``out`` in a format of `sparsezo_gui.formats`.

    Options that the format does not have are ignored. Returns plain facts: ``step``, ``tuned``, ``told`` (sentences
    for the user) and ``changed`` (inputs that changed since the run started). Raises `UserError`, and `ChangedInputs`
    for a changed tokenizer or configuration unless ``accept`` is set.
    """
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session.opening import open_session

    kind = export_format(form)
    chosen = {option.name: option.chosen(options.get(option.name)) for option in kind.options}
    if out.exists() and not (kind.folder and out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists. Choose another {kind.noun}.")
    run = open_run(folder)
    session = yield from open_session(run, step, accept=accept)
    if reason := kind.refusal(session):
        raise UserError(reason)
    facts = yield from kind.write(session, run, out, accept, **chosen)
    return {"step": session.step, "tuned": session.tuned.mask.size, "changed": list(session.changed), **facts}
