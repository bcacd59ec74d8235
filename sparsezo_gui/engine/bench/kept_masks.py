"""Masks of a benchmark that are found once and used by every run that would find the same.

A mask is kept under a hash of all that it depends on: the frozen weights as the model holds them, the rule with its
settings, the examples if it reads them, and the seed if it draws anything. So a run with a kept mask has the same
values to the bit as one that searches; its recorded search time is that of the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from sparsezo_gui.answers import Cost
from sparsezo_gui.engine.files import write_text
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.calibration import Calibrated
from sparsezo_gui.engine.masks.rule import MaskRule, Search, find_measured
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import SPACES


def draws(rule: MaskRule) -> bool:
    """Whether the mask depends on the seed. Scores of text do not; subspaces and adapters begin at random."""
    return not (isinstance(rule, Calibrated) and SPACES[rule.space].lists_entries)


@dataclass(frozen=True)
class KeptMasks:
    """The masks kept in ``folder`` for the model of ``table``."""

    folder: Path
    table: ModelTable

    def find(self, rule: MaskRule, model: FrozenModel, search: Search) -> Generator[Progress, None, tuple[Mask, Cost]]:
        """`find_measured`, unless the mask was found before."""
        file = self.folder / f"{self._key(rule, model, search)}.safetensors"
        cost = file.with_suffix(".json")
        if cost.exists():  # written last
            return masks.load(file, model.spec.linears, model.fingerprint), Cost(**json.loads(cost.read_text()))
        mask, measured = yield from find_measured(rule, model, search)
        if rule.cost():
            self.folder.mkdir(parents=True, exist_ok=True)
            mask.save(file)
            write_text(cost, json.dumps({"seconds": measured.seconds, "bytes": measured.bytes}))
        return mask, measured

    def _key(self, rule: MaskRule, model: FrozenModel, search: Search) -> str:
        reads = search.data.model_dump_json() if rule.reads_task else ""
        seed = search.seed if draws(rule) else None
        known = [self.table.model_dump_json(), model.fingerprint, type(rule).__name__, rule.model_dump_json(), reads]
        return hashlib.sha256(json.dumps([*known, seed]).encode()).hexdigest()[:16]
