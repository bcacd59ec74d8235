"""What a kind of log declares; the command line follows from it."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.engine.files import already_exists, replacing
from sparsezo_gui.errors import UserError

if TYPE_CHECKING:
    from sparsezo_gui.engine.log.table import Table

Write = Callable[["Table"], None]


class LogFormat(ABC):
    """A program or a file that curves are written for."""

    help: ClassVar[str]
    """What is written, in a few words."""
    package: ClassVar[str] = ""
    """The package that it needs, if it does not come with SparseZO."""

    def check(self) -> None:
        """Raises `UserError` if its package is missing."""
        if self.package and find_spec(self.package) is None:
            raise UserError(f"This needs the package {self.package}. Install it with: pip install 'sparsezo-gui[log]'")

    @abstractmethod
    def usual(self, run: str) -> str:
        """Where the curves of a run with this name go, unless the user says."""

    @abstractmethod
    def writing(self, out: str, run: str, follow: bool) -> AbstractContextManager[Write]:
        """Yields a function that writes a table of the ``run``, again and again if it will ``follow``; each time
        completely or not at all. Raises `UserError`, also if ``out`` is taken."""

    @abstractmethod
    def told(self, out: str) -> str:
        """A sentence on how to look at ``out``."""


class LogFile(LogFormat):
    """A file that holds the whole table, and is replaced as a whole."""

    suffix: ClassVar[str]

    def usual(self, run: str) -> str:
        """See `LogFormat.usual`."""
        return file_name(run) + self.suffix

    @abstractmethod
    def save(self, table: Table, path: Path) -> None:
        """Writes ``table`` to ``path``. Raises OSError."""

    @contextmanager
    def writing(self, out: str, run: str, follow: bool) -> Iterator[Write]:
        """See `LogFormat.writing`."""
        path = Path(out)
        if path.exists():
            raise already_exists(path)
        written = False

        def write(table: Table) -> None:
            nonlocal written
            with replacing(path, new=not written) as temporary:
                self.save(table, temporary)
            written = True

        yield write

    def told(self, out: str) -> str:
        """See `LogFormat.told`."""
        return f"Written to {out}."


def file_name(run: str) -> str:
    """The name of a run as that of a file."""
    return re.sub(r"[^\w.-]+", "-", run).strip("-.") or "run"


class Unsent:
    """Which values of a table were not sent before, for programs that values are appended to."""

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}
        self._times: list[float] = []

    def rows(self, table: Table) -> Iterator[dict[str, float | int]]:
        """The rows of ``table`` with what is new, and step and time in each; the base model has that of the first step.
        After the run went back, its new steps are new too."""
        before, self._times = self._times, table.steps["time"].tolist()
        same = sum(1 for _ in takewhile(bool, map(eq, before, self._times)))
        if same < len(before):
            last = int(table.steps["step"][same - 1]) if same else 0
            self._sent = {name: min(step, last) for name, step in self._sent.items()}
        begin = self._times[0] if self._times else time.time()
        for row in table.rows():
            step = int(row["step"])
            new = {name: value for name, value in row.items() if step > self._sent.get(name, -1)}
            self._sent |= dict.fromkeys(new, step)
            if new.keys() - {"step", "time"}:
                yield {"step": step, "time": row.get("time", begin), **new}
