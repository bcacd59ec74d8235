"""A run in memory: the frozen model, its tuned values and its data, at any step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsezo_gui.engine import frozen, gradient, provenance
from sparsezo_gui.engine.data import TaskData, load_task
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.prompts import learned_end
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.probe import ModelProbe
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.lineage import Lineage, lineage_of
from sparsezo_gui.engine.selection import Chosen
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.engine.spaces.values import TunedValues, tuned_values
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.engine.zo.generator import GENERATOR, KNOWN, Source
from sparsezo_gui.engine.zo.updates import Gradient
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress

DRAWN_AHEAD = 100_000  # values per direction from which directions are drawn ahead in parallel


class State(NamedTuple):
    """The state of estimator and update after a step."""

    estimator: Any = None
    update: Any = None


@dataclass
class Session:
    """``state`` is that after ``step`` steps; the overlay's values are those after ``step`` steps too."""

    recipe: Recipe
    model: FrozenModel
    tuned: TunedValues
    step: int = 0
    state: State = field(default_factory=State)
    factor: float = 1.0
    data: dict[str, tuple[TaskData, dict[str, str]]] = field(default_factory=dict)
    """The data read so far, and its hashes, by its table in a recipe; see `data_of`."""
    changed: tuple[str, ...] = ()
    """Inputs accepted although they changed since the run started; see `sparsezo_gui.engine.provenance`."""
    generator: str = GENERATOR
    """The version of the random numbers that the run started with."""
    known: dict[tuple[Encoded, int], float] = field(default_factory=dict)
    """What the objective compares examples against, as far as measured; see `base`."""

    def begin(self, recipe: Recipe | None = None) -> None:
        """Sets values and state to the start of ``recipe`` (None: the session's)."""
        recipe = recipe or self.recipe
        self.tuned.reset()
        self.step, self.state = 0, self.start(recipe)

    def start(self, recipe: Recipe) -> State:
        """The state of ``recipe`` before the first step."""
        start = self.tuned.start
        return State(recipe.estimator.start(start, self.source(recipe, 0)), recipe.update.start(start))

    def source(self, recipe: Recipe, step: int) -> Source:
        """The random numbers of ``step``."""
        values = self.tuned.values
        return Source(recipe.loop.seed, step, values.numel(), values.device, self.generator)

    def directions(self) -> Any:
        """Directions of the next step, (probes, n)."""
        return self.shaped(self.recipe, self.drawn(self.recipe, self.step + 1))

    def drawn(self, recipe: Recipe, step: int) -> Any:
        """The random numbers for the directions of ``step``."""
        return self.tuned.draw(recipe.estimator, self.source(recipe, step), recipe.loop.batch_size)

    def shaped(self, recipe: Recipe, drawn: Any) -> Any:
        """The directions of the next step, from the numbers ``drawn`` for it."""
        return self.tuned.shape(recipe.estimator, drawn, self.step + 1, self.state.estimator)

    def choose(self, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step, from the training ``examples``."""
        return self.recipe.privacy.choose(self, examples)

    def base(self, examples: Sequence[Encoded], together: int = 1) -> Tensor | None:
        """What the objective compares ``examples`` against, (examples,), measured once at the initial values; None if
        it does not compare.

        ``together`` examples go through the model at once, which affects the last bits: one, if their batches can
        differ when a run resumes.
        """
        objective = self.recipe.objective
        if not objective.compares:
            return None
        with self.tuned.base(), torch.no_grad():
            for first in range(0, len(examples), together):
                part = examples[first : first + together]
                if any((example, together) not in self.known for example in part):
                    found = objective.reference(measure(self.model, part), part)[0].tolist()
                    self.known |= {(example, together): value for example, value in zip(part, found, strict=True)}
        return torch.tensor([self.known[example, together] for example in examples], dtype=torch.float64)

    def probe(self, batch: Sequence[Encoded], directions: Any) -> ModelProbe:
        """The model at the current values, with ``batch``, along ``directions``."""
        recipe = self.recipe
        return ModelProbe(
            self.model, self.tuned, recipe.objective, batch, directions, recipe.model.compute, self.base(batch)
        )

    def estimate(self, batch: Sequence[Encoded], directions: Any, rate: float = 0.0) -> Estimate:
        """Runs the forward passes of the next step, all on the same ``batch``. Raises TypeError for rules that measure
        something other than they declare, which could not be replayed."""
        recipe, probe = self.recipe, self.probe(batch, directions)
        found = recipe.privacy.estimate(recipe.estimator, probe, self.state.estimator, recipe.loop.batch_size)
        if found.exact is not None and not recipe.estimator.exact:
            raise TypeError(f"'{recipe.estimator.rule}' found a gradient exactly and does not say so")
        found = self._asked(found, probe, directions, rate)
        if len(found.recorded) != recipe.recorded:
            raise TypeError(f"a step measured {len(found.recorded)} numbers where its rules say {recipe.recorded}")
        return found

    def _asked(self, found: Estimate, probe: ModelProbe, directions: Any, rate: float) -> Estimate:
        """The estimate with the update's own measurements."""
        recipe = self.recipe
        if not recipe.update.recorded:
            return found
        if not all(map(math.isfinite, found.recorded)):  # the step will be skipped
            return replace(found, recorded=(*found.recorded, *(0.0,) * recipe.update.recorded))
        grads, _ = recipe.estimator.projected_grads(directions, found.recorded, self.state.estimator)
        more = recipe.update.measure(probe, Gradient(directions, grads, found.exact), rate, self.state.update)
        return replace(found, recorded=(*found.recorded, *more))

    def advance(
        self, directions: Any, recorded: Sequence[float], rate: float, exact: Tensor | None = None,
        recipe: Recipe | None = None,
    ) -> None:  # fmt: skip
        """Takes the next step along its directions; used by both the loop and a replay."""
        recipe, tuned = recipe or self.recipe, self.tuned
        count = len(recorded) - recipe.update.recorded
        grads, state = recipe.estimator.projected_grads(directions, recorded[:count], self.state.estimator)
        # All-zero scalars mark a skipped step, which a replay does not compute again.
        gradient = Gradient(directions, grads, exact if any(recorded) else None)
        update = recipe.update.apply(tuned.values, gradient, rate, self.state.update, recorded[count:])
        if recipe.update.decay and not gradient.zero and not recipe.update.rejects(recorded[count:]):
            # Decoupled decay as in AdamW (arXiv 1711.05101), but towards the original values.
            tuned.values -= (tuned.values - tuned.start) * (rate * recipe.update.decay)
        self.state = State(state, update)
        self.step += 1


def open_session(
    run: RunFolder, step: int | None = None, from_checkpoints: bool = True, accept: bool = False
) -> Generator[Progress | Notice, None, Session]:
    """Loads the model of ``run`` and restores its values at ``step`` (None: the last), from the nearest checkpoint or,
    without them, from the start. Raises `UserError`, and `ChangedInputs` for a changed tokenizer or configuration
    unless ``accept`` is set."""
    session = yield from loaded(run, accept)
    yield from bring(session, run, step, from_checkpoints)
    return session


def bring(
    session: Session, run: RunFolder, step: int | None, from_checkpoints: bool = True
) -> Generator[Progress | Notice, None, None]:
    """Brings a session of ``run`` to ``step`` (None: the last). Raises `UserError`."""
    lineage = lineage_of(run, step)
    if lineage.fault:
        yield Notice(lineage.fault, "warning")
    yield from replay(session, lineage, from_checkpoints)


def loaded(run: RunFolder, accept: bool = False) -> Generator[Progress | Notice, None, Session]:
    """The model of ``run`` with its initial values. Raises like `open_session`."""
    recipe, facts = run.recipe, run.facts
    if facts.generator not in KNOWN:
        raise UserError(
            f"{run.path}: its directions come from another generator ({facts.generator}) than this version of SparseZO "
            f"has ({GENERATOR}). Open it with the version that made it "
            f"({facts.versions.get('sparsezo-gui', 'not told')})."
        )
    model = yield from load_model(recipe)
    if facts.fingerprint != model.fingerprint:
        raise UserError(
            f"{recipe.model.id}: these are not the weights that run '{run.name}' was tuned on. Restore the "
            "original model (id and revision are in the run's recipe.toml), or start a new run."
        )
    found = provenance.of_model(model.source)
    changed = provenance.compare(run, found, found, accept)
    if changed:
        yield Notice(provenance.marked(changed), "warning")
    # Fewer rows at once change the last bits, so a run keeps the number it started with.
    model.pack_rows = facts.pack_rows or model.pack_rows
    tuned = tuned_values(model, (yield from _mask(run, model)))
    return Session(recipe, model, tuned, changed=changed, generator=facts.generator)


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


def replay(
    session: Session, lineage: Lineage, from_checkpoints: bool = True
) -> Generator[Progress | Notice, None, None]:
    """Replays values and state to the end of ``lineage``: the same bits from any starting point, and without
    forward passes unless the estimator back-propagates. Raises `UserError` if that needs data that is missing."""
    session.recipe, session.factor = lineage.segments[-1].recipe, 1.0
    _begin(session, lineage, from_checkpoints)
    total, done = lineage.step - session.step, 0
    for index, part in enumerate(lineage.segments):
        if session.step == part.first and index:
            session.state = _carried(session, lineage.segments[index - 1].recipe, part.recipe)
        records = part.steps[session.step - part.first :] if session.step < part.last else part.steps[:0]
        for record, drawn in zip(records, _drawn(session, part.recipe, len(records)), strict=True):
            z = session.shaped(part.recipe, drawn)
            recorded, rate = record["values"].tolist(), float(record["rate"])
            exact = None
            if part.recipe.estimator.exact and any(recorded):
                exact = _exact(session, part.recipe, z, (yield from data_of(session, part.run, ("train",))))
            session.advance(z, recorded, rate, exact, part.recipe)
            done += 1
            if done % 100 == 0:
                yield Progress("Replaying the journal", done, total, "steps")
    session.factor = lineage.factor


def _exact(session: Session, recipe: Recipe, directions: Any, data: TaskData) -> Tensor | None:
    """The backprop part of the next step, which is not in the journal and is computed again."""
    as_then = replace(session, recipe=recipe)
    probe = as_then.probe(as_then.choose(data.train.encoded).examples, directions)
    return recipe.estimator.estimate(probe, session.state.estimator).exact


def _carried(session: Session, before: Recipe, after: Recipe) -> State:
    """The state of a branch: its parent's, for the parts with the same rule in both."""
    state, start = session.state, session.start(after)
    return State(
        state.estimator if type(before.estimator) is type(after.estimator) else start.estimator,
        state.update if type(before.update) is type(after.update) else start.update,
    )


def _drawn(session: Session, recipe: Recipe, count: int) -> Iterator[Any]:
    """Random numbers for the next ``count`` steps, drawn ahead with PyTorch's number of threads: they take most of the
    time of a replay."""
    steps = range(session.step + 1, session.step + 1 + count)
    draw, values = partial(session.drawn, recipe), session.tuned.values
    if values.numel() < DRAWN_AHEAD or values.device.type != "cpu":
        yield from map(draw, steps)
        return
    ahead = iter(steps)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        waiting = deque(threads.submit(draw, step) for step in islice(ahead, torch.get_num_threads()))
        while waiting:
            drawn = waiting.popleft().result()
            waiting.extend(threads.submit(draw, step) for step in islice(ahead, 1))
            yield drawn


def _begin(session: Session, lineage: Lineage, from_checkpoints: bool) -> None:
    """Sets the values to the last usable checkpoint on ``lineage``, or to the start."""
    tuned = session.tuned
    found = [
        (frame, part)
        for part in lineage.segments
        for frame in (checkpoints.listed(part.run.path) if from_checkpoints else ())
        if part.first < frame.step <= part.last and frame.on(part.journal)
    ]
    for frame, part in sorted(found, key=lambda item: item[0].step, reverse=True):
        known = part.journal.hash(frame.records)
        states = checkpoints.read(frame, tuned.start, tuned.values, tuned.mask.hash, known)
        if states is not None:
            session.state, session.step = State(*states), frame.step
            return
    session.begin(lineage.segments[0].recipe)


def load_base(recipe: Recipe) -> Generator[Progress, None, FrozenModel]:
    """The recipe's model, with the end-of-answer token of its examples."""
    model = yield from frozen.load(recipe.model)
    model.learned_end = learned_end(recipe.data, model.tokenizer)
    return model


def load_model(recipe: Recipe) -> Generator[Progress, None, FrozenModel]:
    """`load_base`. Raises `UserError` if the estimator back-propagates and the model is streamed block by block."""
    model = yield from load_base(recipe)
    if recipe.estimator.backwards:
        gradient.check(model)
    return model


def data_of(
    session: Session, run: RunFolder, uses: Sequence[str] = provenance.SPLITS, accept: bool = False
) -> Generator[Progress | Notice, None, TaskData]:
    """The data of ``run``, read once. Raises `ChangedInputs` if one of the splits in ``uses`` changed since the run
    started, unless ``accept`` is set."""
    table = run.recipe.data.model_dump_json()
    if table not in session.data:
        data = yield from load_data(run.recipe, session.model)
        session.data[table] = data, provenance.of_data(data, run.recipe.data)
    data, found = session.data[table]
    changed = provenance.compare(run, found, (*uses, "template"), accept)
    new = tuple(name for name in changed if name not in session.changed)
    if new:
        session.changed += new
        yield Notice(provenance.marked(new), "warning")
    return data


def load_data(recipe: Recipe, model: FrozenModel) -> Generator[Progress | Notice, None, TaskData]:
    """The recipe's data, encoded for ``model``; yields notices about it."""
    data = yield from load_task(recipe.data, model.tokenizer, model.limits)
    yield from data.notices
    return data
