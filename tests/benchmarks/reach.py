"""How long it takes to reach any step of a run, and what its folder and its shared file weigh.

``python tests/benchmarks/reach.py [--values 30147 --steps 20000 --budget 2000]``: a journal of so many steps with
made-up slopes, key frames where a run would have kept them, thinned to the budget (MiB); then the step with the longest
way from a frame, another one, and the last. No model is needed: a replay runs none.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sparsezo_gui.engine.runs import checkpoints, journal
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.runs.lineage import Lineage, Segment
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.recipe import Recipe

MASK = "0" * 64


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=30147)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--budget", type=int, default=2000, help="MiB of key frames")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sparsezo-reach-") as folder:
        reach(Path(folder), options.values, options.steps, options.budget * 2**20)


def reach(folder: Path, values: int, steps: int, budget: int) -> None:
    """Makes the run and reaches its steps."""
    start = 0.05 * torch.randn(values, generator=torch.Generator().manual_seed(0))
    recipe, header = Recipe(), journal.Header(1, 0, MASK, MASK, "philox")
    chance, path = random.Random(0), folder / "journal.bin"
    with JournalWriter(path, header) as writer:
        for step in range(1, steps + 1):
            writer.append(step=step, tokens=900, loss=chance.random(), rate=1e-6, seconds=chance.random(),
                          memory=chance.randrange(2**30), values=(chance.gauss(0, 5),))  # fmt: skip
    found = journal.read(path)
    spacing = checkpoints.spacing(values)
    # What a frame weighs depends on how far the values have moved; where they lie does not.
    moved = start + 1e-4 * torch.randn(values, generator=torch.Generator().manual_seed(1))
    states, bytes_each = (None, recipe.update.start(start)), 0
    for step in range(spacing, steps + 1, spacing):
        frame = checkpoints.write(folder, step, step, start, moved, states, MASK, found.hash(step))
        bytes_each = frame.stat().st_size
        checkpoints.thin(folder, found, budget)
    kept = [frame.step for frame in checkpoints.listed(folder)]
    gaps = {b - 1: b - a for a, b in zip([0, *kept], [*kept, steps + 1], strict=True)}
    print(
        f"{values:,} values, {steps:,} steps: a frame of {bytes_each / 1e6:.2f} MB every {spacing} steps, of which "
        f"{len(kept)} are kept, {len(kept) * bytes_each / 1e6:.0f} MB; longest way {max(gaps.values()) - 1} steps"
    )
    tuned: Any = SimpleNamespace(
        values=start.clone(), start=start, mask=SimpleNamespace(size=values, hash=MASK),
        draw=lambda estimator, source, batch_size: estimator.draw(source, batch_size),
        shape=lambda estimator, drawn, step, state: estimator.shape(drawn, state),
        reset=lambda: tuned.values.copy_(start),
    )  # fmt: skip
    session = Session(recipe, SimpleNamespace(), tuned)  # type: ignore[arg-type]
    for name, step in (("the farthest", max(gaps, key=gaps.__getitem__)), ("one by chance", chance.randrange(steps)),
                       ("the last", steps)):  # fmt: skip
        part = Segment(SimpleNamespace(path=folder, facts=None), recipe, found, step)  # type: ignore[arg-type]
        began = time.perf_counter()
        for _ in replay(session, Lineage((part,))):
            pass
        print(f"  {name}, step {step:,}: {time.perf_counter() - began:.2f} s")
    with zipfile.ZipFile(folder / "j.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        packed.write(path)
    size = path.stat().st_size
    print(f"  journal {size / 1e6:.2f} MB ({(size - 128) / steps:.0f} bytes a step), shared "
          f"{(folder / 'j.zip').stat().st_size / 1e6:.2f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
