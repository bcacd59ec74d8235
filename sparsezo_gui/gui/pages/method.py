"""The method: presets by goal, basic settings, and the rest under Advanced; all generated from the variants."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QRadioButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from sparsezo_gui.gui.advice import MAX_SENTENCES, advice
from sparsezo_gui.gui.help import PLACE, show_help
from sparsezo_gui.gui.problems import Problem
from sparsezo_gui.gui.requests import (
    CompareWays,
    EstimateMemory,
    EstimateWays,
    FindMask,
    FindRate,
    MeasureMemory,
    ProbeNoise,
    ReadModel,
)
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import Button, Page, Part, button, card, clear, column, label, restyle, row
from sparsezo_gui.gui.widgets.compare import WaysCard
from sparsezo_gui.gui.widgets.fields import Combo, SettingField
from sparsezo_gui.gui.widgets.mask import MaskCard
from sparsezo_gui.gui.widgets.noise import NoiseProbe
from sparsezo_gui.gui.widgets.rate import RateFinder
from sparsezo_gui.gui.widgets.sides import Columns
from sparsezo_gui.gui.wording import TITLES, in_form_words
from sparsezo_gui.gui.workspace import Workspace
from sparsezo_gui.recipe.presets import PRESETS, matching
from sparsezo_gui.recipe.registry import BY_TABLE, REGISTRIES
from sparsezo_gui.recipe.variants import Settings, Variant, shown

COLUMNS = 3

PRESETS_IN_A_ROW = 4


class MethodPage(Page):
    """The form is rebuilt when a rule changes, because each rule has its own fields."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("Method", "Choose a way to tune. The defaults are a good start.")
        self._workspace = workspace
        self._fields: dict[tuple[str, str], SettingField] = {}
        self._rules: dict[str, Combo] = {}
        self._shown: tuple[str, ...] = ()
        self._group = QButtonGroup(self)
        cards = list[QWidget]()
        for index, preset in enumerate(PRESETS):
            choice = PresetCard(preset.title, preset.goal)
            choice.radio.clicked.connect(lambda _=False, preset=preset: self._take(workspace.use_preset(preset)))
            self._group.addButton(choice.radio, index)
            cards.append(choice)
        self._presets = Columns(PRESETS_IN_A_ROW, 14 * GRID, GRID, GRID)
        self._presets.fill(cards)
        self._presets.hide()
        self._methods = button("More methods", lambda: self._toggle(self._presets, self._methods, "more methods"),
                               role="flat", image="chevron-right", name="Show more methods")  # fmt: skip
        self.body.addWidget(WaysCard(workspace, lambda tables: self._take(workspace.change_all(tables))))
        self.body.addWidget(self._methods, 0, Qt.AlignmentFlag.AlignLeft)
        self.body.addWidget(self._presets)
        self._own = label("Custom settings; choosing a method replaces them.", "hint")
        self._basic = _columns()
        self._advanced = QVBoxLayout()
        self._advanced.setSpacing(3 * GRID)
        self._more = button("Advanced", lambda: self._toggle(self._panel, self._more, "advanced settings"), role="flat",
                            image="chevron-right", name="Show advanced settings")  # fmt: skip
        self._panel = card(self._advanced)
        self._panel.hide()
        self._advice = [label("", "dim", wrap=True, name="Advice") for _ in range(MAX_SENTENCES)]
        self._worth = card(label("Worth knowing", "heading"), *self._advice)
        self.body.addWidget(
            card(row(label("Basic settings", "heading"), 2 * GRID, self._own, None), self._basic, RateFinder(workspace),
                 NoiseProbe(workspace))
        )  # fmt: skip
        self.body.addWidget(self._worth)
        self.body.addWidget(MaskCard(workspace))
        self.body.addWidget(self._more, 0, Qt.AlignmentFlag.AlignLeft)
        self.body.addWidget(self._panel)
        self.body.addStretch(1)
        self.body.addLayout(row(None, button("Continue to Run", lambda: self.go_to.emit("run"))))
        workspace.recipe_changed.connect(self.refresh)
        long = (FindMask, FindRate, ProbeNoise, CompareWays)
        workspace.on(*long, call=lambda: self.banner.track(workspace.problem_of(*long)))
        workspace.on(EstimateMemory, MeasureMemory, EstimateWays, CompareWays, ReadModel, call=self._advise)
        workspace.recipe_changed.connect(self._advise)
        self.refresh()
        self._advise()

    def _advise(self) -> None:
        workspace = self._workspace
        model = workspace.model
        sentences = advice(workspace.memory, workspace.recipe, model.parameters if model else 0, workspace.plan)
        for part, sentence in zip(self._advice, [*sentences, *[""] * MAX_SENTENCES], strict=False):
            part.setText(in_form_words(sentence))
            part.setVisible(bool(sentence))
        self._worth.setVisible(bool(sentences))

    def _toggle(self, part: QWidget, switch: Button, what: str) -> None:
        shown = part.isHidden()
        part.setVisible(shown)
        switch.set_image("chevron-down" if shown else "chevron-right")
        switch.setAccessibleName(f"{'Hide' if shown else 'Show'} {what}")

    def _take(self, fault: str) -> None:
        """A preset or a way was taken, or refused for a reason."""
        if fault:
            self.banner.show_problem(Problem(fault))
        else:
            self.banner.clear_refusal()
        self.refresh()

    def refresh(self) -> None:
        """Updates the page from the recipe."""
        recipe = self._workspace.recipe
        rules = tuple(getattr(recipe, registry.table).rule for registry in REGISTRIES)
        if rules != self._shown:
            self._shown = rules
            self._workspace.faults.settle(dict.fromkeys(TITLES, ("rule",)))  # all fields are made anew
            self._build()
        for (table, name), field in self._fields.items():
            if not self._workspace.faults.of(table, name):  # what is wrong stays in sight until it is mended
                field.set_value(getattr(getattr(recipe, table), name))
        preset = matching(recipe)
        self._own.setVisible(preset is None)
        self._group.setExclusive(False)
        for index, choice in enumerate(PRESETS):
            self._group.button(index).setChecked(choice is preset)
        self._group.setExclusive(True)

    def _build(self) -> None:
        clear(self._advanced)
        self._fields.clear()
        self._rules.clear()
        basic: list[SettingField] = []
        for table in TITLES:
            values: Settings = getattr(self._workspace.recipe, table)
            rest: list[SettingField] = []
            for name, info in type(values).model_fields.items():
                if name == "rule":
                    continue
                field = self._fields[table, name] = SettingField(name, info, table, getattr(values, "rule", ""))
                field.edited.connect(lambda name, value, table=table: self._edited(table, name, value))
                (basic if shown(info).basic else rest).append(field)
            self._advanced.addWidget(self._section(table, values, rest))
        basic.sort(key=lambda field: field.name != "steps")  # what people change first
        self._basic.fill(basic)

    def _section(self, table: str, values: Settings, fields: list[SettingField]) -> QWidget:
        parts: list[Part] = [label(TITLES[table], "heading")]
        registry = BY_TABLE.get(table)
        if registry is not None and isinstance(values, Variant):
            combo = self._rules[table] = Combo(TITLES[table])
            combo.fill([(registry[rule].title, rule) for rule in registry], values.rule)
            combo.currentIndexChanged.connect(lambda: self._edited(table, "rule", combo.currentData()))
            combo.setMinimumWidth(30 * GRID)
            combo.setProperty(PLACE, f"reference/methods.md#{table}")
            about = button("", lambda: show_help(combo), role="info", image="info", name=f"About {values.title}",
                           tip="Formula and source, in the help")  # fmt: skip
            about.setIconSize(QSize(14, 14))
            parts += [row(combo, about, None), label(values.summary(), "hint", wrap=True)]
        if fields:
            columns = _columns()
            columns.fill(fields)
            parts.append(columns)
        section = QWidget()
        section.setLayout(column(*parts))
        return section

    def _edited(self, table: str, name: str, value: Any) -> None:
        if name == "rule" and value is None:
            return
        fault = self._workspace.change(table, **{name: value})
        field = self._fields.get((table, name))
        if field is not None:
            sentence = field.refused(fault)
            self._workspace.faults.note(table, name, sentence)
        elif fault:  # the rule does not fit the other settings
            self._rules[table].choose(getattr(self._workspace.recipe, table).rule)
            self.banner.show_problem(Problem(fault))
        if not fault:
            self.banner.clear_refusal()


class PresetCard(QFrame):
    """A radio button with a sentence; clicking anywhere on the card selects it."""

    def __init__(self, title: str, goal: str) -> None:
        super().__init__()
        self.setProperty("role", "card")
        self.radio = QRadioButton()
        self.radio.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.radio.setAccessibleName(title)
        self.radio.setAccessibleDescription(goal)
        self.radio.toggled.connect(lambda on: restyle(self, chosen="true" if on else "false"))
        inside = QVBoxLayout(self)
        inside.setContentsMargins(GRID + 4, GRID + 4, GRID + 4, GRID + 4)
        inside.setSpacing(GRID // 2)
        head = row(self.radio, label(title, "heading", wrap=True), spacing=4)
        head.setStretch(1, 1)
        inside.addLayout(head)
        inside.addWidget(label(goal, "hint", wrap=True))
        inside.addStretch(1)
        self.setMinimumWidth(14 * GRID)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """See the class."""
        if self.rect().contains(event.position().toPoint()):
            self.radio.click()


def _columns() -> Columns:
    return Columns(COLUMNS, 22 * GRID, 3 * GRID, 2 * GRID)
