"""The tuned values of a run together with those of the tuned model that it started from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sparsezo_gui.engine.export.overlay_file import Changes
from sparsezo_gui.engine.pretrained.changes import Entries, LowRank
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import Product
from sparsezo_gui.errors import UserError


def all_changes(session: Session) -> Changes:
    """Indices and values of all weights that this run or earlier tuning changed. Raises `UserError` if earlier tuning
    changed whole weights."""
    model, found = session.model, dict(session.tuned.changes())
    for name, indices in _earlier(session):
        changed = [indices.int(), *([found[name][0]] if name in found else [])]
        union = torch.cat(changed).unique()
        values = model.checkpoint.read(name).reshape(-1)[union.long()].float()
        if name in found:
            values[torch.searchsorted(union, found[name][0])] = found[name][1]
        found[name] = union, values
    return {name: found[name] for name in model.source.spec.shapes if name in found}


def originals(checkpoint: Checkpoint, changes: Changes) -> Mapping[str, Tensor]:
    """The values of the pretrained model at the indices of ``changes``, fp32."""
    return {
        name: checkpoint.read_stored(name).reshape(-1)[indices.long()].float() for name, (indices, _) in changes.items()
    }


def all_products(session: Session) -> dict[str, Product]:
    """What this run and earlier tuning added to each weight, as one product each. Raises `UserError` if earlier tuning
    changed single weights."""
    found = dict(session.tuned.products())
    for layer in session.model.source.layers:
        for name, change in layer.changes.items():
            if not isinstance(change, LowRank):
                raise _mixed(layer.what)
            before = Product(*change.product())
            found[name] = _sum(found[name], before) if name in found else before
    return found


def _sum(first: Product, second: Product) -> Product:
    """The sum of two products as one, of all their ranks."""
    factor = second.scale / first.scale
    return Product(torch.cat([first.a, second.a]), torch.cat([first.b, second.b * factor], dim=1), first.scale)


def _earlier(session: Session) -> Iterator[tuple[str, Tensor]]:
    """Names and indices of the single weights that earlier tuning changed."""
    for layer in session.model.source.layers:
        for name, change in layer.changes.items():
            if not isinstance(change, Entries):
                raise _mixed(layer.what)
            yield name, change.indices


def _mixed(what: str) -> UserError:
    return UserError(
        f"This run started from {what}, and this format cannot hold both that and what the run tuned. Export it with "
        "--format hf."
    )
