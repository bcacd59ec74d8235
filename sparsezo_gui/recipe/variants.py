"""What a variant is: a frozen value whose fields are its hyper-parameters.

A variant is one file and one line in `sparsezo_gui.recipe.registry`. The form in the window, ``sparsezo methods``, the
recipe file and the test matrices are generated from its fields. The file must not import torch at the top: the window
builds its forms from the class long before torch is loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    basic: bool = False,
    sane: tuple[float, float] | None = None,
    title: str = "",
    **bounds: Any,
) -> Any:
    """A field: default, one sentence of help, unit, bounds (``ge gt le lt``) and the usual range ``sane``.

    ``basic`` fields are always shown; all others are under Advanced. ``title`` is the label in the window, by default
    the key in words.
    """
    extra = cast("JsonDict", asdict(Shown(unit, basic, sane, title)))
    return Field(default, description=help, json_schema_extra=extra, **bounds)


@dataclass(frozen=True)
class Shown:
    """What a form shows with a field, besides its help; see `setting`."""

    unit: str
    basic: bool
    sane: tuple[float, float] | None
    title: str


def shown(field: FieldInfo) -> Shown:
    """What goes with a field made by `setting`."""
    return Shown(**cast("dict[str, Any]", field.json_schema_extra))


class Settings(BaseModel):
    """A frozen table of the recipe that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Variant(Settings):
    """One implementation of one part of a run. The docstring's first line describes it; ``paper`` names its source."""

    rule: str
    title: ClassVar[str]
    paper: ClassVar[str] = ""

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]
