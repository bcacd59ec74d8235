"""The training loop: an iterator of events that reads from top to bottom.

``train`` and ``resume`` yield events (see `sparsezo_gui.recipe.events`) until the run is done, stopped or fails.
Commands come in through one queue and are read at step borders. Closing the iterator stops at once; what the journal
holds stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.models import device as devices
from sparsezo_gui.engine.models import frozen
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.planning import formula
from sparsezo_gui.engine.runs import folder as folders
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.journal import JournalWriter
from sparsezo_gui.engine.session import Session, data_hash, load_data, open_session
from sparsezo_gui.engine.sparse.overlay import Overlay
from sparsezo_gui.engine.sparse.rule import Search, find_measured
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.batches import batch_indices
from sparsezo_gui.engine.zo.generator import GENERATOR
from sparsezo_gui.engine.zo.noise import settle
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e

Commands = SimpleQueue  # of events.Command
DIRECTIONS_PROBED = 2  # along which rounding is looked for, of step 0, which the loop does not take
BAD_STEPS = 10  # steps in a row without a finite loss, after which the run gives up


def train(recipe: Recipe, commands: Commands | None = None, folder: Path | None = None) -> Iterator[e.Event]:
    """Starts a new run of ``recipe`` in ``folder`` (None: where the recipe says). Raises `UserError`."""
    path = folder or folders.new_path(recipe)
    folders.prepare(path)
    try:
        with folders.locked(path):
            model = yield from frozen.load(recipe.model)
            data = yield from load_data(recipe, model)
            mask, cost = yield from find_measured(recipe.mask, model, Search(recipe.loop.seed, recipe.data))
            if recipe.mask.cost():
                yield e.Notice(f"Finding the mask took {cost.seconds:.0f} s and at most {cost.bytes / 2**20:,.0f} MiB.")
            session = Session(recipe, model, Overlay(model, mask), state=recipe.update.start(mask.size))
            mask.save(path / "mask.safetensors")
            model.pack_rows = formula(recipe, model.anatomy, data.train.encoded).rows
            if model.rounds:
                yield from _settle_epsilon(session, data)
            run = folders.create(path, session.recipe, _facts(session, data))
            yield from _Loop(session, data, run, commands or SimpleQueue())
    finally:
        _remove_if_no_run(path)


def _settle_epsilon(session: Session, data: TaskData) -> Iterator[e.Event]:
    """Raises ε where the numbers that the model computes in are too coarse for it, and says so."""
    recipe, examples = session.recipe, data.train.encoded
    epsilon = getattr(recipe.estimator, "epsilon", None)
    if epsilon is None:
        return
    yield e.Progress("Looking for rounding in the loss")
    batch = [examples[i] for i in batch_indices(recipe.loop.seed, 1, recipe.loop.batch_size, len(examples))]
    values = session.overlay.values
    z = generator.directions(recipe.loop.seed, 0, DIRECTIONS_PROBED, values.numel(), values.device)
    noise = settle(values, z, epsilon, session.losses_on(batch))
    if noise.epsilon != epsilon:
        estimator = recipe.estimator.model_copy(update={"epsilon": noise.epsilon})
        session.recipe = recipe.model_copy(update={"estimator": estimator})
        yield e.Notice(f"Epsilon was raised from {epsilon:g} to {noise.epsilon:g}: with less, differences of the loss "
                       f"could not be told from rounding.")  # fmt: skip
    if not noise.clear:
        yield e.Notice(
            f"Differences of the loss ({noise.difference:.1e}) are not clear of its rounding ({noise.rounding:.1e}): "
            "the run may learn slowly. Set [model] compute = 'float32', or tune more weights.", "warning",
        )  # fmt: skip


def resume(folder: str | Path, commands: Commands | None = None) -> Iterator[e.Event]:
    """Goes on with the run in ``folder`` after its last recorded step. Raises `UserError`."""
    run = folders.open_run(folder)
    with folders.locked(run.path):
        session = yield from open_session(run)
        # Fewer rows at once give other last bits, so that a run keeps to what it began with.
        session.model.pack_rows = run.facts.get("pack_rows", session.model.pack_rows)
        data = yield from load_data(session.recipe, session.model)
        if run.facts.get("data_hash") != data_hash(data.train.encoded):
            raise UserError(
                f"{session.recipe.data.source}: the training examples are not those that run '{run.name}' began "
                "with. Bring the data back, or start a new run."
            )
        yield from _Loop(session, data, run, commands or SimpleQueue())


def _facts(session: Session, data: TaskData) -> dict:
    anatomy = session.model.anatomy
    return {
        "model": session.model.source.id,
        "revision": session.model.source.revision,
        "fingerprint": session.model.fingerprint,
        "generator": GENERATOR,
        "mask_hash": session.overlay.mask.hash,
        "data_hash": data_hash(data.train.encoded),
        "parameters": anatomy.parameters,
        "eligible": anatomy.eligible,
        "tuned": session.overlay.mask.size,
        "pack_rows": session.model.pack_rows,
        "device": devices.name(session.model.device),
    }


def _remove_if_no_run(path: Path) -> None:
    """A start that was cancelled or failed leaves nothing behind."""
    if not (path / "run.json").exists():
        for name in ("mask.safetensors", "recipe.toml", "lock"):
            (path / name).unlink(missing_ok=True)
        try:
            path.rmdir()
        except OSError:
            return  # something else is in it, which is not ours to remove


@dataclass
class _Loop:
    """The loop of one run; ``stopping`` is set by the Stop command."""

    session: Session
    data: TaskData
    run: RunFolder
    commands: Commands
    stopping: bool = False

    def __iter__(self) -> Iterator[e.Event]:
        devices.give_back_freed()  # finding the mask leaves some
        session, recipe, facts = self.session, self.session.recipe, self.run.facts
        steps, every, bad = recipe.loop.steps, recipe.loop.evaluate_every, 0
        yield e.Started(
            str(self.run.path), self.run.name, session.step + 1, steps,
            facts["parameters"], facts["eligible"], facts["tuned"], facts["device"],
        )  # fmt: skip
        if session.step == 0:
            yield from self.evaluate("validation", "test")
        with JournalWriter(self.run.journal, recipe.estimator.directions) as journal:
            while session.step < steps:
                yield from self.obey(journal)
                if self.stopping:
                    break
                step = self.step(journal)
                yield step
                bad = 0 if math.isfinite(step.loss) else bad + 1
                if bad:
                    yield self.told(e.Notice(f"Step {step.step} had no finite loss and was skipped.", "warning"))
                if bad == BAD_STEPS:
                    raise UserError(
                        f"The loss was not a finite number {BAD_STEPS} steps in a row. Lower epsilon or the "
                        "learning rate, or hold the model in more bits. All steps before are kept."
                    )
                if every and step.step % every == 0 and step.step < steps:
                    yield from self.evaluate("validation")
        if not self.stopping:
            yield from self.evaluate("validation", "test")
        yield self.told(e.Finished(session.step, "stopped" if self.stopping else "done", session.overlay.hash()))

    def step(self, journal: JournalWriter) -> e.Step:
        """One step: draw directions, measure all sides on the same batch, move, record."""
        started = time.perf_counter()
        session, recipe = self.session, self.session.recipe
        number, loop, examples = session.step + 1, recipe.loop, self.data.train.encoded
        batch = [examples[i] for i in batch_indices(loop.seed, number, loop.batch_size, len(examples))]
        directions = session.directions()
        found = session.estimate(batch, directions)
        # A slope that is not finite must not reach the values; a recorded zero makes the replay skip it too.
        slopes = found.slopes if all(map(math.isfinite, found.slopes)) else (0.0,) * len(found.slopes)
        rate = recipe.update.rate(number, loop.steps) * session.factor
        session.advance(directions, slopes, rate)
        tokens = sum(map(count_tokens, batch)) * recipe.estimator.sides
        memory, seconds = devices.memory_used(session.model.device), time.perf_counter() - started
        journal.append(
            step=number, tokens=tokens, loss=found.loss, rate=rate, seconds=seconds, memory=memory, slopes=slopes
        )
        return e.Step(number, found.loss, slopes[0], rate, seconds, memory, tokens)

    def evaluate(self, *splits: str) -> Generator[e.Event, None, None]:
        """Metrics on each split that has examples."""
        for split in splits:
            examples = getattr(self.data, split).encoded
            if examples:
                with self.session.overlay.applied():
                    metrics = yield from evaluate(self.session.model, examples, split)
                yield self.told(e.Evaluation(self.session.step, split, metrics))

    def obey(self, journal: JournalWriter) -> Generator[e.Event, None, None]:
        """Does what the commands ask for, in order; after a pause it waits for the next one."""
        paused = False
        while not self.stopping:
            try:
                command = self.commands.get(block=paused)
            except Empty:
                return
            match command:
                case e.Pause() if not paused:
                    paused = True
                    journal.sync()
                    yield e.Paused(self.session.step)
                case e.Resume() if paused:
                    paused = False
                    yield e.Resumed(self.session.step)
                case e.Stop():
                    self.stopping = True
                case e.EvaluateNow():
                    yield from self.evaluate("validation")
                case e.SetRate(factor):
                    self.session.factor *= factor
                    yield self.told(e.Notice(f"The learning rate is now {self.session.factor:g} × the scheduled one."))

    def told(self, event: e.Event) -> e.Event:
        """Writes an event to the run's folder and gives it back."""
        self.run.tell(event)
        return event
