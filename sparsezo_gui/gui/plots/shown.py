"""What the plots show of a run's record besides its columns: marked steps, and the metric at each validation."""

from __future__ import annotations

from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.recipe.metrics import deciding, interval

MOST_MARKS = 40  # the latest; more would hide the curves


def marks(record: RunRecord) -> list[tuple[float, str, str]]:
    """Steps with a warning or another learning rate, each with a word and a colour."""
    found = [(float(note.step), "!", "warning") for note in record.notes if note.level == "warning" and note.step]
    rates = [(float(change.step), f"rate × {change.factor:g}", "dim") for change in record.rate_changes]
    return sorted(dict.fromkeys((*found, *rates)))[-MOST_MARKS:]


def losses(record: RunRecord) -> list[tuple[int, float]]:
    """The loss at each validation."""
    return [(e.step, e.metrics["loss"]) for e in record.evaluations
            if e.split == "validation" and "loss" in e.metrics]  # fmt: skip


def decisive(record: RunRecord) -> tuple[str, list[tuple[int, float]]]:
    """The metric that decides which step is best, or else the loss, with its values."""
    evaluations = [e for e in record.evaluations if e.split == "validation"]
    if not evaluations:
        return "", []
    name = deciding(evaluations[-1].metrics, evaluations[-1].metric) or "loss"
    return name, [(e.step, e.metrics[name]) for e in evaluations if name in e.metrics]


def ranges(record: RunRecord, name: str) -> list[tuple[int, tuple[float, float]]]:
    """The 95 % confidence interval of a share at each validation."""
    return [(e.step, interval(e.metrics[name], e.metrics["examples"])) for e in record.evaluations
            if e.split == "validation" and name in e.metrics and e.metrics.get("examples")]  # fmt: skip
