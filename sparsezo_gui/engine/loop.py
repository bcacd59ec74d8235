"""The training loop: an iterator of events that reads from top to bottom, and the commands it obeys between steps.

A run that diverges (see `sparsezo_gui.engine.guard`) is rolled back automatically, as if by command: a return in the
journal to the step where its losses were lowest, with half the learning rate from there on. After `RESCUES` rollbacks
it ends.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import guard as guards
from sparsezo_gui.engine.data import TaskData, finish, task
from sparsezo_gui.engine.data.prompts import encode_prompt
from sparsezo_gui.engine.evaluate import BATCH, evaluate
from sparsezo_gui.engine.generate import reply
from sparsezo_gui.engine.guard import BAD_STEPS, Guard
from sparsezo_gui.engine.objective import count_tokens
from sparsezo_gui.engine.privacy import accounting
from sparsezo_gui.engine.provenance import SPLITS, in_words
from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs import journal as journals
from sparsezo_gui.engine.runs.folder import RunFolder, with_data
from sparsezo_gui.engine.runs.journal import JournalWriter
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session import Session, bring, data_of, loaded, replay
from sparsezo_gui.engine.watch import Watch
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.errors import DiskFull, UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome

Commands = SimpleQueue  # of events.Command
Events = Generator[e.Event, None, None]
RESCUES = 12  # automatic rollbacks; by then the rate is 4096 times lower
POLL = 1.0  # seconds between checks whether the reason to wait is over


@dataclass
class Loop:
    """The loop of one run. Only it holds the model, and it can release it: ``session`` and ``data`` are then None.

    ``paused`` waits for a command, ``waiting`` (a sentence) for a condition to end; ``stopping`` ends the loop.
    """

    run: RunFolder
    commands: Commands
    session: Session | None = None
    data: TaskData | None = None
    paused: bool = False
    waiting: str = ""
    stopping: bool = False
    accept: bool = False  # inputs changed since the run started: it then answers prompts but takes no steps
    _first: int = field(default=0, init=False)  # step at which this loop started
    _postponed: deque[e.Command] = field(default_factory=deque, init=False)
    _bad: int = field(default=0, init=False)  # steps in a row without a finite loss
    _guard: Guard | None = field(default=None, init=False)
    _rescues: int = field(default=0, init=False)  # automatic rollbacks of this loop
    _left: tuple[int, float, str] = field(default=(0, 1.0, ""), init=False)  # step, rate factor and hash, when released

    def load(self, first: bool = False) -> Events:
        """Loads the model, restores its values at the last step, and reads the data.

        At ``first``, skips the replay to the last step if the first command goes back to an earlier one.
        """
        self.run.recipe.privacy.check()
        session = yield from loaded(self.run, self.accept)
        yield from bring(session, self.run, self._asked_back() if first else None)
        data = yield from data_of(session, self.run, accept=self.accept)
        if self.run.facts.data_hash is None and not session.changed:
            inputs = dict(session.data[self.run.recipe.data.model_dump_json()][1])
            self.run = with_data(self.run, inputs.pop("data_hash"), len(data.train), inputs)
            yield from self.record(
                e.Notice(
                    f"The steps up to {self.run.start} were trained on other data, which may include some of these "
                    "validation and test examples.", "warning",
                )
            )  # fmt: skip
        self.session, self.data = session, data
        self._tell_forgotten_returns()
        session.factor = self._factor()

    def _asked_back(self) -> int | None:
        """The step that the first command goes back to, if there is one."""
        with suppress(Empty, UserError):
            command = self._next(False, None)
            self._postponed.appendleft(command)
            if isinstance(command, e.GoBack) and command.step >= self.run.start:
                return lineage_of(self.run, command.step).step
        return None

    @property
    def step(self) -> int:
        """The run's current step."""
        return self.session.step if self.session else self._left[0]

    def __iter__(self) -> Iterator[e.Event]:
        devices.give_back_freed()  # finding the mask leaves some
        facts, recipe = self.run.facts, self.run.recipe
        steps = recipe.loop.steps
        self.watch = Watch(recipe.run.pause_on, self.run.path, self.session.model.device)
        yield e.Started(
            str(self.run.path), self.run.name, self.step + 1, steps, facts.parameters, facts.eligible, facts.tuned,
            facts.device,
        )  # fmt: skip
        with JournalWriter(self.run.journal, self.run.header) as self.journal:
            before, reason, self._first = self.journal.count, "done", self.step
            # Steps lost from a damaged journal are taken again; checkpoints of the lost ones must not be used for them.
            checkpoints.thin(self.run.path, self.journal, recipe.run.checkpoints * 2**20)
            while self.step < steps or self.paused or not self._idle:
                yield from self.handle_commands()
                if self.stopping:
                    reason = "stopped"
                if self.stopping or self.step >= steps:
                    break
                if (yield from self._judged()):
                    reason = "early"
                    break
                yield from self._watch_over()
                yield from self.take_step()
                if (yield from self._rescued()):
                    if self._rescues < RESCUES:
                        continue
                    reason = "early"
                    break
                if self.step % checkpoints.spacing(facts.tuned, recipe.estimator.exact) == 0:
                    yield from self.keep_checkpoint()
            if reason != "stopped":
                yield from self._evaluate_end()
            if self.session:
                yield from self.keep_checkpoint()
            yield from self._finish(reason, news=self.journal.count > before)

    def take_step(self) -> Events:
        """One step: draw directions, run all forward passes on the same batch, update, record."""
        started = time.perf_counter()
        session, recipe = self.session, self.session.recipe
        number, private = session.step + 1, recipe.privacy.private
        batch, tokens = session.choose(self.data.train.encoded)
        rate = recipe.update.rate(number, recipe.loop.steps) * session.factor
        directions = session.directions()
        found = session.estimate(batch, directions, rate)
        # Non-finite scalars must not reach the values; recorded zeros make the replay skip the step too.
        recorded, exact = found.recorded, found.exact
        finite = all(map(math.isfinite, recorded)) and (exact is None or bool(exact.isfinite().all()))
        if not finite:
            recorded, exact = (0.0,) * len(recorded), None
        session.advance(directions, recorded, rate, exact)
        # The number of tokens of a private batch would reveal its examples, as its loss would.
        passes = recipe.estimator.forward_passes + recipe.update.forward_passes
        tokens = 0 if private else tokens + sum(map(count_tokens, batch)) * passes
        memory, seconds = devices.memory_used(session.model.device), time.perf_counter() - started
        yield from self._written(
            lambda: self.journal.append(
                step=number, tokens=tokens, loss=found.loss, rate=rate, seconds=seconds, memory=memory, values=recorded
            )
        )
        yield e.Step(number, found.loss, recorded[0], rate, seconds, memory, tokens)
        self._bad = 0 if private or (finite and math.isfinite(found.loss)) else self._bad + 1
        if self._bad:
            what = "gradient" if math.isfinite(found.loss) else "loss"
            yield from self.record(e.Notice(f"Step {number} had no finite {what} and was skipped.", "warning"))
        if self._guard:
            self._guard.saw(number, found.loss, recorded)

    # Divergence

    def _watch_over(self) -> Events:
        """Makes the guard, from the base model's losses and the steps of the run's lineage."""
        recipe = self.session.recipe
        if self._guard or not recipe.loop.guard or recipe.privacy.private:  # which hides the losses
            return
        if not self._base():
            yield from self._measure_base(guards.BATCHES)
        self._guard = Guard(self._base(), self.run.start)
        for record in journals.read(self.run.journal).steps:
            self._guard.saw(int(record["step"]), float(record["loss"]), record["values"].tolist())

    def _base(self) -> list[float]:
        """The base model's losses on the run's first batches, as far as measured."""
        return next((event.losses for event in reversed(self.run.events()) if isinstance(event, e.Base)), [])

    def _measure_base(self, count: int) -> Events:
        """Measures the base model on the run's first ``count`` batches, unless already done."""
        session, losses = self.session, self._base()
        for number in range(len(losses), count):
            yield e.Progress("Measuring the base model", number, count, "batches")
            batch = shuffled_batch(session.recipe.loop, number + 1, self.data.train.encoded)
            compared = session.base(batch)
            with session.tuned.base(), torch.no_grad():
                found = session.recipe.objective.measure(session.model, batch, base=compared)
            losses.append(found.loss.item())
        yield from self.record(e.Base(losses))

    def _rescued(self) -> Generator[e.Event, None, bool]:
        """Whether the run diverged and was rolled back. Raises `UserError` if no step has a finite loss."""
        trouble = self._guard.trouble if self._guard else ""
        if trouble and len(self._base()) < guards.SURE:
            yield from self._measure_base(guards.SURE)
            self._guard = None
            yield from self._watch_over()
            trouble = self._guard.trouble
        if not trouble:
            if self._bad == BAD_STEPS:
                raise UserError(
                    f"The loss or gradient was not finite for {BAD_STEPS} steps in a row. Lower epsilon or the "
                    "learning rate, or use more bits for the model. All earlier steps are kept."
                )
            return False
        back, factor = self._guard.best, self.session.factor / 2
        self._rescues += 1
        does = f"The run returns to step {back} and continues with half the learning rate."
        if self._rescues == RESCUES:
            does = (
                f"Halving the rate {RESCUES} times did not help: the run returns to step {back} and ends there. Start "
                "a new one with a lower learning rate, which 'sparsezo rates' finds, or with a lower epsilon."
            )
        yield from self.record(e.Notice(f"{trouble} {does}", "warning"))
        yield from self._return(back)
        self.session.factor, self._bad = factor, 0
        yield from self.record(e.RateChanged(back, factor))
        return True

    def evaluate(self, *splits: str) -> Events:
        """Metrics on each split that has examples, and its best and worst examples."""
        step = self.step
        for split in splits:
            examples = getattr(self.data, split).encoded
            if examples:
                session = self.session
                base = session.base(examples, BATCH)
                with session.tuned.applied():
                    found = yield from evaluate(session.model, examples, split, session.recipe.objective, base)
                changed = tuple(name for name in session.changed if name == split or name not in SPLITS)
                metric = task(session.recipe.data.task).metric
                yield from self.record(e.Evaluation(step, split, found.metrics, changed, metric))
                yield from self.record(e.Examples(step, split, found.best, found.worst))

    def _judged(self) -> Generator[e.Event, None, bool]:
        """Evaluates at the start and at the evaluation interval, also if a run was interrupted before it did; returns
        whether the run has stopped improving."""
        every = self.session.recipe.loop.evaluate_every
        if self.step == 0:
            yield from self._evaluate_untold("validation", "test")
        elif every and self.step % every == 0 and self.step > self.run.start:
            yield from self._evaluate_untold("validation")
            return (yield from self._no_better())
        return False

    def _evaluate_untold(self, *splits: str) -> Events:
        """Metrics on ``splits`` that are not recorded yet."""
        events = outcome.on_lineage(self.run.events())
        told = {event.split for event in outcome.evaluations(events) if event.step == self.step}
        yield from self.evaluate(*(split for split in splits if split not in told))

    def _evaluate_end(self) -> Events:
        """The final metrics, unless already recorded, and the best step."""
        yield from self._evaluate_untold("validation", "test")
        best = outcome.best(outcome.on_lineage(self.run.events()))
        if best is not None and best.step != self.step:
            yield from self.record(
                e.Notice(f"Step {best.step} was best on the validation examples; it can be evaluated and exported too.")
            )

    def _no_better(self) -> Generator[e.Event, None, bool]:
        """Whether the run has not improved for as many evaluations as its recipe allows."""
        loop, events = self.session.recipe.loop, outcome.on_lineage(self.run.events())
        if not loop.patience or outcome.stale(events, self._first, loop.evaluate_every) < loop.patience:
            return False
        best = outcome.best(events)
        than = f"were no better than that of step {best.step}" if best else "had no finite loss"
        yield from self.record(
            e.Notice(
                f"The last {loop.patience} evaluations {than}, so the run ended {loop.steps - self.step} steps early. "
                "It can still be resumed."
            )
        )
        return True

    def keep_checkpoint(self) -> Events:
        """Saves a checkpoint of the current values. If it cannot be written, this only costs time later."""
        session, budget = self.session, self.session.recipe.run.checkpoints * 2**20
        tuned = session.tuned
        needed = checkpoints.usual_bytes(tuned.values, session.recipe.state_vectors)
        if needed > budget or session.step == self.run.start:
            return
        try:
            self.journal.sync()
            checkpoints.write(
                self.run.path, session.step, self.journal.count, tuned.start, tuned.values, session.state,
                tuned.mask.hash, self.journal.hash,
            )  # fmt: skip
            checkpoints.thin(self.run.path, self.journal, budget)
        except UserError as error:
            yield e.Notice(f"No checkpoint was saved at step {session.step}: {error}", "warning")

    def _finish(self, reason: str, news: bool) -> Events:
        """The end; a run without new steps keeps its earlier reason for ending."""
        hash = self.session.tuned.hash() if self.session else self._left[2]
        end = e.Finished(self.step, reason, hash)
        if news or not any(isinstance(event, e.Finished) for event in self.run.events()):
            yield from self._tell_spent()
            yield from self.record(end)
        else:
            yield end

    def _tell_spent(self) -> Events:
        spent = accounting.spent(self.run)
        if spent is None:
            return
        yield from self.record(
            e.Notice(f"Privacy of the examples after {spent.steps:,} steps, including those rolled back: {spent}.")
        )
        if math.isfinite(spent.epsilon):
            yield from self.record(e.Spent(self.step, spent.steps, spent.epsilon, spent.delta, spent.records))

    def _tell_forgotten_returns(self) -> None:
        """A crash can happen after a return was journalled and before its event was recorded."""
        if not self.run.journal.exists():
            return
        told = sum(isinstance(event, e.Returned) for event in self.run.events())
        for _, step in journals.read(self.run.journal).returns[told:]:
            self.run.record(e.Returned(step))

    # Commands

    def handle_commands(self) -> Events:
        """Executes the commands in order; stays here while the loop is paused or waits."""
        if self.paused and not self._postponed:
            yield e.Paused(self.step)
        while not self.stopping:
            yield from self._look()
            try:
                command = self._next(self.paused or bool(self.waiting), None if self.paused else POLL)
            except Empty:
                if not self.waiting:
                    return
                yield e.Progress(f"Waiting: {self.waiting}")
                continue
            yield from self._do(command)
            # Repeated before each wait, so that the consumer knows that nothing comes before the next command.
            waits = not self._postponed and (isinstance(command, e.Pause) or self._idle)
            if self.paused and not self.stopping and waits:
                yield e.Paused(self.step) if self.session else e.Released(self.step)

    def _look(self) -> Events:
        """Starts to wait if there is a reason to, and continues once it is over."""
        reason = self.watch.reason()
        if reason and not self.waiting:
            self.journal.sync()
            yield e.Notice(f"The run waits: {reason}.", "warning")
            yield e.Paused(self.step, reason)
        elif self.waiting and not reason and not self.paused:
            yield e.Resumed(self.step)
        self.waiting = reason

    def _do(self, command: e.Command) -> Events:
        try:
            match command:
                case e.Stop():
                    self.stopping = True
                case e.Pause():
                    self.paused = True
                    self.journal.sync()
                case e.Release():
                    self.paused = True
                    yield from self._release()
                case e.Resume() if self.paused or self.waiting:
                    yield from self._reload()
                    self._refuse_changed()
                    self.paused, self.waiting = False, ""
                    self.watch.snooze()
                    yield e.Resumed(self.step)
                case e.EvaluateNow(split, step):
                    yield from self._at(step, lambda: self._evaluate_asked(split))
                case e.Ask():
                    yield from self._at(command.step, lambda: self._answer(command))
                case e.GoBack(step):
                    yield from self._reload()
                    self._refuse_changed()
                    yield from self._go_back(step)
                case e.SetRate(factor):
                    yield from self._reload()
                    self._refuse_changed()
                    self.session.factor *= factor
                    yield from self.record(e.RateChanged(self.step, self.session.factor))
                    now = f"The learning rate is now {self.session.factor:g} × the scheduled one."
                    yield from self.record(e.Notice(now))
        except Exception as error:
            # The command failed; the run itself is fine. A prompt may contain anything.
            if isinstance(command, e.Resume) or (not isinstance(error, UserError) and not isinstance(command, e.Ask)):
                raise
            text = str(error) if isinstance(error, UserError) else f"The model could not answer ({error})."
            yield e.Notice(text, "warning")
            if isinstance(command, e.Ask):
                yield e.Answer(self.step, text, last=True)

    def _refuse_changed(self) -> None:
        if self.session.changed:
            raise UserError(
                f"Since the run started, {in_words(self.session.changed)} changed, so you can only ask and evaluate it."
                " To resume it, restore what was there; or start a new run."
            )

    def _release(self) -> Events:
        """Releases the model's memory. What is not in the journal is kept here."""
        if self.session is None:
            return
        yield from self.keep_checkpoint()
        self._left = (self.session.step, self.session.factor, self.session.tuned.hash())
        self.session = self.data = None
        devices.give_back_freed()
        if not self._idle:
            yield e.Released(self.step)

    def _reload(self) -> Events:
        if self.session is None:
            yield from self.load()
            self.session.factor = self._left[1]

    def _at(self, step: int | None, work: Callable[[], Events]) -> Events:
        """Does ``work`` with the values after ``step``, and then restores the current ones."""
        yield from self._reload()
        session = self.session
        if step is None or step == session.step:
            yield from work()
            return
        if session.tuned.mask.space == "dense":  # a copy of the values would be another model in memory
            yield from self.keep_checkpoint()
            keep, factor = None, session.factor
        else:
            keep = session.recipe, session.step, session.state, session.factor, session.tuned.values.clone()
        try:
            yield from replay(session, lineage_of(self.run, step))
            yield from work()
        finally:
            if keep is None:
                finish(replay(session, lineage_of(self.run)))
                session.factor = factor
            else:
                session.recipe, session.step, session.state, session.factor, values = keep
                session.tuned.values.copy_(values)

    def _evaluate_asked(self, split: str) -> Events:
        if not getattr(self.data, split).encoded:
            raise UserError(f"There are no {split} examples to evaluate on.")
        yield from self.evaluate(split)

    def _answer(self, command: e.Ask) -> Events:
        session = self.session
        known = session.recipe.data, session.model.tokenizer
        question = encode_prompt(*known, command.prompt, self.data.answers, command.raw)
        with session.tuned.applied():
            for piece in reply(session.model, question, command.tokens):
                yield e.Answer(session.step, piece)
        yield e.Answer(session.step, "", last=True)

    def _go_back(self, step: int) -> Events:
        if step < self.run.start:
            raise UserError(
                f"Run '{self.run.name}' branched off at step {self.run.start}, so it cannot return to step "
                f"{step}. Branch from its parent run at that step."
            )
        lineage_of(self.run, step)  # raises if there is no such step
        yield from self._return(step)
        self.session.factor = self._factor()
        if self.session.factor != 1.0:
            yield e.Notice(f"The learning rate is {self.session.factor:g} × the scheduled one, as it was then.")

    def _return(self, step: int) -> Events:
        """Returns values and journal to ``step``; the guard and early stopping restart with the remaining steps."""
        yield from self._written(lambda: self.journal.go_back(step))
        self._guard = None
        yield from replay(self.session, lineage_of(self.run))
        yield from self.record(e.Returned(step))

    def _factor(self) -> float:
        """Factor on the scheduled rate: as last changed on the run's lineage."""
        changed = [event for event in outcome.on_lineage(self.run.events()) if isinstance(event, e.RateChanged)]
        return changed[-1].factor if changed else self.session.factor

    # Writing

    def record(self, event: e.Event) -> Events:
        """Writes an event to the run's folder and yields it."""
        yield from self._written(lambda: self.run.record(event))
        yield event

    def _written(self, write: Callable[[], None]) -> Events:
        """Calls ``write``; on a full disk, retries until there is space if the recipe says so.

        Raises `UserError` otherwise, and if stopped meanwhile: what could not be written is then lost, at most one
        step.
        """
        waited = False
        while True:
            try:
                write()
                break
            except DiskFull as error:
                if "disk" not in self.run.recipe.run.pause_on:
                    raise
                if not waited:
                    waited = True
                    yield e.Notice(f"The run waits for disk space: {error}", "warning")
                    yield e.Paused(self.step, "the disk is full")
                if self._stop_asked():
                    raise
                yield e.Progress("Waiting: the disk is full")
        if waited:
            yield e.Resumed(self.step)

    def _stop_asked(self) -> bool:
        """Waits a moment for the command to stop; other commands are executed later, in order."""
        try:
            command = self.commands.get(timeout=POLL)
        except Empty:
            return False
        self.stopping = isinstance(command, e.Stop)
        if not self.stopping:
            self._postponed.append(command)
        return self.stopping

    @property
    def _idle(self) -> bool:
        """Whether no command is pending."""
        return not self._postponed and self.commands.empty()

    def _next(self, block: bool, timeout: float | None) -> e.Command:
        """The next command. Raises Empty."""
        return self._postponed.popleft() if self._postponed else self.commands.get(block, timeout)
