"""What the engine answers, as plain values for the window and the command line. Imports neither torch nor Qt.

The engine makes these and the window shows them, so neither has to import the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator

from sparsezo_gui.recipe.events import Event, Notice
from sparsezo_gui.recipe.metrics import metric
from sparsezo_gui.recipe.variants import Settings

if TYPE_CHECKING:
    import numpy as np

    from sparsezo_gui.recipe import Recipe

TIGHT = 0.85  # of the available memory; beyond it the estimate's own error could decide
METHODS = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}  # that memory is compared with
CLEAR = 0.99  # times the base's loss, below which a learning rate has lowered it
Pieces = tuple[tuple[str, bool], ...]
"""Parts of a text, each with whether it is trained."""


# Models


@dataclass(frozen=True)
class ModelSummary:
    """One model in a list. ``bytes`` are those of its weight files; 0 and '' stand for what is not known."""

    id: str
    title: str
    kind: str
    """'bundled', 'folder', 'cache' or 'hub'."""
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    licence: str = ""
    gated: bool = False
    problem: str = ""
    """Why it cannot be tuned here, in a sentence; empty when it can."""


class ModelCode(Protocol):
    """The Python code that comes with a model: its ``files`` by name, relative to ``folder``."""

    @property
    def model(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...


# Memory


@dataclass(frozen=True)
class Part:
    """One part of the memory: ``bytes``, and why it is there in one sentence."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Parts in the order they are shown, against what the device could give now; other methods for comparison."""

    parts: tuple[Part, ...]
    available: int
    """Bytes that this program can use now: free ones and those it uses already."""
    capacity: int
    """Bytes that the device has."""
    rows: int
    """Rows of activations (perturbations × tokens) per pass (see `sparsezo_gui.engine.forward.PACK_ROWS`)."""
    small: int
    """Total bytes with fewer rows per pass, which a run uses automatically when memory is short."""
    others: dict[str, int]
    """Bytes that 'lora', 'qlora' and 'full' fine-tuning would take for the same pack of tokens; always estimated."""
    measured: bool = False
    """Whether the parts were measured; all other figures are estimates."""
    search: int = 0
    """Bytes that finding the mask takes before the run, beyond measured parts; a part among estimated ones."""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(part.bytes for part in self.parts)

    @property
    def verdict(self) -> str:
        """'fits', 'tight' or 'too large'."""
        most = self.total + self.search
        if most > self.available:
            return "too large"
        return "fits" if most <= TIGHT * self.available else "tight"

    def as_json(self) -> dict[str, Any]:
        """Plain object with total and verdict."""
        return {**asdict(self), "total": self.total, "verdict": self.verdict}


# Data


class Candidate(Settings):
    """A possible answer of a task: its text, and the lower-case words that mean it in a label column."""

    text: str
    labels: tuple[str, ...]


def _deciding(name: str) -> str:
    if not metric(name).decides:
        raise ValueError("must be a metric that decides, see `sparsezo_gui.recipe.metrics`")
    return name


class Task(Settings):
    """How rows become examples, and how answers to them are scored; see `sparsezo_gui.engine.data.tasks`."""

    name: str
    title: str
    kind: Literal["choice", "completion", "chat", "text", "preference"]
    metric: Annotated[str, AfterValidator(_deciding)]
    paper: str = ""
    prompt: str = ""
    answers: tuple[Candidate, ...] = ()
    items: str = ""
    item: str = ""
    none: str = ""
    stop: str = ""
    chat_template: bool = False
    explode: tuple[str, ...] = ()
    columns: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class DataPreview:
    """One page of a data set, and the examples it would become.

    ``rows`` are the cells of the page as text, in file order, and ``available`` counts all rows of that file.
    ``totals`` counts the rows a run would use, by split. ``columns_of`` gives the column of each part, and
    ``suggestion`` a column for parts without one. ``problem`` says what keeps rows from becoming examples ('' if
    nothing does); the fields after it are filled as far as possible. ``notices`` are those of the run, and ``offer``
    is the switch in [data] that fixes the problem ('' for none). ``examples`` are those of the page, as pieces of text
    with whether they are trained (tokens if a tokenizer was given; the correct candidate counts as trained), and
    ``left_out`` counts the characters of each that are omitted in its middle. ``classes`` counts training examples by
    answer. ``lengths`` are (longest tokens of the bar, examples) over all splits, ``longest`` is the longest example,
    ``longest_tokens`` its length; ``cut`` counts examples that lose tokens. ``tokenizer_problem`` says why the model's
    tokenizer cannot be used, if there are no tokens.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    page: int
    available: int
    totals: dict[str, int]
    columns_of: dict[str, str]
    suggestion: dict[str, str]
    problem: str = ""
    offer: str = ""
    notices: tuple[Notice, ...] = ()
    examples: tuple[Pieces, ...] = ()
    left_out: tuple[int, ...] = ()
    classes: dict[str, int] | None = None
    lengths: tuple[tuple[int, int], ...] = ()
    longest: Pieces = ()
    longest_tokens: int = 0
    cut: int = 0
    tokenizer_problem: str = ""


# Method


@dataclass(frozen=True)
class Cost:
    """The cost of finding a mask: seconds, and the peak memory of the process in bytes."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Tally:
    """The number of eligible ``weights`` under a label, and of ``tuned`` ones."""

    label: str
    tuned: int
    weights: int


@dataclass(frozen=True)
class MaskReport:
    """A mask in numbers. ``cost`` is that of finding it, without loading the model."""

    tuned: int
    eligible: int
    cost: Cost
    layers: tuple[Tally, ...]
    """One entry per decoder block, '0', '1', …, in the model's order."""
    kinds: tuple[Tally, ...]
    """One entry per kind of weight, such as 'q_proj' or 'down_proj': the last part of its module's name."""


@dataclass(frozen=True)
class Rung:
    """The result of ``rate``: the ``loss`` on the held-out examples, in nats; None if it was not worth measuring."""

    rate: float
    loss: float | None
    stable: bool


@dataclass(frozen=True)
class RateReport:
    """``rate`` is the one to use, None if no rate lowered the loss; ``base`` is the initial loss."""

    rungs: tuple[Rung, ...]
    base: float
    steps: int
    rate: float | None

    @property
    def best(self) -> Rung | None:
        """The rung with the lowest loss, of those that are stable and lower it."""
        lower = [rung for rung in self.rungs if rung.stable and rung.loss is not None and rung.loss < CLEAR * self.base]
        return min(lower, key=lambda rung: rung.loss or 0.0, default=None)

    @property
    def words(self) -> str:
        """The result in sentences."""
        low, high = self.rungs[0].rate, self.rungs[-1].rate
        tried = f"of the rates from {short_rate(low)} to {short_rate(high)}, each for {self.steps} steps,"
        unstable = next((rung.rate for rung in self.rungs if not rung.stable), None)
        end = f" From {short_rate(unstable)} on, the loss increased." if unstable else ""
        if self.best is None or self.rate is None:
            return f"None {tried} clearly lowered the loss of {self.base:.3g}.{end} More steps may show a difference."
        return (
            f"{short_rate(self.rate)} is a good rate: {tried} {short_rate(self.best.rate)} lowered the loss the most, "
            f"from {self.base:.3g} to {self.best.loss:.3g}, and a long run needs a third of that.{end}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain object."""
        return asdict(self)


def short_rate(rate: float) -> str:
    """A learning rate with two digits, such as 0.003 or 5e-7."""
    return f"{rate:.2g}".replace("e-0", "e-")


# Runs


@dataclass(frozen=True)
class RunSummary:
    """An entry in the list of runs. ``state`` is 'done', 'stopped', 'running' or 'damaged'; ``parent`` is the path of
    the run that it branched from at step ``start``; ``best`` is the best step on the validation examples; ``epsilon``
    and ``delta`` are the privacy budget spent, if recorded after its last step."""

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

    def as_json(self) -> dict[str, Any]:
        """As a plain object."""
        return asdict(self)


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
    """A shared run: size of the file, whether it includes the mask, and its contents."""

    bytes: int
    with_mask: bool
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class Received:
    """An unpacked run, and a sentence on what it came without; empty if nothing is missing."""

    folder: Path
    lacks: str


@dataclass(frozen=True)
class Exported:
    """An exported ``step`` of a run: the number of ``tuned`` values, and sentences ``told`` about the check."""

    step: int
    tuned: int
    told: tuple[str, ...]
