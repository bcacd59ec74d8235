"""Runs that no model is needed for."""

from __future__ import annotations

import zlib

import numpy as np

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import create
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.recipe import Recipe

HASH = "ab" * 32
FACTS = {
    "model": "m", "revision": "", "fingerprint": HASH, "generator": "philox", "mask_hash": HASH, "parameters": 9,
    "eligible": 9, "tuned": 3, "device": "cpu",
}  # fmt: skip
RECIPE = Recipe().with_rate(1e-4)  # a run that takes steps has found its rate
STEP = {"tokens": 1, "rate": 1.0, "seconds": 1.0, "memory": 1, "values": (1.0,)}


def run_of(path, steps=5, loss=1.0, recipe=None, **facts):
    """A run of so many steps."""
    run = create(path, recipe or RECIPE, {**FACTS, **facts})
    with JournalWriter(run.journal, run.header) as writer:
        for step in range(run.start + 1, run.start + steps + 1):
            writer.append(step=step, loss=loss, **STEP)
    return run


def long_run_of(path, steps):
    """A run of a great many steps, which are written at once."""
    run = create(path, RECIPE, FACTS)
    records = np.zeros(steps, journal.record_dtype(1))
    records["step"], records["loss"] = np.arange(1, steps + 1), 1.0
    body = records.view([("body", "V56"), ("crc", "<u4")])["body"]
    records["crc"] = np.fromiter(map(zlib.crc32, body.tolist()), np.uint32, steps)
    run.journal.write_bytes(run.header.pack() + records.tobytes())
    return run
