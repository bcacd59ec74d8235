"""A step of a run as a model: ``run:NAME@STEP``, where NAME is the run's name in the list of runs, or its folder.

Its tuned values are rebuilt once and stored in ``tuned/HASH`` in the program's home, as an overlay file or an adapter
of the run's own model. They may be removed at any time: as long as the run exists, they are rebuilt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui import recipe as recipes
from sparsezo_gui.engine.export.adapter import lora
from sparsezo_gui.engine.export.overlay_file import OverlayFile, read_overlay, write_overlay
from sparsezo_gui.engine.files import home, make_folder
from sparsezo_gui.engine.pretrained.folder import drafted
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.pretrained.tuned import Layer, TunedModel
from sparsezo_gui.engine.runs.folder import RunFolder, open_run, runs_home
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.runs.listing import list_runs
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.tuned.adapter import TunedAdapter
from sparsezo_gui.engine.tuned.overlay import entries_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.paths import RUN, run_and_step
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.work import changing

VALUES = "values.safetensors"


@dataclass(frozen=True)
class TunedRun(TunedModel):
    """``step`` of ``run``."""

    run: RunFolder
    step: int
    kind = "run"

    @classmethod
    def at(cls, id: str) -> TunedRun | None:
        """See `TunedModel.at`."""
        if not id.startswith(RUN):
            return None
        name, step = run_and_step(id)
        run = open_run(name)
        if step is None:
            last = f"{RUN}{name}@{lineage_of(run).step}"
            raise UserError(f"'{id}' does not say which step. Write {last} for the last one.")
        lineage_of(run, step)  # refuses a step that it does not have
        return cls(run, step)

    @classmethod
    def listed(cls) -> list[str]:
        """See `TunedModel.listed`: the best step of each run, or else its last."""
        found = []
        for each in list_runs():
            step = each.step if each.best is None else each.best
            if step > each.start and not each.problem and not SPACES[each.space].in_place:
                path = Path(each.path)
                home = runs_home().resolve()
                name = path.relative_to(home) if path.is_relative_to(home) else path
                found.append(f"{RUN}{name.as_posix()}@{step}")
        return found

    @property
    def base(self) -> tuple[str, str]:
        """See `TunedModel.base`."""
        space = SPACES[self.run.recipe.mask.space]
        if space.in_place:
            raise UserError(
                f"{self.run.path}: this run {space.whole_weights}. Export it with --format hf, and continue with that "
                "folder."
            )
        return self.run.recipe.model.id, self.run.recipe.model.revision

    def layer(self, base: ModelSource, table: ModelTable) -> Generator[Progress, None, Layer]:
        """See `TunedModel.layer`."""
        if self.run.facts.fingerprint != base.checkpoint.fingerprint():
            raise UserError(
                f"{table.id}: these are not the weights that run '{self.run.name}' was tuned on. Restore the original "
                "model (id and revision are in the run's recipe.toml)."
            )
        folder = home() / "tuned" / self._key()
        if not folder.is_dir():
            yield from self._rebuild(folder)
        what = f"step {self.step:,} of the run {self.run.name}"
        if (folder / VALUES).is_file():
            overlay = read_overlay(folder / VALUES)
            return Layer(what, table.id, *entries_of(overlay, folder / VALUES, base))
        return Layer(what, table.id, *TunedAdapter(folder).changes(base))

    def _key(self) -> str:
        """Identifies the tuned values at the step."""
        facts, digest = self.run.facts, hashlib.sha256()
        digest.update(json.dumps([facts.fingerprint, facts.mask_hash, facts.generator, self.step]).encode())
        for part in lineage_of(self.run, self.step).segments:
            digest.update(recipes.dump(part.recipe).encode())
            digest.update(part.steps.tobytes())
        return digest.hexdigest()[:32]

    def _open(self) -> Generator[Progress, None, Session]:
        """The run's session at the step. Its notices are for those who open the run itself."""
        opening = open_session(self.run, self.step)
        return changing(opening, lambda event: event if isinstance(event, Progress) else None)

    def _rebuild(self, folder: Path) -> Generator[Progress, None, None]:
        session = yield from self._open()
        make_folder(folder.parent)
        products, source = session.tuned.products(), session.model.source
        if products:
            adapter = lora(products, source.spec)
            with drafted(folder, adapter.bytes) as draft:
                adapter.save(draft, source.id, source.revision)
            return
        changes = session.tuned.changes()
        shapes = {name: source.spec.linears[name] for name in changes}
        with drafted(folder, 8 * session.tuned.mask.size) as draft:
            write_overlay(draft / VALUES, OverlayFile(
                changes, shapes, source.id, source.revision, session.model.fingerprint, self.step, ""
            ))  # fmt: skip
