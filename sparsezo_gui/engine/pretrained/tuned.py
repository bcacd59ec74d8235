"""A tuned model as a model again: a base model, and what changes its weights while they are loaded.

A tuned model is an adapter, an overlay file or a step of a run; each kind is one file in `sparsezo_gui.engine.tuned`
and a line in `sparsezo_gui.formats`. Its base may be a tuned model too. A changed weight is read from the file of the
base, changed in fp32 and then quantised, one at a time, so that the whole model is never in memory in 32 bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui.errors import UserError, quoted
from sparsezo_gui.formats import tuned_model
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable

if TYPE_CHECKING:
    from sparsezo_gui.engine.pretrained.changes import Change
    from sparsezo_gui.engine.pretrained.source import ModelSource

DEEPEST = 50  # tuned models on top of each other


@dataclass(frozen=True, eq=False)
class Layer:
    """What lies on top of a base model: ``changes`` by parameter name, ``what`` they are in words, a ``digest`` of all
    of them, and the id of the ``base`` in a recipe."""

    what: str
    base: str
    changes: Mapping[str, Change]
    digest: str


class TunedModel(ABC):
    """A kind of tuned model. Each value is one, found by its id."""

    kind: str
    """Its kind in lists of models, as in `sparsezo_gui.answers.ModelSummary`."""

    @classmethod
    @abstractmethod
    def at(cls, id: str) -> TunedModel | None:
        """The model that ``id`` names, if it is of this kind. Raises `UserError`."""

    @classmethod
    def listed(cls) -> list[str]:
        """Ids of those on this computer, as far as there is a list of them."""
        return []

    @property
    @abstractmethod
    def base(self) -> tuple[str, str]:
        """Id and revision of the model it was tuned on. Raises `UserError`."""

    @abstractmethod
    def layer(self, base: ModelSource, table: ModelTable) -> Generator[Progress, None, Layer]:
        """What to put on top of ``base``, the model of ``table``, its base in a recipe. Raises `UserError` if it does
        not fit."""


def tables(table: ModelTable) -> list[tuple[TunedModel, ModelTable]]:
    """The tuned models that the model of ``table`` consists of, from the top down, each with the table of its base.
    Nothing if it is not tuned. Raises `UserError`."""
    found: list[tuple[TunedModel, ModelTable]] = []
    while (tuned := tuned_model(table.id)) is not None:
        if len(found) == DEEPEST:
            raise UserError(
                f"{table.id}: names a base model that names another, more than {DEEPEST} deep. Export one as a Hugging "
                "Face folder, and continue with that."
            )
        id, revision = tuned.base
        table = table.model_copy(update={"id": id, "revision": revision})
        found.append((tuned, table))
    return found


def untuned(table: ModelTable) -> ModelTable:
    """The table of the model below all tuning: its files are those of config and tokenizer. Raises `UserError`."""
    found = tables(table)
    return found[-1][1] if found else table


def beside(name: str, path: Path) -> str:
    """The id of the base model ``name`` in a recipe, where the tuned model at ``path`` names it: a folder or file with
    that relative path beside it, a bundled name, or a Hub id."""
    if name.startswith(("./", "../")):
        return next((str(each) for folder in (path, path.parent) if (each := folder / name).exists()), name)
    return name


def fitting(what: Path, shape: tuple[int, ...] | None, name: str, given: tuple[int, ...]) -> None:
    """Raises `UserError` if the tuned model ``what`` changes a weight ``name`` that its base does not have with the
    shape ``given``, (out, in)."""
    if shape is None or tuple(shape) != tuple(given):
        has = f"has it as {list(shape)}" if shape else "has no such weight"
        raise UserError(
            f"{what}: changes the weight {quoted(name)} of shape {list(given)}, but the base model {has}. It was tuned "
            "on another model; choose the right base model."
        )


def weight_shape(source: ModelSource, name: str) -> tuple[int, ...] | None:
    """Shape (out, in) of the matrix ``name`` of ``source``; None if it has none, or one tied to another."""
    spec = source.spec
    if name in spec.aliases or name in spec.aliases.values():
        return None
    shape = spec.linears.get(name) or spec.shapes.get(name)
    return shape if shape is not None and len(shape) == 2 else None
