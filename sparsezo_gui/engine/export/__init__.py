"""Exporting a step of a run for other programs: one file per format, registered in `sparsezo_gui.formats`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import default_export, export_format
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.recipe.registry import SPACES


def export_run(
    folder: str | Path,
    form: str | None,
    out: Path | None,
    step: int | None = None,
    *,
    accept: bool = False,
    **options: str,
) -> Generator[Progress | Notice, None, dict[str, Any]]:
    """Exports a step (None: the last) of the run in ``folder`` to ``out`` (None: where the options say) in a format of
    `sparsezo_gui.formats` (None: the one that suits the run).

    Options that the format does not have are ignored. Returns plain facts: ``format``, ``out``, ``step``, ``tuned``,
    ``told`` (sentences for the user), ``serve`` (commands that serve it, by program), ``changed`` (inputs that changed
    since the run started) and, of a file that holds no model card, its ``card``. Raises `UserError`, and
    `ChangedInputs` for a changed tokenizer or configuration unless ``accept`` is set.
    """
    from sparsezo_gui.engine.export.card import base_name, card_of
    from sparsezo_gui.engine.files import already_exists
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session.opening import open_session

    run = open_run(folder)
    space = SPACES[run.recipe.mask.space]
    form = default_export(space) if form is None else form
    kind = export_format(form)
    chosen = {option.name: option.chosen(options.get(option.name)) for option in kind.options}
    if out is None and (out := kind.place(run.recipe.run.name or run.path.name, **chosen)) is None:
        raise UserError(f"Where should the {kind.noun} be written? Add --out PATH.")
    if out.exists() and not (kind.folder and out.is_dir() and not any(out.iterdir())):
        raise already_exists(out)
    if reason := kind.refusal(space):
        raise UserError(reason)
    session = yield from open_session(run, step, accept=accept)
    facts = yield from kind.write(session, run, out, accept, **chosen)
    base = base_name(session)
    facts.setdefault("serve", kind.serve(str(out), base, space))
    if not kind.folder and not kind.card(out):
        beside = kind.serve(out.name, base, space)
        facts["card"] = card_of(session, run, f"It is a {kind.title}.", serve=beside)
    tuned, changed = session.tuned.mask.size, list(session.changed)
    return {"format": form, "out": str(out), "step": session.step, "tuned": tuned, "changed": changed, **facts}
