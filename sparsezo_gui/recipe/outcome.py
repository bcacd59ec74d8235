"""What a run's events say about it: which of them still count, and which step is best."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from sparsezo_gui.recipe import metrics
from sparsezo_gui.recipe.events import (
    Base,
    Evaluation,
    Event,
    Examples,
    Finished,
    GeneralText,
    Notice,
    RateChanged,
    RateFound,
    Returned,
    Spent,
)
from sparsezo_gui.recipe.noise import NoiseProbed

_KEPT: dict[str, TypeAdapter[Event]] = {
    name: TypeAdapter(kind)
    for name, kind in {
        "evaluation": Evaluation, "examples": Examples, "notice": Notice, "returned": Returned, "finished": Finished,
        "rate-changed": RateChanged, "rate-found": RateFound, "spent": Spent, "base": Base, "general-text": GeneralText,
        "noise-probed": NoiseProbed,
    }.items()
}  # fmt: skip


def event_of(line: str) -> Event | None:
    """The event in a line of ``events.jsonl``; None if the line is incomplete or the event unknown."""
    try:
        fields = json.loads(line)
        event: Event = _KEPT[fields.pop("event")].validate_python(fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return event


def on_lineage(events: Iterable[Event]) -> list[Event]:
    """The events that still count: when a run goes back to a step, whatever was measured after it does not."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Returned):
            kept = [each for each in kept if getattr(each, "step", 0) <= event.step]
        kept.append(event)
    return kept


def evaluations(events: Iterable[Event]) -> list[Evaluation]:
    """The evaluations that can be compared: on whole splits of the run's own inputs, unchanged since it started."""
    return [event for event in events if isinstance(event, Evaluation) and not event.changed and not event.partial]


def score(evaluation: Evaluation) -> tuple[float, float]:
    """Higher is better: the deciding metric (negative if lower is better), then the negative loss."""
    found = evaluation.metrics
    name = metrics.deciding(found, evaluation.metric)
    judging = metrics.metric(name).sign * found[name] if name else 0.0
    return judging, -found.get("loss", float("inf"))


def best(events: Iterable[Event], split: str = "validation") -> Evaluation | None:
    """The best evaluation on ``split`` from step 1 on; the earliest if several are equal. Evaluations with a loss that
    is not finite are skipped, since such a model answers at random."""
    found = [event for event in evaluations(events) if event.split == split and event.step > 0 and sound(event)]
    return max(found, key=score, default=None)


def sound(evaluation: Evaluation) -> bool:
    """Whether its loss is finite."""
    return math.isfinite(evaluation.metrics.get("loss", 0.0))


def stale(events: Sequence[Event], first: int, every: int) -> int:
    """How many validations, due ``every`` so many steps, there were since the best one and after step ``first``."""
    top = best(events)
    since = max(first, top.step) if top is not None else first
    judged = {event.step for event in evaluations(events) if event.split == "validation"}
    return sum(step > since and step % every == 0 for step in judged)


def last_metrics(events: Iterable[Event]) -> dict[str, float]:
    """Metrics of the last evaluated step, on the test examples if there are any."""
    last = max(evaluations(events), key=lambda event: (event.step, event.split == "test"), default=None)
    return last.metrics if last else {}


def general_text(events: Iterable[Event], step: int) -> GeneralText | None:
    """The perplexity on general text at ``step``, if it was measured."""
    found = [event for event in events if isinstance(event, GeneralText) and event.step == step]
    return found[-1] if found else None


def spent(events: Iterable[Event], records: int) -> Spent | None:
    """The last recorded budget of a private run, if its journal still has as many ``records``; else None."""
    found = [event for event in events if isinstance(event, Spent)]
    return found[-1] if found and found[-1].records == records else None


def ended_early(events: Iterable[Event], step: int) -> bool:
    """Whether the run, now at ``step``, ended there by early stopping."""
    ends = [event for event in events if isinstance(event, Finished)]
    return bool(ends) and ends[-1].reason == "early" and ends[-1].step == step
