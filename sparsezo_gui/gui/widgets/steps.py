"""Selects a step of a run, with a slider or by typing."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QSlider, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.record import RunRecord
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, label, row
from sparsezo_gui.gui.widgets.edits import NumberEdit


class StepSlider(QWidget):
    """Slider, number field and last step; a button for the best step if known."""

    changed = Signal(int)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._slider.setAccessibleName(f"{name}, slider")
        self._slider.valueChanged.connect(self._moved)
        self._number = NumberEdit(whole=True)
        self._number.setAccessibleName(name)
        self._number.setFixedWidth(12 * GRID)
        self._number.editingFinished.connect(self._typed)
        self._of = label("", "dim")
        self._best: int | None = None
        self._to_best = button("Best", lambda: self.set_value(self._best or 0), name=f"{name}, best")
        self._to_best.setToolTip("The step with the best result on the validation examples.")
        self.setLayout(row(self._slider, self._number, self._of, self._to_best))
        self.set_range(0, 0)

    def set_range(self, first: int, last: int, best: int | None = None) -> None:
        """Sets the available steps and selects the last one."""
        self._best = best
        self._slider.setRange(first, last)
        self._slider.setPageStep(max((last - first) // 20, 1))
        self._slider.setValue(last)
        self._number.setText(str(last) if last else "")
        self._of.setText(f"of {count(last)}")
        self._of.setVisible(last > 0)
        self._to_best.setVisible(best is not None and first <= best <= last)

    def value(self) -> int:
        """The selected step."""
        return self._slider.value()

    @property
    def at_end(self) -> bool:
        """Whether the last step is selected."""
        return self.value() == self._slider.maximum()

    def set_value(self, step: int) -> None:
        """Selects a step."""
        self._slider.setValue(step)

    def _moved(self, step: int) -> None:
        self._number.setText(str(step))
        self.changed.emit(step)

    def _typed(self) -> None:
        value = self._number.value()
        self._slider.setValue(value if isinstance(value, int) else self._slider.maximum())
        self._number.setText(str(self._slider.value()))


def results_at(record: RunRecord | None, step: int) -> str:
    """The evaluations of a run at a step, in sentences; ``record`` is None if it is not the displayed run."""
    if record is None:
        return "Evaluate it or ask in the chat (Ctrl+J); this loads the model."
    if (now := record.progress) is not None:
        return now.stage + (f": {count(now.done)} of {count(now.total)} {now.unit}" if now.total else "")
    found = [each for each in (*record.evaluations, *record.changed_input_evaluations[-1:]) if each.step == step]
    results = [
        f"{formatting.split(each)}{', with changed inputs' if each.changed else ''}: " + ", ".join(
            f"{formatting.field_label(name).lower()} {formatting.metric(name, value)}"
            for name, value in each.metrics.items() if name != "examples"
        ) for each in found
    ]  # fmt: skip
    return ". ".join(results) or "Not evaluated at this step yet."
