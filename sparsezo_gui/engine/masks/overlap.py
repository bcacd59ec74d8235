"""How much of a mask is in the other masks that the program keeps, from their files alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.answers import Overlap
from sparsezo_gui.engine.files import home
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.mask import Mask
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.registry import MASKS, SPACES


def overlaps(mask: Mask, folder: Path | None = None) -> tuple[Overlap, ...]:
    """The overlap of ``mask`` with each other one of the same model kept in ``folder`` (None: the program's), the
    largest first; none if it does not list single weights."""
    if not SPACES[mask.space].lists_entries or not mask.size:
        return ()
    found = [_overlap(mask, other) for other in _others(mask, folder or home() / "masks")]
    return tuple(sorted(found, key=lambda each: each.shared, reverse=True))


def _others(mask: Mask, folder: Path) -> Iterator[masks.Listed]:
    for file in sorted(folder.glob("[!.]*.safetensors")):
        with suppress(UserError, OSError, ValueError, TypeError):  # damaged or just removed
            other = masks.listed(file)
            if other.fingerprint == mask.fingerprint and other.hash != mask.hash and other.indices:
                yield other


def _overlap(mask: Mask, other: masks.Listed) -> Overlap:
    shared = sum(_shared(own, other.indices[name]) for name, own in mask.indices.items() if name in other.indices)
    size = sum(indices.numel() for indices in other.indices.values())
    rule = str(other.rule.get("rule", ""))
    # Of two masks that are drawn at random, independently of each other.
    chance = min(1.0, size / max(mask.eligible, other.eligible, 1))
    return Overlap(MASKS[rule].title if rule in MASKS else rule, _differing(mask.rule, other.rule), size, shared,
                   shared / mask.size, chance)  # fmt: skip


def _shared(one: Tensor, other: Tensor) -> int:
    """How many numbers are in both; each is ascending."""
    if not len(one) or not len(other):
        return 0
    places = torch.searchsorted(other, one.to(other.device)).clamp_(max=len(other) - 1)
    return int((other[places] == one.to(other.device)).sum())


def _differing(own: Any, other: Any) -> dict[str, Any]:
    """Settings of the ``other`` rule that are not as in one's ``own``; all, if that is another rule."""
    same = own.get("rule") == other.get("rule")
    shown = other.keys() & own.keys() if not same else other.keys()
    return {key: other[key] for key in sorted(shown - {"rule"}) if other[key] != own.get(key)}
