"""Masks that are found once and used by every run that would find the same.

A mask is kept under a hash of all that it depends on: the frozen weights as the model holds them, the rule with its
settings, the text it reads, and the seed if it draws anything. So a run with a kept mask has the same values to the bit
as one that searches; its recorded search time is that of the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sparsezo_gui.answers import Cost
from sparsezo_gui.engine.files import home, write_text
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.calibration import Calibrated
from sparsezo_gui.engine.masks.rule import MaskRule, Search, find_measured
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import SPACES

MOST = 8  # that the program keeps between runs
LARGEST = 2**28  # bytes of one that it keeps: a run folder has it anyway


def draws(rule: MaskRule) -> bool:
    """Whether the mask depends on the seed. Scores of text do not; subspaces and adapters begin at random."""
    return not (isinstance(rule, Calibrated) and SPACES[rule.space].lists_entries)


def find_once(
    rule: MaskRule, model: FrozenModel, search: Search, table: ModelTable, again: bool = False
) -> Generator[Progress, None, tuple[Mask, Cost]]:
    """`find_measured` for the model of ``table``, unless the program found that mask before; or ``again``."""
    return (yield from KeptMasks(home() / "masks", table, MOST, again).find(rule, model, search))


@dataclass(frozen=True)
class KeptMasks:
    """The masks kept in ``folder`` for the model of ``table``: all, or the ``most`` that were used last. With
    ``again``, they are found anew."""

    folder: Path
    table: ModelTable
    most: int | None = None
    again: bool = False

    def find(self, rule: MaskRule, model: FrozenModel, search: Search) -> Generator[Progress, None, tuple[Mask, Cost]]:
        """`find_measured`, unless the mask was found before."""
        if not rule.cost():
            return (yield from find_measured(rule, model, search))
        yield Progress("Reading text for the mask")
        search = replace(search, known={})
        file = self.folder / f"{self._key(rule, model, search)}.safetensors"
        if found := self._kept(file, model):
            return found
        mask, measured = yield from find_measured(rule, model, search)
        if self.most and sum(tensor.nbytes for tensor in (*mask.indices.values(), *mask.parts.values())) > LARGEST:
            return mask, measured
        try:
            self._keep(file, mask, measured)
        except (UserError, OSError):  # on a full disk, a run needs no mask kept
            with suppress(OSError):
                file.unlink(missing_ok=True)
        return mask, measured

    def _kept(self, file: Path, model: FrozenModel) -> tuple[Mask, Cost] | None:
        if self.again:
            return None
        with suppress(UserError, OSError, ValueError, TypeError):  # damaged or just removed: it is found again
            cost = Cost(**json.loads(file.with_suffix(".json").read_text(encoding="utf-8")), kept=True)
            mask = masks.load(file, model.spec.linears, model.fingerprint)
            file.with_suffix(".json").touch()
            return mask, cost
        return None

    def _keep(self, file: Path, mask: Mask, cost: Cost) -> None:
        mask.save(file)
        write_text(file.with_suffix(".json"), json.dumps({"seconds": cost.seconds, "bytes": cost.bytes}))
        used = sorted(self.folder.glob("[!.]*.json"), key=lambda each: each.stat().st_mtime, reverse=True)
        for old in used[self.most :] if self.most else ():
            old.unlink(missing_ok=True)
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def _key(self, rule: MaskRule, model: FrozenModel, search: Search) -> str:
        seed = (search.seed, search.generator) if draws(rule) else None
        held = self.table.model_dump_json(), model.fingerprint, model.device.type, model.dtype
        known = held, type(rule).__name__, rule.model_dump_json(), rule.reads(model, search), seed
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]
