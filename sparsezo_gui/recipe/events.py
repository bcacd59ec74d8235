"""What a run tells while it goes on, and what can be asked of it. The loop is an iterator of these events.

The window, the command line and the tests consume the same ones. They hold plain numbers and words, never a tensor.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float that is null in JSON where it is not finite."""


def plain(value: Any) -> Any:
    """``value`` with None for NaN and infinity, at any depth, which JSON has no words for."""
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
    """Long work before or between steps: ``done`` of ``total`` (0 when not known) ``unit`` of ``stage``."""

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The loop is about to run ``first`` to ``steps``. Counts are of weights; ``device`` is 'cpu' or a GPU's name."""

    run: str
    name: str
    first: int
    steps: int
    parameters: int
    eligible: int
    tuned: int
    device: str


@dataclass(frozen=True, slots=True)
class Base(Event):
    """Losses of the base model on the run's first batches, nats, against which divergence is judged."""

    losses: list[Number]


@dataclass(frozen=True, slots=True)
class Step(Event):
    """One step: L(θ) (mean of the two sides, nats), slope g, rate, seconds, memory held (bytes), tokens processed.

    Where privacy hides what a batch tells, the loss is NaN and tokens are 0.
    """

    step: int
    loss: float
    slope: float
    rate: float
    seconds: float
    memory_bytes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Evaluation(Event):
    """Metrics (such as accuracy, f1, exact_match, loss, perplexity; counts under 'examples') of one split at one step.

    Step 0 is the base model. ``changed`` names the inputs that were not those of the run any more (see
    `sparsezo_gui.engine.provenance`); such an evaluation is for the user alone, and judges nothing.
    """

    step: int
    split: str
    metrics: dict[str, Number]
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examples(Event):
    """The ``best`` and the ``worst`` examples of an evaluation, by their loss.

    Each is an object with ``number`` (in its split, from 1), ``loss`` (nats), ``prompt`` (its end, where it is long),
    ``expected`` and ``answer`` (what the model chose or wrote; empty where the task has neither).
    """

    step: int
    split: str
    best: list[dict[str, Any]]
    worst: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Example(Event):
    """Example ``number`` (from 1) of ``split`` as the model sees it, of ``tokens`` tokens.

    ``pieces`` are its text, each with whether it is trained; the correct candidate of a choice and the end-of-text
    token belong to it. ``answer`` is the reference, empty for plain text.
    """

    number: int
    split: str
    tokens: int
    pieces: list[tuple[str, bool]]
    answer: str

    def as_json(self) -> dict[str, Any]:
        """With the whole ``text`` and its ``trained`` pieces instead of all pieces."""
        text, trained = "".join(text for text, _ in self.pieces), [text for text, trained in self.pieces if trained]
        known = {"event": "example", "number": self.number, "split": self.split, "tokens": self.tokens}
        return {**known, "text": text, "trained": trained, "answer": self.answer}


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something the user should know, in words; ``level`` is 'info' or 'warning'."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Spent(Event):
    """A private run spent (``epsilon``, ``delta``) on ``steps`` steps, with all it ever took: those that the first
    ``records`` of its journal tell, and those of the runs it branched off from."""

    step: int
    steps: int
    epsilon: float
    delta: float
    records: int


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """The loop waits at a step border: by itself until ``reason`` is over, or, where that is empty, for a command."""

    step: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released(Event):
    """The paused loop let go of the model's memory; it is loaded again when something is asked of it."""

    step: int


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The loop goes on after a pause."""

    step: int


@dataclass(frozen=True, slots=True)
class Returned(Event):
    """The run went back to ``step``; what came after it is kept in the journal, but is not part of its line."""

    step: int


@dataclass(frozen=True, slots=True)
class RateChanged(Event):
    """From the step after ``step`` on, the scheduled learning rate is multiplied by ``factor``."""

    step: int
    factor: float


@dataclass(frozen=True, slots=True)
class Answer(Event):
    """A piece of ``text`` that the model writes in answer to a prompt, as it was after ``step`` (0: the base); of a
    choice, its candidates with their probabilities, one a line."""

    step: int
    text: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The loop ended after ``step``: ``reason`` is 'done', 'early' (it got no better) or 'stopped'. ``hash`` is the
    SHA-256 of the tuned values."""

    step: int
    reason: str
    hash: str


@dataclass(frozen=True, slots=True)
class Command:
    """Base of what can be asked of a running loop; read at step borders, in order."""


@dataclass(frozen=True, slots=True)
class Pause(Command):
    """Wait at the next step border."""


@dataclass(frozen=True, slots=True)
class Resume(Command):
    """Go on after a pause."""


@dataclass(frozen=True, slots=True)
class Stop(Command):
    """End at the next step border; the run can be resumed later."""


@dataclass(frozen=True, slots=True)
class Release(Command):
    """Pause, and let go of the model's memory."""


@dataclass(frozen=True, slots=True)
class GoBack(Command):
    """Go back to ``step`` and go on from there."""

    step: int


@dataclass(frozen=True, slots=True)
class EvaluateNow(Command):
    """Evaluate on a split at the next step border, as the run was after ``step`` (None: as it is)."""

    split: str = "validation"
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Ask(Command):
    """Let the model answer ``prompt`` in at most ``tokens`` tokens, as it was after ``step`` (None: as it is). The
    prompt is made as the run's examples were, or taken as it is, ``raw``."""

    prompt: str
    tokens: int = 128
    step: int | None = None
    raw: bool = False


@dataclass(frozen=True, slots=True)
class SetRate(Command):
    """Multiply the scheduled learning rate by ``factor`` from the next step on."""

    factor: float
