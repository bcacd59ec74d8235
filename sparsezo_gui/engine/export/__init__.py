"""Exporting a step of a run for other programs: only the tuned values (overlay), or a merged Hugging Face model."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session

FORMATS = ("overlay", "hf")
WEIGHTS = ("original", "trained")


def export_run(
    folder: str | Path, form: str, out: Path, step: int | None = None, weights: str = "original", accept: bool = False
) -> Generator[Progress | Notice, None, dict[str, Any]]:
    """Exports a step (None: the last) of the run in ``folder`` to ``out``, in one of `FORMATS`.

    A Hugging Face folder combines the tuned values with the 'original' weights of the base model, or with the weights
    as 'trained' (see `WEIGHTS`). Returns plain facts: ``step``, ``tuned``, ``told`` (sentences for the user) and
    ``changed`` (inputs that changed since the run started). Raises `UserError`, and `ChangedInputs` for a changed
    tokenizer or configuration unless ``accept`` is set.
    """
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session import open_session

    for what, chosen, choices in (("format", form, FORMATS), ("choice of weights", weights, WEIGHTS)):
        if chosen not in choices:
            raise UserError(f"Unknown export {what} '{chosen}'. {did_you_mean(chosen, choices)}")
    if out.exists() and not (form == "hf" and out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists. Choose another {'file' if form == 'overlay' else 'folder'}.")
    run = open_run(folder)
    session = yield from open_session(run, step, accept=accept)
    told = _overlay(session, out) if form == "overlay" else (yield from _folder(run, session, out, weights, accept))
    return {
        "step": session.step, "tuned": session.tuned.mask.size, "told": told, "changed": list(session.changed)
    }  # fmt: skip


def _overlay(session: Session, out: Path) -> list[str]:
    from sparsezo_gui import recipe
    from sparsezo_gui.engine.export.overlay_file import OverlayFile, read_overlay, write_overlay
    from sparsezo_gui.engine.export.stops import added_stop

    if reason := session.tuned.space.export_refusal("overlay"):
        raise UserError(reason)
    source, changes = session.model.source, session.tuned.changes()
    shapes = {name: source.spec.linears[name] for name in changes}
    given = recipe.portable(session.recipe)
    write_overlay(out, OverlayFile(
        changes, shapes, given.model.id, source.revision, session.model.fingerprint, session.step, recipe.dump(given)
    ))  # fmt: skip
    read_overlay(out)
    told = [f"{size(out.stat().st_size)}, for the base model {source.id}."]
    if stop := added_stop(session.model):
        told.append(
            f"The run learned to end answers with '{stop}' (token {session.model.learned_end}), which is not a stop "
            "token of the base model. Set it as a stop token in your program."
        )
    return told


def _folder(
    run: RunFolder, session: Session, out: Path, weights: str, accept: bool
) -> Generator[Progress | Notice, None, list[str]]:
    from sparsezo_gui.engine.export.card import model_card
    from sparsezo_gui.engine.export.check import compare
    from sparsezo_gui.engine.export.stops import FILE, added_stop, generation_config
    from sparsezo_gui.engine.hub.library import licence_of
    from sparsezo_gui.engine.provenance import in_words
    from sparsezo_gui.engine.session import data_of

    source, size, form = session.model.source, session.tuned.mask.size, str(session.model.dtype).split(".")[-1]
    write, untuned = {
        "original": (_merged, "All other weights are the original ones of the base model."),
        "trained": (_trained, f"All other weights are as the run used them ({session.recipe.model.bits} bits), written "
                    f"in {form}."),
    }[weights]  # fmt: skip
    if session.changed:
        untuned += f" Different from the run: {in_words(session.changed)} changed since it started."
    card = model_card(
        source, session.recipe, session.step, size, _metrics(run, session.step), licence_of(source.folder), untuned,
        _privacy(run),
    )  # fmt: skip
    told = yield from write(session, out, {"README.md": card, **generation_config(session.model)})
    if stop := added_stop(session.model):
        told.append(f"{FILE}: added the stop token '{stop}', with which the run learned to end answers.")
    try:
        data = yield from data_of(session, run, accept=accept)
    except UserError as error:  # the export is complete without the data
        return [*told, f"Not compared with the run's output: {error}"]
    return [*told, (yield from compare(session, data, out, weights == "original"))]


def _merged(session: Session, out: Path, texts: dict[str, str]) -> Generator[Progress, None, list[str]]:
    from sparsezo_gui.engine.export.merged import export_merged

    done = yield from export_merged(session.model.source, session.tuned.changes(), out, texts)
    told = [f"{done.moved:,} of {done.tuned:,} tuned weights differ from the base model."]
    if done.moved < done.tuned // 2:
        kept = "" if session.tuned.space.export_refusal("overlay") else "; an overlay file keeps these changes"
        told.append(f"The changes of the others are lost to rounding in the base model's number format{kept}.")
    return told


def _trained(session: Session, out: Path, texts: dict[str, str]) -> Generator[Progress, None, list[str]]:
    from sparsezo_gui.engine.export.trained import export_trained

    yield from export_trained(session.model, session.tuned.changes(held=True), out, texts)
    return ["All weights are written as the run used them."]


def _privacy(run: RunFolder) -> str:
    """The privacy guarantee for the training examples, if there is one."""
    from sparsezo_gui.engine.privacy.accounting import spent

    found = spent(run)
    if found is None:
        return ""
    return (
        f"Differential privacy of each training example: {found}, for {found.steps:,} steps with Poisson sampling and "
        "neighbouring data sets that differ by one example. The examples used to choose step and recipe are not "
        "covered."
    )


def _metrics(run: RunFolder, step: int) -> dict[str, dict[str, float]]:
    """Metrics of the base model and of ``step``, on the test examples if ``step`` was evaluated on them."""
    events = outcome.evaluations(outcome.on_lineage(run.events()))
    found = {(event.split, event.step): event.metrics for event in events}
    for split in ("test", "validation"):
        if (split, step) in found:
            return {"base": found.get((split, 0), {}), "tuned": found[split, step]}
    return {}
