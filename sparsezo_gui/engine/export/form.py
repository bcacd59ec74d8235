"""What an export format declares; the command line, the Export page and the tests follow from it. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe.events import Notice, Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.session import Session
    from sparsezo_gui.engine.spaces.space import Space


@dataclass(frozen=True)
class Option:
    """A choice that a format offers. ``choices`` has a title and a sentence or two for each value; the first is the
    default. ``help`` describes the option on the command line."""

    name: str
    title: str
    help: str
    choices: Mapping[str, tuple[str, str]]

    def chosen(self, value: str | None) -> str:
        """``value``, or the default for None. Raises `UserError` for an unknown one."""
        value = next(iter(self.choices)) if value is None else value
        if value not in self.choices:
            raise UserError(f"Unknown export choice of {self.name} '{value}'. {did_you_mean(value, self.choices)}")
        return value


def entries_bytes(tuned: int, space: Space) -> int:
    """Bytes of tuned values in 32 bits, with the place of each if the space lists single entries."""
    return tuned * (8 if space.lists_entries else 4)


class ExportFormat(ABC):
    """A format that a step of a run can be exported as: a folder, or a file with ``suffix``. Each option becomes a
    flag of ``sparsezo export``, which formats share if their options have the same name."""

    title: ClassVar[str]
    help: ClassVar[str]
    """One sentence."""
    opens: ClassVar[str]
    """The programs that read it, for 'Opens in …'."""
    suffix: ClassVar[str] = ""
    options: ClassVar[tuple[Option, ...]] = ()

    @property
    def folder(self) -> bool:
        """Whether it is a folder rather than a file."""
        return not self.suffix

    @property
    def noun(self) -> str:
        """'file' or 'folder'."""
        return "folder" if self.folder else "file"

    def refusal(self, space: Space) -> str:
        """Why it cannot hold tuned values of ``space``, in sentences; empty if it can."""
        return ""

    def suits(self, space: Space) -> bool:
        """Whether it is a good default for tuned values of ``space``; the first registered one that suits is chosen."""
        return False

    def serve(self, out: str, base: str, space: Space, rank: int = 0) -> dict[str, str]:
        """The command that serves an export at ``out`` with Ollama, llama.cpp and vLLM, by program: only those that
        load this format. ``base`` names the base model, ``space`` what was tuned, and ``rank`` that of an adapter, if
        known."""
        return {}

    def size(self, tuned: int, parameters: int, space: Space, options: Mapping[str, str]) -> int:
        """About how many bytes an export takes, of so many ``tuned`` values of ``space`` in a model of so many
        ``parameters``; 0 if that is unknown."""
        return 0

    def card(self, out: Path) -> str:
        """The model card in the file ``out``; empty if it has none. Raises `UserError`."""
        return ""

    def place(self, name: str, **options: str) -> Path | None:
        """Where an export of the run ``name`` belongs with these options, or None: the user decides."""
        return None

    @abstractmethod
    def write(
        self, session: Session, run: RunFolder, out: Path, accept: bool, **options: str
    ) -> Generator[Progress | Notice, None, dict[str, Any]]:
        """Writes ``session``, a step of ``run``, to ``out``, with a value for each of its options; ``accept`` allows
        changed inputs. Returns plain facts, with sentences for the user in ``told``. Raises `UserError`."""
