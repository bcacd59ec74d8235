"""The steps of a run as one array. Does not need torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.lineage import lineage_of

COLUMNS = {
    "step": "number of the step",
    "time": "time of day at its end, seconds since 1970",
    "loss": "training loss, nats, mean of the forward passes; none in a private run",
    "projected_gradient": "slope of the loss along the first perturbation",
    "rate": "learning rate",
    "seconds": "time that it took",
    "memory_bytes": "memory in use",
    "tokens": "tokens of its forward passes",
}
"""The columns that describe a step, with what they hold."""
_FIELDS = {"memory_bytes": "memory"}


def steps_of(run: RunFolder) -> np.ndarray[Any, Any]:
    """All steps that led to the current one, also those of the runs it branched from, with `COLUMNS`. Raises
    `UserError`."""
    parts = [_columns(part.steps) for part in lineage_of(run).segments]
    return np.concatenate(parts)


def _columns(records: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The columns of a journal's records."""
    whole = {"step": np.int64, "memory_bytes": np.int64, "tokens": np.int64}
    found = np.zeros(len(records), [(name, whole.get(name, np.float64)) for name in COLUMNS])
    for name in COLUMNS:
        if name == "projected_gradient":
            found[name] = records["values"].reshape(len(records), -1)[:, 0] if len(records) else 0
        else:
            found[name] = records[_FIELDS.get(name, name)]
    return found
