"""Prompts that are asked again and again while a run goes on, and their answers as a timeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from PySide6.QtWidgets import QGridLayout, QWidget

from sparsezo_gui.gui.formatting import count
from sparsezo_gui.gui.theme import GRID
from sparsezo_gui.gui.widgets.basic import add, button, clear, column, label, row
from sparsezo_gui.gui.widgets.exchange import LENGTH, NOTHING
from sparsezo_gui.recipe.events import Answer, Ask

EVERY = 100  # steps between two answers, if the run has no validation interval
SHOWN, MOST = 20, 5  # answers of a probe, the latest; probes


@dataclass
class Probe:
    """A prompt, and what was answered after which step."""

    prompt: str
    raw: bool = False
    answers: list[tuple[int, str]] = field(default_factory=list)
    text: str = ""
    asked: int = 0  # after about this step

    @property
    def ask(self) -> Ask:
        """The command to the run."""
        return Ask(self.prompt, LENGTH, None, self.raw)

    def add_piece(self, answer: Answer) -> bool:
        """Adds a piece; returns whether the answer is complete."""
        self.text += answer.text
        if answer.last:
            self.answers = [*self.answers, (answer.step, self.text.strip() or NOTHING)][-SHOWN:]
            self.text = ""
        return answer.last

    def fail(self, why: str) -> None:
        """The answer does not come."""
        self.text = ""


class Probes(QWidget):
    """All probes, each with its timeline; `changed` is called when one is removed."""

    def __init__(self, changed: Callable[[], object]) -> None:
        super().__init__()
        self.setAccessibleName("Watched prompts")
        self._changed = changed
        self.probes: list[Probe] = []
        self._list = column(spacing=GRID)
        self.setLayout(self._list)
        self.show_all()

    def watch(self, prompt: str, raw: bool) -> bool:
        """Adds a probe; returns False if it is there already, or there are too many."""
        if len(self.probes) >= MOST or any((each.prompt, each.raw) == (prompt, raw) for each in self.probes):
            return False
        self.probes.append(Probe(prompt, raw))
        self.show_all()
        return True

    def due(self, step: int, every: int) -> list[Probe]:
        """The probes to ask after ``step``, each once in ``every`` steps."""
        due = []
        for probe in self.probes:
            if step < probe.asked:  # after a rollback, or in another run
                probe.asked, probe.answers = step, [each for each in probe.answers if each[0] <= step]
            if step // every > probe.asked // every:
                probe.asked = step
                due.append(probe)
        return due

    def show_all(self) -> None:
        """Shows what has been answered."""
        clear(self._list)
        for number, probe in enumerate(self.probes, 1):
            remove = button("Stop watching", partial(self._remove, probe), role="flat",
                            name=f"Stop watching prompt {number}")  # fmt: skip
            head = row(label(probe.prompt, "heading", wrap=True, read=True), remove)
            head.setStretch(0, 1)
            lines = QGridLayout()
            lines.setColumnStretch(1, 1)
            for line, (step, text) in enumerate(probe.answers):
                lines.addWidget(label(f"Step {count(step)}", "dim"), line, 0)
                lines.addWidget(label(text, wrap=True, read=True, name=f"Prompt {number} after step {step}"), line, 1)
            hint = [] if probe.answers else [label("Asked again and again during a run.", "hint", wrap=True)]
            add(self._list, head, *hint, lines)
        if len(self.probes) == MOST:
            add(
                self._list,
                label(f"{MOST} prompts can be watched. To watch another, stop watching one.", "hint", wrap=True),
            )
        self.setVisible(bool(self.probes))

    def _remove(self, probe: Probe) -> None:
        self.probes.remove(probe)
        self.show_all()
        self._changed()
