"""A prompt and the answers to it, beside one another; and the settings of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QGridLayout, QLineEdit, QWidget

from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import button, column, label, row
from sparsezo_gui.gui.widgets.edits import NumberEdit
from sparsezo_gui.gui.widgets.safe_text import Label
from sparsezo_gui.gui.widgets.sides import Sides
from sparsezo_gui.recipe.events import Answer, Ask

NOTHING = "The model gave an empty answer."
STOPPED = "(stopped)"
MOST = 4  # models side by side
LENGTH, LONGEST = 96, 2048  # tokens of an answer, so that a run continues soon
WIDTH = 17 * GRID  # pixels of an answer at least; narrower ones stand below one another


@dataclass(frozen=True)
class Column:
    """One of the models that answer: its title, its name for assistive technology, and what it is asked."""

    title: str
    name: str
    ask: Ask


class Exchange(QFrame):
    """A prompt and answers that arrive piece by piece, one model after the other."""

    def __init__(
        self, prompt: str, columns: Sequence[Column], retry: Callable[[Exchange], object],
        watch: Callable[[Exchange], object],
    ) -> None:  # fmt: skip
        super().__init__()
        self.prompt, self.columns, self.text = prompt, columns, [""] * len(columns)
        self.answers: list[Label] = []
        parts: list[QWidget] = []
        for each in columns:
            answer = label(wrap=True, name=each.name, read=True)
            answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            answer.setAlignment(Qt.AlignmentFlag.AlignTop)
            part = QWidget()
            part.setMinimumWidth(WIDTH)
            part.setLayout(column(label(each.title, "dim"), answer, None, spacing=0))
            self.answers.append(answer)
            parts.append(part)
        self.answers[0].setText("…")
        sides = Sides(*parts, spacing=2 * GRID)
        for place in range(len(parts)):
            sides.box.setStretch(place, 1)
        copy = button("Copy", self._copy, role="flat", image="copy", name="Copy the answers")
        again = button("Retry", lambda: retry(self), role="flat", name="Ask again")
        keep = button("Watch", lambda: watch(self), role="flat", name="Watch this prompt",
                      tip="Asks this again and again during a run.")  # fmt: skip
        self.setLayout(column(label(prompt, "heading", wrap=True, read=True), sides, row(copy, again, keep, None),
                              spacing=GRID // 2))  # fmt: skip
        self._now = 0
        self.gone = False  # removed from the chat while answers are missing
        self.stopped = False  # by the user: answers that never came are not empty ones

    @property
    def waiting(self) -> bool:
        """Whether an answer is still missing."""
        return self._now < len(self.answers)

    def add_piece(self, answer: Answer) -> bool:
        """Adds a piece; returns whether all answers are complete."""
        self.text[self._now] += answer.text
        missing = (STOPPED if self.stopped else NOTHING) if answer.last else "…"
        self._show(self._now, self.text[self._now].strip() or missing)
        if answer.last:
            self._now += 1
            if self.waiting:
                self._show(self._now, "…")
        return not self.waiting

    def _show(self, place: int, text: str) -> None:
        if not self.gone:
            self.answers[place].setText(text)

    def fail(self, why: str) -> None:
        """Shows ``why`` in place of the missing answers."""
        for place in range(self._now, len(self.answers)):
            self._show(place, why)
        self._now = len(self.answers)

    def _copy(self) -> None:
        found = [f"{each.title}:\n{text.strip()}" for each, text in zip(self.columns, self.text, strict=True)]
        QGuiApplication.clipboard().setText("\n\n".join((self.prompt, *found)))


class AnswerSettings(QWidget):
    """Length, temperature and system prompt of the answers, and more steps to compare."""

    def __init__(self) -> None:
        super().__init__()
        self._length, self._temperature = NumberEdit(whole=True), NumberEdit(whole=False)
        self._system, self._steps = QLineEdit(), QLineEdit()
        self._length.setText(str(LENGTH))
        self._temperature.setText("0")
        self._steps.setPlaceholderText("such as 100, 250")
        self._system.setPlaceholderText("How the model should answer")
        self._rows = QGridLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.setSpacing(GRID // 2)
        self._titles: dict[str, QWidget] = {}
        entries = (
            ("Longest answer, tokens", self._length, ""),
            (
                "Temperature",
                self._temperature,
                "0 always takes the likeliest token; with more, answers vary. All models use the same seed.",
            ),
            ("More steps to compare", self._steps, "Answers of up to two more steps of this run."),
            ("System prompt", self._system, "Comes before the conversation."),
        )
        for line, (title, field, tip) in enumerate(entries):
            field.setAccessibleName(title)
            field.setToolTip(tip)
            self._titles[title] = label(title, "dim")
            self._rows.addWidget(self._titles[title], line, 0)
            self._rows.addWidget(field, line, 1)
        self.show_chat(False)

    def show_chat(self, chat: bool) -> None:
        """Whether the task is a chat, which alone has a system prompt."""
        self._system.setVisible(chat)
        self._titles["System prompt"].setVisible(chat)

    @property
    def system(self) -> str:
        """The system prompt, empty if the task has none."""
        return self._system.text().strip() if not self._system.isHidden() else ""

    @property
    def tokens(self) -> int:
        """Of an answer at most."""
        value = self._length.value()
        return min(max(value, 1), LONGEST) if isinstance(value, int) else LENGTH

    @property
    def temperature(self) -> float:
        """Of sampling, 0 … 5."""
        value = self._temperature.value()
        return min(max(float(value), 0.0), 5.0) if isinstance(value, int | float) else 0.0

    @property
    def steps(self) -> list[int]:
        """More steps to compare with, as many as there is room for."""
        words = self._steps.text().replace(",", " ").split()
        return list(dict.fromkeys(int(word) for word in words if word.isdecimal() and len(word) < 10))[: MOST - 2]


def columns(prompt: str, step: int | None, raw: bool, settings: AnswerSettings, seed: int,
            turns: Sequence[Sequence[tuple[str, str]]] = ()) -> list[Column]:  # fmt: skip
    """The models to ask: the base model, the run after ``step`` (None: now) and at more steps of the settings."""
    warm = settings.temperature
    facts = {"temperature": warm, "seed": seed if warm else 0, "system": "" if raw else settings.system}
    now = f"After step {count(step)}" if step is not None else "Tuned"
    known: list[tuple[str, str, int | None]] = [("Base", "Base model's answer", 0), (now, "Tuned model's answer", step)]
    more = [each for each in settings.steps if each not in (0, step)]
    known[1:1] = [(f"After step {count(each)}", f"Answer after step {each}", each) for each in more]
    found = []
    for place, (title, name, at) in enumerate(known):
        before = tuple(turns[place]) if place < len(turns) and not raw else ()
        ask = Ask(prompt, settings.tokens, at, raw, turns=before, **facts)  # type: ignore[arg-type]
        found.append(Column(f"{title}, raw" if raw else title, name, ask))
    return found
