"""Form fields from pydantic fields, which declare default, bounds, unit, typical range and help once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent, QWheelEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QLineEdit, QRadioButton, QSizePolicy, QVBoxLayout, QWidget

from sparsezo_gui.gui import words
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import column, label, restyle, row

INDENT = 27  # of the hint below a radio button


class Combo(QComboBox):
    """A combo box that ignores the wheel unless it has the focus, so that scrolling a page changes nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """See the class."""
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def fill(self, items: list[tuple[str, Any]], current: Any) -> None:
        """Sets entries (text, data) and selects one; emits no signal."""
        self.blockSignals(True)
        self.clear()
        for text, data in items:
            self.addItem(text, data)
        self.choose(current)
        self.blockSignals(False)

    def choose(self, data: Any) -> None:
        """Selects an entry by its data; emits no signal."""
        before = self.blockSignals(True)
        self.setCurrentIndex(next((i for i in range(self.count()) if self.itemData(i) == data), -1))
        self.blockSignals(before)


class Choices(QWidget):
    """Radio buttons with a hint each; ``options`` maps values to (title, hint), and the first is selected."""

    changed = Signal()

    def __init__(self, options: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._buttons: dict[str, QRadioButton] = {}
        choices = column()
        for value, (title, sentence) in options.items():
            choice = self._buttons[value] = QRadioButton(title)
            choice.setAccessibleName(title)
            choice.setAccessibleDescription(sentence)
            choice.setChecked(len(self._buttons) == 1)
            choice.toggled.connect(lambda on: self.changed.emit() if on else None)
            hint = label(sentence, "hint", wrap=True)
            hint.setIndent(INDENT)
            choices.addLayout(column(choice, hint, spacing=2))
        self.setLayout(choices)

    def value(self) -> str:
        """The selection."""
        return next(value for value, choice in self._buttons.items() if choice.isChecked())


class NumberEdit(QLineEdit):
    """A number such as 2000, 1e-4 or 0.1 %; arrow keys change whole numbers by 1 and others by a factor of 10."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def value(self) -> int | float | str:
        """The number, or the text if it is not a number."""
        text = self.text().strip().replace(" ", "").replace("\u2009", "")
        try:
            if text.endswith("%"):
                return float(f"{float(text[:-1]) / 100:.12g}")
            return int(text) if self.whole else float(text)
        except ValueError:
            try:
                number = float(text)
            except ValueError:
                return self.text()
            return int(number) if number.is_integer() else number

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """See the class."""
        direction = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1}.get(Qt.Key(event.key()), 0)
        value = self.value()
        if not direction or isinstance(value, str):
            super().keyPressEvent(event)
            return
        self.setText(words.number(value + direction if self.whole else float(f"{value * 10.0**direction:.12g}")))
        self.setModified(True)
        self.editingFinished.emit()


class Several(QWidget):
    """Check boxes, any number of which can be selected."""

    clicked = Signal()

    def __init__(self, name: str, options: tuple[str, ...]) -> None:
        super().__init__()
        self._boxes = {option: QCheckBox(words.title(option)) for option in options}
        for option, box in self._boxes.items():
            box.setAccessibleName(f"{name}: {option}")
            box.clicked.connect(lambda: self.clicked.emit())
        self.setLayout(row(*self._boxes.values(), None, spacing=2 * GRID))

    def value(self) -> tuple[str, ...]:
        """The selection."""
        return tuple(option for option, box in self._boxes.items() if box.isChecked())

    def choose(self, chosen: tuple[str, ...]) -> None:
        """Selects these; emits no signal."""
        for option, box in self._boxes.items():
            box.setChecked(option in chosen)


class SettingField(QWidget):
    """One setting: its name, an editor for its type, its unit, and a help or error sentence below."""

    edited = Signal(str, object)  # name, value; only by the user

    def __init__(self, name: str, field: FieldInfo, title: str = "") -> None:
        super().__init__()
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        self.name = name
        self.title = title or words.title(name)
        self.help = (field.description or "").replace(" %", "\u00a0%")
        self._sane = extra.get("sane")
        self._words = field.annotation == tuple[str, ...]  # several, separated by commas
        self._editor = self._make_editor(field.annotation)
        self._editor.setAccessibleName(self.title)
        self._editor.setAccessibleDescription(self.help)
        self._editor.setToolTip(self.help)
        caption = label(self.title)
        caption.setBuddy(self._editor)
        self._hint = label("", "hint", wrap=True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        unit = label(str(extra.get("unit") or ""), "dim")
        unit.setVisible(bool(unit.text()))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID // 2)
        if not isinstance(self._editor, QCheckBox):
            layout.addWidget(caption)
        line = row(self._editor, unit)
        line.setStretch(0, 1)
        layout.addLayout(line)
        layout.addWidget(self._hint)
        layout.addStretch(1)
        self.set_fault("")

    def _make_editor(self, annotation: Any) -> QWidget:
        if get_origin(annotation) is Literal:
            editor: QWidget = Combo(self.title)
            editor.fill([(words.title(str(word)), word) for word in get_args(annotation)], None)
            editor.currentIndexChanged.connect(lambda: self.edited.emit(self.name, editor.currentData()))
        elif get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal:
            editor = Several(self.title, get_args(get_args(annotation)[0]))
            editor.clicked.connect(lambda: self.edited.emit(self.name, editor.value()))
        elif annotation is bool:
            editor = QCheckBox(self.title)
            editor.clicked.connect(lambda: self.edited.emit(self.name, editor.isChecked()))
        else:
            number = annotation in (int, float)
            editor = NumberEdit(annotation is int) if number else QLineEdit()
            editor.editingFinished.connect(self._finished)
        editor.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        return editor

    def _finished(self) -> None:
        # Qt also signals this when the focus leaves: only typed changes count.
        if self._editor.isModified():
            self._editor.setModified(False)
            self.edited.emit(self.name, self.value())

    def value(self) -> Any:
        """The editor's value."""
        if isinstance(self._editor, QComboBox):
            return self._editor.currentData()
        if isinstance(self._editor, QCheckBox):
            return self._editor.isChecked()
        if self._words:
            return tuple(word.strip() for word in self._editor.text().split(",") if word.strip())
        return self._editor.value() if isinstance(self._editor, NumberEdit | Several) else self._editor.text()

    def set_value(self, value: Any) -> None:
        """Shows a value and clears the error. Leaves text alone while the user is typing."""
        if isinstance(self._editor, Combo | Several):
            self._editor.choose(value)
        elif isinstance(self._editor, QCheckBox):
            self._editor.setChecked(bool(value))
        elif not self._editor.isModified():
            text = words.number(value) if isinstance(self._editor, NumberEdit) else str(value)
            if self._words:
                text = ", ".join(value)
            if text != self._editor.text():
                self._editor.setText(text)
        self.set_fault("")

    def set_fault(self, sentence: str) -> None:
        """Shows what is wrong below the editor instead of the help; clears it if empty."""
        help_text = self.help
        if self._sane:
            low, high = (words.number(bound) for bound in self._sane)
            help_text += f" Typical: {low} to {high}."
        self._hint.setText(sentence or help_text)
        restyle(self._hint, role="error" if sentence else "hint")
        restyle(self._editor, fault="true" if sentence else "false")
