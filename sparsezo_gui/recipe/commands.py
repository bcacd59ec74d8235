"""Commands to a running loop, which arrive in a queue from any thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands to a running loop, which reads them between steps, in order."""


@dataclass(frozen=True, slots=True)
class Pause(Command):
    """Wait after the current step."""


@dataclass(frozen=True, slots=True)
class Resume(Command):
    """Resume after a pause."""


@dataclass(frozen=True, slots=True)
class Stop(Command):
    """Stop after the current step; the run can be resumed later."""


@dataclass(frozen=True, slots=True)
class Release(Command):
    """Pause, and release the model's memory."""


@dataclass(frozen=True, slots=True)
class GoBack(Command):
    """Go back to ``step`` and continue from there."""

    step: int


@dataclass(frozen=True, slots=True)
class EvaluateNow(Command):
    """Evaluate on a split after the current step, the run as of ``step`` (None: now)."""

    split: str = "validation"
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Ask(Command):
    """Let the model as of ``step`` (None: now) answer ``prompt`` in at most ``tokens`` tokens. The prompt goes through
    the run's template, or is used as it is if ``raw``.

    ``temperature`` is that of sampling, with ``seed``; 0 takes the likeliest token. In a chat, ``system`` and earlier
    ``turns`` (what the user said, what the model answered) come before the prompt; other tasks have neither.
    """

    prompt: str
    tokens: int = 128
    step: int | None = None
    raw: bool = False
    temperature: float = 0.0
    seed: int = 0
    system: str = ""
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StopAnswer(Command):
    """End the answer that is being written; prompts that were sent before this are not answered."""


@dataclass(frozen=True, slots=True)
class SetRate(Command):
    """Multiply the scheduled learning rate by ``factor`` from the next step on."""

    factor: float
