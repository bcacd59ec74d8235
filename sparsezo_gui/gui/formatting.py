"""Formats numbers for people to read."""

from __future__ import annotations

from sparsezo_gui.recipe import metrics
from sparsezo_gui.recipe.events import ZERO, Evaluation, Progress
from sparsezo_gui.sizes import duration as duration
from sparsezo_gui.sizes import latency as latency
from sparsezo_gui.sizes import size as size
from sparsezo_gui.stages import Overall, amount


def grouped(number: float) -> str:
    """Every digit of a whole number: 950, 12 300, 1 234 567."""
    return f"{int(number):,}".replace(",", "\u2009")


def count(number: float) -> str:
    """Counts: 950, 12 300, 1.2 M, 7.1 B."""
    if number < 100_000:
        return grouped(number)
    for unit, factor in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)


def out_of(done: float, total: float) -> str:
    """How far something is, to the last digit: 100 of 2 000."""
    return f"{grouped(done)} of {grouped(total)}"


def number(value: float) -> str:
    """Settings as users type them: 0.001, 1e-06, 2000."""
    if isinstance(value, int):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.6e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.10g}"


def metric(name: str, value: float) -> str:
    """Metrics: shares such as accuracy in percent, losses as plain numbers."""
    if metrics.metric(name).percent:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if abs(value) < 1e4 else count(value)


def change(share: float) -> str:
    """A relative change in percent, with its sign: +2.0 %, −8.4 %."""
    return "0.0 %" if abs(share) < ZERO else f"{100 * share:+.1f} %".replace("-", "\u2212")


def share(part: float) -> str:
    """A part of a whole in percent, with three digits: 0.1 %, 12.3 %."""
    return f"{100 * part:.3g} %"


def split(evaluation: Evaluation) -> str:
    """The examples of an evaluation: Validation, or First 64 validation examples."""
    if evaluation.partial:
        return f"First {count(evaluation.metrics['examples'])} {evaluation.split} examples"
    return field_label(evaluation.split)


def field_label(name: str) -> str:
    """A field's name as a label: learning_rate → Learning rate."""
    return "GPU" if name == "gpu" else name.replace("_", " ").replace("-", " ").capitalize()


def file_name(name: str) -> str:
    """``name`` as a safe file name: no path separators, and not hidden."""
    return "".join(sign if sign.isalnum() or sign in "-_. " else "-" for sign in name).strip(". ")


def progress(now: Progress, overall: Overall) -> str:
    """Progress as text, such as 'Preparing examples: 1 200 of 2 500 examples (stage 3 of 6, about 40 s left)'."""
    counts = f"{count(now.done)} of {count(now.total)} {now.unit}".strip()
    done = amount(now, overall.speed) if now.unit == "bytes" else counts
    text = f"{now.stage}: {done}" if now.total else now.stage
    return f"{text} ({words})" if (words := overall.words()) else text
