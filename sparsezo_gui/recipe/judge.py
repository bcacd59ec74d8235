"""What a run's events say about it: which of them still count, and which step did best."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from sparsezo_gui.recipe.events import Base, Evaluation, Event, Examples, Finished, Notice, RateChanged, Returned, Spent

_KEPT = {
    name: TypeAdapter(kind)
    for name, kind in {
        "evaluation": Evaluation, "examples": Examples, "notice": Notice, "returned": Returned, "finished": Finished,
        "rate-changed": RateChanged, "spent": Spent, "base": Base,
    }.items()
}  # fmt: skip
HIGHER = ("accuracy", "exact_match", "f1")  # the first of them that was measured judges; the loss decides ties


def event_of(line: str) -> Event | None:
    """The event that a line of ``events.jsonl`` holds; None for a torn or unknown one."""
    try:
        fields = json.loads(line)
        return _KEPT[fields.pop("event")].validate_python(fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def on_line(events: Iterable[Event]) -> list[Event]:
    """Those that still count: where a run went back to a step, what was measured after that step does not."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Returned):
            kept = [each for each in kept if getattr(each, "step", 0) <= event.step]
        kept.append(event)
    return kept


def evaluations(events: Iterable[Event]) -> list[Evaluation]:
    """Those on what the run began with."""
    return [event for event in events if isinstance(event, Evaluation) and not event.changed]


def score(evaluation: Evaluation) -> tuple[float, float]:
    """A larger one is better: the metric that judges, then the loss."""
    metrics = evaluation.metrics
    judging = next((metrics[name] for name in HIGHER if name in metrics), 0.0)
    return judging, -metrics.get("loss", float("inf"))


def best(events: Iterable[Event], split: str = "validation") -> Evaluation | None:
    """The best evaluation on ``split`` after the first step; of equal ones the earliest. None had a loss that is not
    finite, with which a model answers anything."""
    found = [event for event in evaluations(events) if event.split == split and event.step > 0 and sound(event)]
    return max(found, key=score, default=None)


def sound(evaluation: Evaluation) -> bool:
    """Whether its metrics say anything."""
    return math.isfinite(evaluation.metrics.get("loss", 0.0))


def stale(events: Sequence[Event], first: int, every: int) -> int:
    """Steps since the best one and after ``first`` at which the validation examples were due, once ``every`` steps."""
    top = best(events)
    since = max(first, top.step) if top is not None else first
    judged = {event.step for event in evaluations(events) if event.split == "validation"}
    return sum(step > since and step % every == 0 for step in judged)


def last_metrics(events: Iterable[Event]) -> dict[str, float]:
    """Metrics of the last step that was evaluated, on the test examples where there are any."""
    last = max(evaluations(events), key=lambda event: (event.step, event.split == "test"), default=None)
    return last.metrics if last else {}


def spent(events: Iterable[Event], records: int) -> Spent | None:
    """What was told last of a private run's budget, where nothing was spent since: its journal has ``records``."""
    found = [event for event in events if isinstance(event, Spent)]
    return found[-1] if found and found[-1].records == records else None


def ended_early(events: Iterable[Event], step: int) -> bool:
    """Whether the run, which stands at ``step``, ended there because it did not get better."""
    ends = [event for event in events if isinstance(event, Finished)]
    return bool(ends) and ends[-1].reason == "early" and ends[-1].step == step
