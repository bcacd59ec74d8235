"""Tasks, and data sets before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from sparsezo_gui.recipe.events import Notice
from sparsezo_gui.recipe.metrics import metric
from sparsezo_gui.recipe.variants import Settings

Pieces = tuple[tuple[str, bool], ...]
"""Parts of a text, each with whether it is trained."""


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

    ``rows`` are the cells of the page as text, in file order, and ``available`` counts all rows of that file. ``names``
    are those by which a recipe leaves the rows out, and ``left_out_rows`` those that it does, each with the beginning
    of its text. ``totals`` counts the examples a run would use, by split (the rows, if there is a problem).
    ``columns_of`` gives the column of each part, and ``suggestion`` a column for parts without one. ``problem`` says
    what keeps rows from becoming examples ('' if nothing does); the fields after it are filled as far as possible.
    ``notices`` are those of the run, without the number of rows left out, and ``offer`` is the setting in [data] that
    fixes the problem ('' for none). ``examples`` are those of the page, as pieces of text with whether they are trained
    (tokens if a tokenizer was given; the correct candidate counts as trained), and ``left_out`` counts the characters
    of each that are omitted in its middle. ``classes`` counts training examples by answer. ``lengths`` are (longest
    tokens of the bar, examples) over all splits, ``longest`` is the longest example, ``longest_tokens`` its length;
    ``cut`` counts examples that lose tokens. ``tokenizer_problem`` says why the model's
    tokenizer cannot be used, if there are no tokens.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    page: int
    available: int
    totals: dict[str, int]
    columns_of: dict[str, str]
    suggestion: dict[str, str]
    names: tuple[str, ...] = ()
    left_out_rows: tuple[tuple[str, str], ...] = ()
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
