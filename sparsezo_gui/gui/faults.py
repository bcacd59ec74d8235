"""What is wrong with the next run, so that none starts with other values than those on screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from PySide6.QtCore import QObject, Signal


class Faults(QObject):
    """Sentences about fields whose text the recipe cannot take, by table and setting. Such a text stays in its field
    until it is mended, or until something else sets the value."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._sentences: dict[tuple[str, str], str] = {}

    def of(self, table: str, name: str) -> str:
        """What is wrong with the text of a field; empty if nothing is."""
        return self._sentences.get((table, name), "")

    @property
    def first(self) -> str:
        """The sentence that was noted first; empty without any."""
        return next(iter(self._sentences.values()), "")

    def note(self, table: str, name: str, sentence: str) -> None:
        """Notes what is wrong with the text of a field, or that nothing is."""
        if sentence:
            self._keep({**self._sentences, (table, name): sentence})
        else:
            self.settle({table: (name,)})

    def settle(self, tables: Mapping[str, Iterable[str]]) -> None:
        """These settings were set to something else; with its rule, a table gets other fields."""
        gone = {(table, name) for table, names in tables.items() for name in names}
        rules = {table for table, name in gone if name == "rule"}
        self._keep({at: each for at, each in self._sentences.items() if at not in gone and at[0] not in rules})

    def clear(self) -> None:
        """Everything was set to something else."""
        self._keep({})

    def _keep(self, sentences: dict[tuple[str, str], str]) -> None:
        if sentences != self._sentences:
            self._sentences = sentences
            self.changed.emit()


def differing(before: Any, after: Any) -> dict[str, list[str]]:
    """The settings in which two recipes differ, by table."""
    found = {}
    for table in type(before).model_fields:
        one, other = getattr(before, table), getattr(after, table)
        names = getattr(type(other), "model_fields", ())
        found[table] = [name for name in names if getattr(one, name, None) != getattr(other, name)]
    return {table: names for table, names in found.items() if names}
