"""The content of a run's ``run.json``. See the package's docstring for the layout of the folder."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

VERSION: Final = 5
PREPARED = 2  # how rows become examples, see `Facts.prepared`
_SHA256 = "^[0-9a-f]{64}$"


class Branched(BaseModel):
    """Where a branch starts: at ``step`` of its parent, after the first ``records`` of its journal, which have the
    ``hash`` (None: before version 3), with ``factor`` on the scheduled rate."""

    model_config = ConfigDict(frozen=True)

    step: int = Field(ge=0, lt=2**32)
    records: int = Field(ge=0)
    hash: str | None = Field(None, pattern=_SHA256)
    factor: float = Field(1.0, ge=0, allow_inf_nan=False)


class Facts(BaseModel):
    """The content of ``run.json``, fixed from the start of the run."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1, 2, 3, 4, 5] = VERSION
    name: str = ""
    created: str = ""
    versions: dict[str, str] = {}
    model: str
    revision: str
    fingerprint: str = Field(pattern=_SHA256)
    generator: str = Field(max_length=48)
    mask_hash: str = Field(pattern=_SHA256)
    data_hash: str | None = Field(None, pattern=_SHA256)  # None in a branch with other data until it starts
    examples: int | None = Field(None, ge=1)  # to train on; None in runs older than this field
    prepared: int = Field(1, ge=1)  # the version of how rows become examples; 1 before version 4
    inputs: dict[str, str] = {}  # hashes, see `sparsezo_gui.engine.provenance`; incomplete in old runs and new branches
    recipe: dict[str, Any] | None = None  # its initial values, see `sparsezo_gui.recipe.values`
    parameters: int = Field(ge=1)
    eligible: int = Field(ge=1)
    tuned: int = Field(ge=1)
    pack_rows: int | None = Field(None, ge=1)  # sometimes missing in version 1
    mask_seconds: float | None = None  # to find the mask
    chosen: str = ""  # what [estimator] rule = 'auto' chose and why; the recipe has the concrete rules
    device: str
    branched: Branched | None = None

    @property
    def rounds(self) -> bool:
        """Whether exact gradients are rounded to 16 bits, so that they can be recorded; see `gradients`."""
        return self.version >= 5

    @model_validator(mode="after")
    def _hashed(self) -> Facts:
        if self.version >= 3 and self.branched and self.branched.hash is None:
            raise ValueError("a branch of version 3 has a hash")
        return self
