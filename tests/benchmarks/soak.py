"""An hour of a run with everything that can be asked of it: memory must stay flat, and nothing may be left over.

``python tests/benchmarks/soak.py [--minutes 60]`` tunes the starter model, and every few steps pauses, goes back,
evaluates a past step, asks the model, lets go of its memory, changes the rate, makes a branch or shares the run. It
prints a line a minute and, at the end, what grew.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import psutil

MB = 2**20
PROMPT = "my parcel is late."


def main() -> None:
    """Runs the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="sparsezo-soak-") as folder:
        os.environ["SPARSEZO_HOME"] = folder
        soak(Path(folder) / "run", 60 * minutes)


def soak(folder: Path, seconds: float) -> None:
    """Steps for so long, in one run, with commands in between."""
    from sparsezo_gui import recipe
    from sparsezo_gui.engine import training
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.recipe import events as e

    chosen = recipe.with_settings(
        recipe.load("starter"),
        ["loop.steps=1000000", "loop.evaluate_every=500", "data.validation=100", "data.test=0", "run.checkpoints=20"],
    )
    process, chance, commands = psutil.Process(), random.Random(0), SimpleQueue()
    start, minute, taken, asked = time.monotonic(), itertools.count(1), 0, dict[str, int]()
    told: list[tuple[int, int, int, int]] = []
    due = next(minute)
    for event in training.train(chosen, commands, folder):
        if not isinstance(event, e.Step):
            continue
        taken += 1
        if taken % 50 == 0:
            for command in choose(chance, event.step, folder):
                name = type(command).__name__
                asked[name] = asked.get(name, 0) + 1
                commands.put(command)
        elapsed = time.monotonic() - start
        if elapsed > seconds:
            commands.put(e.Stop())
        elif elapsed > 60 * due:
            gc.collect()
            state = (process.memory_info().rss // MB, threading.active_count(), process.num_fds(), taken)
            told.append(state)
            print(f"minute {due}: step {event.step}, {state[0]} MiB, {state[1]} threads, {state[2]} files, "
                  f"{sum(each.stat().st_size for each in folder.rglob('*') if each.is_file()) / 1e6:.1f} MB on disk",
                  flush=True)  # fmt: skip
            due = next(minute)
    hidden = [path.name for path in folder.rglob(".*")]
    branches = sum(1 for _ in (folder / "branches").glob("*/run.json"))
    print(f"{taken} steps; asked: {asked}; {branches} branches; left over: {hidden}")
    if len(told) > 4:
        early, late = told[2], told[-1]
        print(f"memory {early[0]} -> {late[0]} MiB, threads {early[1]} -> {late[1]}, files {early[2]} -> {late[2]}")
    assert open_run(folder).events(), "the run can be read"


def choose(chance: random.Random, step: int, folder: Path) -> list:
    """Something to ask of the loop, each kind now and then; branches and sharing need no loop."""
    from sparsezo_gui.engine.runs.branch import branch
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.runs.share import share
    from sparsezo_gui.recipe import events as e

    past = chance.randint(0, step)
    match chance.randint(0, 23):
        case 0:
            return [e.Release(), e.Resume()]
        case 1:
            return [e.GoBack(max(step - chance.randint(1, 200), 0))]
        case 2 | 3:
            return [e.EvaluateNow("validation", past)]
        case 4 | 5 | 6:
            return [e.Ask(PROMPT, 16, 0), e.Ask(PROMPT, 16)]
        case 7 | 8 | 9:
            return [e.Pause(), e.Resume()]
        case 10:
            return [e.SetRate(chance.choice((0.5, 2.0)))]
        case 11:
            branch(open_run(folder), past, ["loop.seed=1"])
        case 12:
            out = folder.parent / "shared.zip"
            out.unlink(missing_ok=True)
            share(open_run(folder), out)
    return []


if __name__ == "__main__":
    main()
