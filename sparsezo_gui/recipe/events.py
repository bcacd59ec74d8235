"""Events that a running loop emits, and the `commands` that it takes. The loop is an iterator of these events.

The window, the command line and the tests consume the same ones. They carry plain numbers and strings, never tensors.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from sparsezo_gui.recipe.commands import Ask as Ask
from sparsezo_gui.recipe.commands import Command as Command
from sparsezo_gui.recipe.commands import EvaluateNow as EvaluateNow
from sparsezo_gui.recipe.commands import GoBack as GoBack
from sparsezo_gui.recipe.commands import Pause as Pause
from sparsezo_gui.recipe.commands import Release as Release
from sparsezo_gui.recipe.commands import Resume as Resume
from sparsezo_gui.recipe.commands import SetRate as SetRate
from sparsezo_gui.recipe.commands import Stop as Stop
from sparsezo_gui.recipe.commands import StopAnswer as StopAnswer

ZERO = 0.0005  # a relative change that rounds to 0.0 %
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float; NaN and infinity are null in JSON."""


def plain(value: Any) -> Any:
    """``value`` with None for NaN and infinity at any depth, since JSON cannot represent them."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    def as_json(self) -> dict[str, Any]:
        """Plain object, the event's name first: ``{"event": "step", "step": 1, …}``; see `plain`."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()
        return {"event": name, **plain(dataclasses.asdict(self))}


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Progress of long work outside the steps: ``done`` of ``total`` (0: unknown) ``unit`` in ``stage``."""

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Preparing(Event):
    """The folder ``run`` of a new run exists; from here on, resuming it does what is missing up to its first step."""

    run: str
    name: str


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The loop is about to run steps ``first`` to ``steps``. Counts are weights; ``device`` is 'cpu' or a GPU name."""

    run: str
    name: str
    first: int
    steps: int
    parameters: int
    eligible: int
    tuned: int
    device: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A short run at ``rate``: its training ``losses``, and the ``loss`` on held-out training examples after it (NaN:
    diverged); all in nats."""

    rate: float
    loss: Number
    losses: list[Number]


@dataclass(frozen=True, slots=True)
class RateFound(Event):
    """The learning ``rate`` that the run found before its first step, by ``trials`` that took ``passes`` forward passes
    of a batch (with those on general text, by tokens) and ``seconds``; ``base`` is the initial loss on the held-out
    examples."""

    rate: float
    base: Number
    passes: int
    seconds: float
    trials: list[Trial]


@dataclass(frozen=True, slots=True)
class Base(Event):
    """Losses of the base model on the run's first batches, nats; the reference for detecting divergence."""

    losses: list[Number]


@dataclass(frozen=True, slots=True)
class Step(Event):
    """One step: loss L(θ) (mean of the two forward passes, nats), projected gradient g, learning rate, seconds,
    memory in use (bytes), tokens processed.

    In a private run, the loss is NaN and tokens are 0.
    """

    step: int
    loss: float
    projected_gradient: float
    rate: float
    seconds: float
    memory_bytes: int
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """With the projected gradient also under its old name, ``slope``."""
        known = Event.as_json(self)
        return {**known, "slope": known["projected_gradient"]}


@dataclass(frozen=True, slots=True)
class Evaluation(Event):
    """Metrics (such as accuracy, f1, exact_match, loss, perplexity; counts under 'examples') of one split at one step.

    Step 0 is the base model. A ``partial`` evaluation is on the first examples of the split only, to show something
    soon; it is never compared with others. ``changed`` names the inputs that have changed since the run started (see
    `sparsezo_gui.engine.provenance`); such an evaluation is only shown, and never decides which step is best.
    ``metric`` is the task's metric, which decides that; evaluations of earlier versions do not name it.
    """

    step: int
    split: str
    metrics: dict[str, Number]
    changed: tuple[str, ...] = ()
    metric: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Examples(Event):
    """The ``best`` and ``worst`` examples of an evaluation, by loss, and those whose answer ``changed``.

    Each is an object with ``number`` (in its split, from 1), ``loss`` (nats), ``prompt`` (only its end if it is long),
    ``expected`` and ``answer`` (what the model chose or wrote; empty if the task has neither); changed ones also have
    ``before``, the base model's answer, if that is known.
    """

    step: int
    split: str
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    changed: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Example(Event):
    """Example ``number`` (from 1) of ``split`` as the model sees it, of ``tokens`` tokens.

    ``pieces`` are parts of its text, each with a flag that says whether it is trained; they include the correct
    candidate of a choice and the end-of-text token. ``answer`` is the reference, empty for plain text.
    """

    number: int
    split: str
    tokens: int
    pieces: list[tuple[str, bool]]
    answer: str

    def as_json(self) -> dict[str, Any]:
        """With the full ``text`` and the ``trained`` pieces instead of all pieces."""
        text, trained = "".join(text for text, _ in self.pieces), [text for text, trained in self.pieces if trained]
        known = {"event": "example", "number": self.number, "split": self.split, "tokens": self.tokens}
        return {**known, "text": text, "trained": trained, "answer": self.answer}


@dataclass(frozen=True, slots=True)
class GeneralText(Event):
    """Perplexity on ``tokens`` tokens of general text, of the ``base`` model and ``tuned`` for ``step`` steps."""

    step: int
    tokens: int
    base: Number
    tuned: Number

    @property
    def increase(self) -> float:
        """By what share tuning raised it; negative if it fell."""
        return self.tuned / self.base - 1

    def __str__(self) -> str:
        before, after = (f"{each:,.0f}" if each >= 1000 else f"{each:.4g}" for each in (self.base, self.tuned))
        times = self.increase + 1
        percent = "0.0 %" if abs(self.increase) < ZERO else f"{100 * self.increase:+.1f} %"
        change = f"{times:,.0f} times as high" if times >= 10 else percent
        return f"{before} before, {after} after ({change})"


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """A message for the user; ``level`` is 'info' or 'warning', ``step`` the last one before it (0: unknown)."""

    text: str
    level: str = "info"
    step: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Spent(Event):
    """Privacy budget (``epsilon``, ``delta``) of all ``steps`` that a private run ever took: those in the first
    ``records`` of its journal, and those of the runs it branched from."""

    step: int
    steps: int
    epsilon: float
    delta: float
    records: int


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The loop waits between two steps: until ``reason`` has passed, or, if that is empty, for a command."""

    step: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released(Event):
    """The paused loop released the model's memory; the model is reloaded when it is needed."""

    step: int


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The loop resumes after a pause."""

    step: int


@dataclass(frozen=True, slots=True)
class Returned(Event):
    """The run went back to ``step``; later steps stay in the journal, but are not part of its lineage any more."""

    step: int


@dataclass(frozen=True, slots=True)
class RateChanged(Event):
    """After ``step``, the scheduled learning rate is multiplied by ``factor``."""

    step: int
    factor: float


@dataclass(frozen=True, slots=True)
class Answer(Event):
    """A piece of the ``text`` that the model as of ``step`` (0: the base model) writes in answer to a prompt. For a
    choice, the candidates with their probabilities, one per line."""

    step: int
    text: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The loop ended after ``step``: ``reason`` is 'done', 'early' (early stopping) or 'stopped'. ``hash`` is the
    SHA-256 of the tuned values."""

    step: int
    reason: str
    hash: str
