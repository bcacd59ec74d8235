"""Opens a run: checks that its model and mask are those it started with, and restores its values at a step."""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine import provenance
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_model
from sparsezo_gui.engine.session.replay import Replayed, replay
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.workers import Workers
from sparsezo_gui.engine.zo.generator import GENERATOR, KNOWN
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress


def open_session(
    run: RunFolder, step: int | None = None, from_checkpoints: bool = True, accept: bool = False
) -> Generator[Progress | Notice, None, Session]:
    """Loads the model of ``run`` and restores its values at ``step`` (None: the last), from the nearest checkpoint or,
    without them, from the start. Raises `UserError`, and `ChangedInputs` for a changed tokenizer or configuration
    unless ``accept`` is set."""
    session = yield from loaded(run, accept)
    yield from restore(session, run, step, from_checkpoints)
    return session


def restore(
    session: Session, run: RunFolder, step: int | None, from_checkpoints: bool = True
) -> Generator[Progress | Notice, None, Replayed]:
    """Restores a session of ``run`` at ``step`` (None: the last), and says how. Raises `UserError`."""
    lineage = lineage_of(run, step)
    if lineage.fault:
        yield Notice(lineage.fault, "warning")
    return (yield from replay(session, lineage, from_checkpoints))


def loaded(
    run: RunFolder, accept: bool = False, workers: Workers | None = None
) -> Generator[Progress | Notice, None, Session]:
    """The model of ``run`` with its initial values, for all ``workers``. Raises like `open_session`."""
    workers = workers or Workers()
    recipe, facts = run.recipe, run.facts
    if facts.generator not in KNOWN:
        raise UserError(
            f"{run.path}: its directions come from another generator ({facts.generator}) than this version of SparseZO "
            f"has ({GENERATOR}). Open it with the version that made it "
            f"({facts.versions.get('sparsezo-gui', 'unknown')})."
        )
    model = yield from load_model(recipe)
    workers.load(recipe)
    if facts.fingerprint != model.fingerprint:
        raise UserError(
            f"{recipe.model.id}: these are not the weights that run '{run.name}' was tuned on. Restore the "
            "original model (id and revision are in the run's recipe.toml), or start a new run."
        )
    found = provenance.of_model(model.source)
    changed = provenance.compare(run, found, found, accept)
    if changed:
        yield Notice(provenance.marked(changed), "warning")
    # Fewer rows per pass change the last bits, so a run keeps the number it started with.
    model.pack_rows = facts.pack_rows or model.pack_rows
    tuned = tuned_values(model, (yield from _mask(run, model)))
    session = Session(recipe, model, tuned, changed=changed, generator=facts.generator)
    workers.open(session)
    return session


def _mask(run: RunFolder, model: FrozenModel) -> Generator[Progress | Notice, None, Mask]:
    """The run's mask from its file; if a run came without one, it is found again and must be the same."""
    path, recipe, facts = run.mask, run.root.recipe, run.facts
    if path.exists():
        try:
            mask = masks.load(path, model.spec.linears, model.fingerprint)
        except UserError as error:
            raise UserError(f"{error} Or remove the file: the run finds its mask again.") from error
        if facts.mask_hash != mask.hash:
            raise UserError(f"{path}: not the mask this run started with. Restore the file from a copy of the run.")
        return mask
    yield Notice("The run came without its mask, so the mask is found again.")
    mask = yield from recipe.mask.find(model, Search(recipe.loop.seed, recipe.data, facts.generator))
    if facts.mask_hash != mask.hash:
        raise UserError(
            f"{run.path}: the mask found here differs from the one this run started with; its scores can differ in "
            "their last digits between kinds of devices. Ask for a copy with its mask: sparsezo share RUN "
            "--with-mask"
        )
    try:
        mask.save(path)
    except UserError as error:
        yield Notice(f"The mask was not saved, so it has to be found again next time: {error}", "warning")
    return mask
