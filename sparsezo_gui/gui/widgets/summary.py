"""What came of a run, once it has ended: before and after, time, best step, and what was lost elsewhere."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, column, label, restyle, row
from sparsezo_gui.gui.widgets.sides import Sides, halves
from sparsezo_gui.recipe import outcome
from sparsezo_gui.recipe.events import Evaluation
from sparsezo_gui.recipe.metrics import deciding, interval, metric

ENDED = ("done", "stopped", "interrupted")


class Figure:
    """A number below its name, and what it means."""

    def __init__(self, name: str) -> None:
        self.title, self.value = label(name, "dim"), label("–", "figure", name=name)
        self.hint = label("", "hint")
        self.layout = column(self.title, self.value, self.hint, spacing=0)

    def show(self, value: str, hint: str = "", title: str = "") -> None:
        """Shows the number; nothing at all without one."""
        self.value.setText(value)
        self.hint.setText(hint)
        if title:
            self.title.setText(title)
        for part in (self.title, self.value, self.hint):
            part.setVisible(bool(value))


class Summary(QFrame):
    """A card in place of the live figures; `export_wanted` and `ask_wanted` name a step."""

    export_wanted = Signal(int)
    ask_wanted = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.setAccessibleName("Result of the run")
        self._step = 0
        self._figures = {name: Figure(name) for name in ("Result", "Best step", "Time taken", "General text")}
        self._export = button("Export…", lambda: self.export_wanted.emit(self._step), role="primary", image="export",
                              name="Export the result")  # fmt: skip
        self._ask = button("Ask…", lambda: self.ask_wanted.emit(self._step), name="Ask the result")
        parts, buttons = [figure.layout for figure in self._figures.values()], QWidget()
        figures = halves(parts[:2], parts[2:], 2 * GRID)
        buttons.setLayout(row(self._ask, self._export, None))
        whole = Sides(figures, None, buttons, spacing=GRID)
        outer = column(whole)
        outer.setContentsMargins(2 * GRID, GRID, 2 * GRID, GRID)
        self.setLayout(outer)

    def show_record(self, record: RunRecord) -> bool:
        """Shows a run that has ended; returns whether there is something to show."""
        base, last = record.before_after()
        if record.state not in ENDED or not record.columns.size or record.active_elsewhere:
            return False
        best = outcome.best(record.evaluations)
        self._step = best.step if best else record.step
        self._show_result(base, last)
        name = deciding(best.metrics, best.metric) or "loss" if best else ""
        found = f"{formatting.metric(name, best.metrics[name])} on validation" if best and name in best.metrics else ""
        self._figures["Best step"].show(formatting.count(best.step) if best else "", found)
        seconds = float(record.columns["seconds"].sum())
        self._figures["Time taken"].show(formatting.duration(seconds), "in training steps")
        general = record.general_text
        self._figures["General text"].show(formatting.change(general.increase) if general else "", "perplexity")
        self._export.setToolTip(f"Exports step {formatting.count(self._step)}; the next page offers all others.")
        self._ask.setToolTip(f"Opens the chat with step {formatting.count(self._step)}.")
        return True

    def _show_result(self, base: Evaluation | None, last: Evaluation | None) -> None:
        figure, one = self._figures["Result"], last or base
        if one is None:
            figure.show("")
            return
        name = deciding(one.metrics, one.metric) or "loss"
        values = [formatting.metric(name, each.metrics[name]) for each in (base, last) if each and name in each.metrics]
        count, hint = one.metrics.get("examples"), formatting.split(one).lower()
        if metric(name).percent and count:
            low, high = interval(one.metrics[name], count)
            hint = f"± {50 * (high - low):.1f} points, {formatting.count(count)} {one.split} examples"
        figure.show(" → ".join(values), hint, metric(name).title)
        better = base is not None and last is not None and _gain(base, last, name) > 0
        restyle(figure.value, level="good" if better else "")


def _gain(base: Evaluation, last: Evaluation, name: str) -> float:
    return metric(name).sign * (last.metrics.get(name, 0.0) - base.metrics.get(name, 0.0))
