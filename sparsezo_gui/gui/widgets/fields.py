"""Form fields from pydantic fields, which declare default, bounds, unit, typical range and help once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args, get_origin

from pydantic.fields import FieldInfo
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QStandardItemModel, QWheelEvent
from PySide6.QtWidgets import QCheckBox, QComboBox, QLineEdit, QRadioButton, QSizePolicy, QVBoxLayout, QWidget

from sparsezo_gui.gui import formatting
from sparsezo_gui.gui.help import PLACE, show_help
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, column, label, restyle, row
from sparsezo_gui.gui.widgets.edits import ListEdit, NumberEdit, TextEdit
from sparsezo_gui.gui.wording import grouped_numbers, in_form_words
from sparsezo_gui.recipe.variants import shown

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

    def fill_groups(self, groups: Mapping[str, list[tuple[str, Any]]], current: Any) -> None:
        """Like `fill`, with a title above the entries of each group, which cannot be chosen."""
        entries = [entry for title, part in groups.items() for entry in ([(title, None)] if title else []) + part]
        self.fill(entries, current)
        model = cast("QStandardItemModel", self.model())
        for index, (title, _) in enumerate(entries):
            if title in groups:
                model.item(index).setEnabled(False)

    def choose(self, data: Any) -> None:
        """Selects an entry by its data; emits no signal."""
        before = self.blockSignals(True)
        self.setCurrentIndex(next((i for i in range(self.count()) if self.itemData(i) == data), -1))
        self.blockSignals(before)


class RadioGroup(QWidget):
    """Radio buttons with a hint each; ``options`` maps values to (title, hint), and the first is selected."""

    changed = Signal()

    def __init__(self, options: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._buttons: dict[str, QRadioButton] = {}
        self._hints = {
            value: (label(sentence, "hint", wrap=True), sentence) for value, (_, sentence) in options.items()
        }
        choices = column()
        for value, (title, _) in options.items():
            choice = self._buttons[value] = QRadioButton(title)
            choice.setAccessibleName(title)
            choice.setChecked(len(self._buttons) == 1)
            choice.toggled.connect(lambda on: self.changed.emit() if on else None)
            hint, _ = self._hints[value]
            hint.setIndent(INDENT)
            choices.addLayout(column(choice, hint, spacing=2))
        self.setLayout(choices)
        self.refuse({})

    def value(self) -> str:
        """The selection."""
        return next(value for value, choice in self._buttons.items() if choice.isChecked())

    def choose(self, value: str) -> None:
        """Selects a value."""
        self._buttons[value].setChecked(True)

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Disables the values that have a reason, and shows it; enables all others."""
        for value, (hint, sentence) in self._hints.items():
            reason = reasons.get(value, "")
            hint.setText(reason or sentence)
            self._buttons[value].setEnabled(not reason)
            self._buttons[value].setAccessibleDescription(reason or sentence)


class ComboGroup(QWidget):
    """A combo box with a hint on its choice: a `RadioGroup` for many options."""

    changed = Signal()

    def __init__(self, name: str, options: Mapping[str, tuple[str, str]]) -> None:
        super().__init__()
        self._options, self._combo, self._hint = options, Combo(name), label("", "hint", wrap=True)
        self._combo.fill([(title, value) for value, (title, _) in options.items()], next(iter(options)))
        self._combo.currentIndexChanged.connect(self._chosen)
        self.setLayout(column(self._combo, self._hint, spacing=2))
        self._chosen()

    def value(self) -> str:
        """The selection."""
        return str(self._combo.currentData())

    def _chosen(self) -> None:
        self._hint.setText(self._options[self.value()][1])
        self.changed.emit()


class CheckBoxGroup(QWidget):
    """Check boxes, any number of which can be selected."""

    clicked = Signal()

    def __init__(self, name: str, options: tuple[str, ...]) -> None:
        super().__init__()
        self._boxes = {option: QCheckBox(formatting.field_label(option)) for option in options}
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

    def __init__(self, name: str, field: FieldInfo, table: str, rule: str = "") -> None:
        """``name`` is a key of a ``table`` of the recipe, if that table has a ``rule``."""
        super().__init__()
        self.name = name
        self.setProperty(PLACE, f"{table}/{rule}/{name}")
        self.title = title_of(name, field)
        self.help = grouped_numbers(field.description or "")
        typical = shown(field).sane
        low, high = (f"{end:,}" if isinstance(end, int) else formatting.number(end) for end in typical or (0, 0))
        span = grouped_numbers(f" Typical: {low} to {high}.") if typical else ""
        self._help_and_range = self.help + span
        self._editor = self._make_editor(field.annotation, shown(field).unit)
        self._editor.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._editor.setAccessibleName(self.title)
        self._editor.setAccessibleDescription(self.help)
        self._editor.setToolTip(self.help)
        caption = label(self.title)
        caption.setBuddy(self._editor)
        self._hint = label("", "hint", wrap=True)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        more = button("", lambda: show_help(self), role="info", image="info", name=f"Help on {self.title}")
        more.setIconSize(QSize(14, 14))
        more.setToolTip("Opens the help at this setting (F1)")
        more.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # F1 in the field does the same
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GRID // 2)
        if isinstance(self._editor, QCheckBox):
            self._editor.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
            layout.addLayout(row(self._editor, more, None, spacing=GRID // 2))
        else:
            layout.addLayout(row(caption, more, None, spacing=GRID // 2))
            layout.addWidget(self._editor)
        layout.addWidget(self._hint)
        layout.addStretch(1)
        self.set_error("")

    def _make_editor(self, annotation: Any, unit: str) -> QWidget:
        """An editor for this type; sets how its value is read and shown."""
        self._read: Callable[[], Any]
        self._write: Callable[[Any], None]
        if get_origin(annotation) is Literal:
            combo = Combo(self.title)
            combo.fill([(formatting.field_label(str(word)), word) for word in get_args(annotation)], None)
            combo.currentIndexChanged.connect(self._emit)
            self._read, self._write = combo.currentData, combo.choose
            return combo
        if get_origin(annotation) is tuple and get_origin(get_args(annotation)[0]) is Literal:
            group = CheckBoxGroup(self.title, get_args(get_args(annotation)[0]))
            group.clicked.connect(self._emit)
            self._read, self._write = group.value, group.choose
            return group
        if annotation is bool:
            box = QCheckBox(self.title)
            box.clicked.connect(self._emit)
            self._read, self._write = box.isChecked, box.setChecked
            return box
        several = annotation == tuple[str, ...]
        number = annotation in (int, float)
        line = NumberEdit(annotation is int, unit) if number else ListEdit() if several else TextEdit()
        line.editingFinished.connect(lambda: self._finished(line))
        self._read, self._write = line.value, line.show_value
        return line

    def _emit(self) -> None:
        self.edited.emit(self.name, self.value())

    def _finished(self, line: QLineEdit) -> None:
        # Qt also signals this when the focus leaves: only typed changes count.
        if line.isModified():
            line.setModified(False)
            self._emit()

    def value(self) -> Any:
        """The editor's value."""
        return self._read()

    def set_value(self, value: Any) -> None:
        """Shows a value and clears the error. Leaves text alone while the user is typing."""
        self._write(value)
        self.set_error("")

    def refused(self, fault: str) -> str:
        """Shows why the recipe refuses the value, or that it does not; returns this in the words of the form."""
        place = f"{self.name}: "
        sentence = fault.split(place, 1)[-1] if place in fault else fault
        sentence = f"{self.title}: {in_form_words(sentence)}" if sentence else ""
        self.set_error(sentence)
        return sentence

    def set_error(self, sentence: str) -> None:
        """Shows what is wrong below the editor instead of the help; clears it if empty."""
        self._hint.setText(sentence or self._help_and_range)
        restyle(self._hint, role="error" if sentence else "hint")
        restyle(self._editor, invalid="true" if sentence else "false")


def title_of(name: str, field: FieldInfo) -> str:
    """The label of a setting."""
    return shown(field).title or formatting.field_label(name)
