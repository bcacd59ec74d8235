"""Commands on a run that need no prompt: `branch`, `verify`, `share`, `receive`, `note` and `log`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui.cli.command import RUN, SETTINGS, STEP, argument, command, past
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import LOGS
from sparsezo_gui.recipe import events as e

if TYPE_CHECKING:
    from sparsezo_gui.answers import Content


@command(
    "branch", "Start a new run from any step of another one, with different settings.", RUN, STEP, SETTINGS,
    argument("--name", default="", metavar="NAME", help="name of the new run"),
)  # fmt: skip
def branch(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.branch import branch

    run, step = past(options)
    made = branch(run, step, options.set, options.name)
    start, resume = made.start, shlex.join(["sparsezo", "resume", str(made.path)])
    console.result(
        {"run": str(made.path), "name": made.name, "step": start},
        f"{made.path}: continues from step {start} of '{run.name}'. To start it: {resume}",
    )


@command("verify", "Replay a run's journal and check the hash of its tuned values.", RUN, loads=True)
def verify(options: argparse.Namespace, console: Console) -> int:
    """Replays the journal from its start, compares the hash of the tuned values with the recorded one, and says how
    exact that is."""
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session.opening import loaded, restore
    from sparsezo_gui.recipe.outcome import on_lineage

    run = open_run(options.run)
    ends = [event for event in on_lineage(run.events()) if isinstance(event, e.Finished)]
    if not ends:
        raise UserError(f"{options.run}: this run has not recorded a hash yet. It does so when it stops or finishes.")
    step, recorded = ends[-1].step, ends[-1].hash
    session = console.finish(loaded(run))
    replayed = console.finish(restore(session, run, step, from_checkpoints=False))
    found = session.tuned.hash()
    words = f"The replay of {step} steps gives bit-identical values: {found}"
    if found != recorded:
        words = (
            f"The replay of {step} steps gives values with hash {found}, but the run recorded {recorded}: its "
            "journal or events were changed. Restore them from a copy of the run."
        )
    if found != recorded and replayed.rounding:
        words = (
            f"The replay of {step} steps gives the run's values to rounding, not bit for bit: other hardware and other "
            "versions of libraries compute other last bits."
        )
    if replayed.recorded:
        words += f"\nRecorded exact gradients: {replayed.recorded:,} steps, replayed bit for bit."
    if replayed.again:
        words += (
            f"\nExact gradients computed again: {replayed.again:,} steps, whose numbers in the journal differ by at "
            f"most {replayed.difference:.1e} of their size."
        )
    facts = {"step": step, "hash": found, "same": found == recorded, **dataclasses.asdict(replayed)}
    console.result(facts, words)
    return int(found != recorded and not replayed.rounding)


@command(
    "share", "Write a run to a small file from which others can rebuild every step.", RUN,
    argument("--out", metavar="FILE", required=True, help="file to write (.zip)"),
    argument("--with-mask", action="store_true", help="include the mask even if it is large"),
    argument("--with-examples", action="store_true", help="include the best and worst examples of the evaluations: "
             "rows of your data, word for word"),
)  # fmt: skip
def share(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.runs.share import contents, share

    run, more = open_run(options.run), (options.with_mask, options.with_examples)
    console.say(f"{options.out} will contain:\n{_listed(contents(run, *more))}")
    shared = share(run, Path(options.out), *more)
    mask = "with its mask" if shared.with_mask else "without its mask, which the other computer finds again"
    facts = {"out": options.out, **dataclasses.asdict(shared)}
    words = f"{options.out}: {shared.bytes:,} bytes; {mask}. It contains:\n{_listed(shared.contents)}"
    words = f"{words}\n{shared.lacks}" if shared.lacks else words
    console.result(facts, words if options.with_examples else f"{words}\nIt contains no examples from your data.")


@command(
    "receive", "Unpack a shared run.",
    argument("file", metavar="FILE", help="file written by 'sparsezo share'"),
    argument("--run", metavar="DIR", help="folder of the run (default: a new one in your runs folder)"), SETTINGS,
)  # fmt: skip
def receive(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.share import lacks, receive

    run = receive(Path(options.file), Path(options.run) if options.run else None, options.set)
    keys, words = lacks(run)
    unpacked = f"{run.path}: check it with {shlex.join(['sparsezo', 'verify', str(run.path)])}"
    facts = {"run": str(run.path), "name": run.name, "lacks": keys}
    console.result(facts, f"{unpacked}\n{words}" if words else unpacked)


@command("note", "Show or replace your notes on a run.", RUN, argument("--text", metavar="TEXT", help="the new notes"))
def note(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import open_run

    run = open_run(options.run)
    if options.text is not None:
        run.note(options.text)
    console.result({"notes": run.notes}, run.notes or "No notes yet.", to_read=True)


def _listed(contents: Iterable[Content]) -> str:
    return "\n".join(f"  {each.file} ({each.bytes:,} bytes): {each.holds}" for each in contents)


@command(
    "log", "Write a run's curves (losses, rates, times, metrics) for other programs, also while it runs.", RUN,
    argument("--to", choices=tuple(LOGS), required=True, help="a CSV or Parquet file, a folder for TensorBoard, or a "
             "project of Trackio; the last two need: pip install 'sparsezo-gui[log]'"),
    argument("--out", default="", metavar="PATH", help="file or folder to write, or the project of Trackio (default: "
             "named after the run; 'sparsezo' for Trackio)"),
    argument("--follow", action="store_true", help="go on as long as the run does"),
)  # fmt: skip
def log(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.log import log_run

    report = console.finish(log_run(options.run, options.to, options.out, options.follow))
    console.result(report, report["told"])
