"""Runs in lists, plots and files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsezo_gui.recipe.events import Event

if TYPE_CHECKING:
    import numpy as np

    from sparsezo_gui.recipe import Recipe


@dataclass(frozen=True)
class RunSummary:
    """An entry in the list of runs. ``state`` is 'preparing', 'running', 'done', 'stopped', 'interrupted' (while it was
    prepared, so that it has no steps) or 'damaged'; ``parent`` is the path of the run that it branched from at step
    ``start``; ``best`` is the best step on the validation examples; ``epsilon`` and ``delta`` are the privacy budget
    spent, if recorded after its last step; ``space`` is that of its values."""

    path: str
    name: str
    state: str
    step: int
    steps: int
    created: str
    model: str
    metrics: dict[str, float]
    parent: str = ""
    start: int = 0
    best: int | None = None
    notes: str = ""
    problem: str = ""  # why it is damaged
    epsilon: float | None = None
    delta: float | None = None
    space: str = "entries"
    tags: tuple[str, ...] = ()  # the user's
    data: str = ""  # its source
    method: str = ""  # a title
    tuned: int = 0  # values
    parameters: int = 0
    metric: str = ""  # the one that decides which step is best
    curve: tuple[float, ...] = ()  # of that metric, on the validation examples

    def as_json(self) -> dict[str, Any]:
        """As a plain object."""
        return asdict(self)


@dataclass(frozen=True)
class Removable:
    """What deleting a run removes: its folder of so many ``bytes``, with the ``branches`` in it."""

    path: str
    bytes: int
    branches: int


@dataclass(frozen=True)
class History:
    """``steps`` has one structured array (step, tokens, loss, rate, time, seconds, memory, values) for each run of the
    lineage, from the root on; ``events`` are those that still count; ``fault`` is a sentence."""

    run: RunSummary
    recipe: Recipe
    steps: list[np.ndarray[Any, np.dtype[np.void]]]
    events: list[Event]
    fault: str


@dataclass(frozen=True)
class Content:
    """A file in a shared run: its name, unpacked size, and a description of its content."""

    file: str
    bytes: int
    holds: str


@dataclass(frozen=True)
class Shareable:
    """The contents of a shared file of a run, without and with the best and worst examples."""

    contents: tuple[Content, ...]
    with_examples: tuple[Content, ...]


@dataclass(frozen=True)
class Shared:
    """A shared run: size of the file, whether it includes the mask, its contents, and how many steps have exact
    gradients that are not included."""

    bytes: int
    with_mask: bool
    contents: tuple[Content, ...]
    again: int = 0

    @property
    def lacks(self) -> str:
        """What the other computer needs besides, in a sentence; empty if nothing."""
        steps = f"{self.again:,} step{'s' if self.again != 1 else ''}"
        return f"It lacks the exact gradients of {steps}: rebuilding them takes the same data." if self.again else ""


@dataclass(frozen=True)
class Received:
    """An unpacked run, and a sentence on what it came without; empty if nothing is missing."""

    folder: Path
    lacks: str


@dataclass(frozen=True)
class Exported:
    """An exported ``step`` of a run: the number of ``tuned`` values, ``notes`` for the user, in sentences, where it was
    written, and the ``card`` of a file that has no room for one."""

    step: int
    tuned: int
    notes: tuple[str, ...]
    out: str = ""
    card: str = ""
