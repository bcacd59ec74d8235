"""A run in memory: the frozen model, its overlay and its data, brought to any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData, load_task
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.models import frozen
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.objective import count_tokens, measure, sides_at_once
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.sparse import mask as masks
from sparsezo_gui.engine.sparse.overlay import Overlay
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress


@dataclass
class Session:
    """``state`` is the update's state after ``step`` steps; the overlay's values are those after ``step`` steps too."""

    recipe: Recipe
    model: FrozenModel
    overlay: Overlay
    step: int = 0
    state: Any = None
    factor: float = 1.0

    def estimate(self, batch: Sequence[Encoded], directions: Tensor) -> Estimate:
        """Slopes along ``directions`` (probes, n) and the loss, all sides measured on the same ``batch``."""

        return self.recipe.estimator.estimate(self.overlay.values, directions, self.losses_on(batch))

    def losses_on(self, batch: Sequence[Encoded]) -> Callable[[Tensor], Tensor]:
        """The losses (sides,) of perturbed values (sides, n) on ``batch``, in fp64.

        Sides run together, through each weight while it is hot, as far as the longest example leaves room.
        """

        def losses(sides: Tensor) -> Tensor:
            found, longest = [], max(map(count_tokens, batch))
            at_once = sides_at_once(len(sides), longest, self.model.pack_rows, self.recipe.model.compute)
            for together in sides.split(at_once):
                with self.overlay.applied(together):
                    found.append(measure(self.model, batch, len(together)).loss)
            return torch.cat(found)

        return losses

    def directions(self) -> Tensor:
        """Directions of the next step, fp32 (probes, n)."""
        values, probes = self.overlay.values, self.recipe.estimator.directions
        return generator.directions(self.recipe.loop.seed, self.step + 1, probes, values.numel(), values.device)

    def advance(self, directions: Tensor, slopes: Sequence[float], rate: float) -> None:
        """Takes the next step along its directions; used alike by the loop and by a replay."""
        self.state = self.recipe.update.apply(self.overlay.values, directions, slopes, rate, self.state)
        self.step += 1


def open_session(run: RunFolder, step: int | None = None) -> Generator[Progress | Notice, None, Session]:
    """Loads the model of ``run`` and replays its journal up to ``step`` (None: the last). Raises `UserError`."""
    recipe = run.recipe
    model = yield from frozen.load(recipe.model)
    if run.facts.get("fingerprint") != model.fingerprint:
        raise UserError(
            f"{recipe.model.id}: these are not the weights that run '{run.name}' was tuned on. Bring back the "
            "original model (id and revision are in the run's recipe.toml), or start a new run."
        )
    mask = masks.load(run.mask, model.anatomy.linears, model.fingerprint)
    if run.facts.get("mask_hash") != mask.hash:
        raise UserError(f"{run.mask}: not the mask that this run began with. Restore the file from a copy of the run.")
    session = Session(recipe, model, Overlay(model, mask))
    session.state = recipe.update.start(mask.size)
    if run.journal.exists():
        found = journal.read(run.journal)
        if found.fault:
            yield Notice(found.fault, "warning")
        yield from replay(session, _until(found.records, step, run))
    elif step:
        raise UserError(f"Run '{run.name}' has not taken any step yet, so there is no step {step}.")
    return session


def replay(session: Session, records: np.ndarray) -> Generator[Progress, None, None]:
    """Takes the recorded steps again: no forward pass, the same bits."""
    for record in records:
        session.advance(session.directions(), record["slopes"].tolist(), float(record["rate"]))
        if session.step % 100 == 0:
            yield Progress("Replaying the journal", session.step, len(records), "steps")
    if len(records):
        scheduled = session.recipe.update.rate(session.step, session.recipe.loop.steps)
        session.factor = float(records[-1]["rate"]) / scheduled if scheduled else 1.0


def _until(records: np.ndarray, step: int | None, run: RunFolder) -> np.ndarray:
    if step is None:
        return records
    if not 0 <= step <= len(records):
        raise UserError(f"Run '{run.name}' has {len(records)} steps, so there is no step {step}.")
    return records[:step]


def load_data(recipe: Recipe, model: FrozenModel) -> Generator[Progress | Notice, None, TaskData]:
    """The recipe's data, encoded for ``model``; tells what was cut."""
    data = yield from load_task(recipe.data, model.tokenizer)
    yield from (Notice(text) for text in data.notices)
    if data.truncated:
        yield Notice(
            f"{data.truncated} examples were longer than {recipe.data.max_tokens} tokens; {data.tokens_cut} were "
            "cut from the start of their prompts. Raise max_tokens to keep them whole.", "warning",
        )  # fmt: skip
    return data


def data_hash(examples: Sequence[Encoded]) -> str:
    """SHA-256 over the tokens of the training examples, by which a resumed run knows that they are the same."""
    digest = hashlib.sha256()
    for example in examples:
        for row in example.rows:
            digest.update(repr((row.tokens, row.positions, row.targets, row.choices, example.label)).encode())
    return digest.hexdigest()
