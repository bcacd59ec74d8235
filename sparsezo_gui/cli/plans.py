"""Commands before a run: `plan`, `estimate`, `preview`, `rates`, `noise` and `mask`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui.cli.command import FLAG, RECIPE, SETTINGS, argument, command, positive, recipe_of
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import SPLITS
from sparsezo_gui.sizes import duration, latency, size

if TYPE_CHECKING:
    from sparsezo_gui.answers import Overlap, Plan, WayFigures


@command(
    "plan", "Compare ways to tune: memory, time and limits of each, for this model, data and computer.",
    RECIPE, SETTINGS,
    argument("--formula", action="store_true", help="estimate memory without loading the model; no times (default if "
             "the model is not on this computer)"),
    loads=True,
)  # fmt: skip
def plan(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.plan import plan

    found = console.finish(plan(recipe_of(options), False if options.formula else None))
    if console.as_json:
        console.table(found.as_json(), (), "")
    else:
        settings = [f"--set={setting}" for setting in options.set] + [FLAG] * options.trust_remote_code
        console.result({}, plan_text(found, ["sparsezo", "train", options.recipe, *settings]))


def plan_text(plan: Plan, run: Sequence[str]) -> str:
    """The plan for people; ``run`` is the command that starts the recipe."""
    known = [way.memory for way in plan.ways if way.memory]
    free = f", {size(known[0].available)} free" if known else ""
    wide = 2 + max(len(way.title) for way in plan.ways)
    lines = [f"{'':<{2 + wide}}{f'memory{free}':<26}{'a step':>9}{'usual steps':>13}{'in all':>12}"]
    for way in plan.ways:
        memory, pace, mark = way.memory, way.pace, "→ " if way.name == plan.recommended else "  "
        needs = f"{size(memory.most)} ({'measured' if memory.measured else 'estimated'})" if memory else "–"
        step, whole = (latency(pace.seconds), duration(way.seconds or 0.0)) if pace else ("–", "–")
        lines.append(f"{mark}{way.title:<{wide}}{needs:<26}{step:>9}{way.steps:>13,}{whole:>12}")
    for way in plan.ways:
        lines += ["", f"{way.title}: {way.problem or way.limits}"]
        if not way.problem:
            take = shlex.join(f"--set={each}" for each in way.settings) or "The recipe as it is."
            lines += [f"  {part}" for part in (*_before(way), take)]
    lines += ["", *plan.notes, f"Recommended: {plan.why}" if plan.best else plan.why]
    if plan.best:
        lines.append(f"To start it: {shlex.join([*run, *(f'--set={each}' for each in plan.best.settings)])}")
    return "\n".join(lines)


def _before(way: WayFigures) -> list[str]:
    """What a run does before its first step, in a line; none if nothing takes time."""
    if way.pace is None:
        return []
    pace = way.pace
    parts = (
        ("finding the mask", pace.search), ("computing once what enters the tuned blocks", pace.prefix),
        ("finding a learning rate", pace.rates),
    )  # fmt: skip
    told = [f"{what} about {duration(seconds)}" for what, seconds in parts if seconds]
    return [f"Before the steps: {', '.join(told)}."] if told else []


@command(
    "estimate", "Estimate the memory that a recipe needs, before downloading or loading anything.", RECIPE, SETTINGS,
    argument("--measure", action="store_true", help="load the model and run two steps on the largest batch"),
    loads=True,
)  # fmt: skip
def estimate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import planning

    chosen = recipe_of(options)
    console.memory(console.finish((planning.measure if options.measure else planning.estimating)(chosen)))


@command(
    "preview", "Show examples as the model sees them, and warnings about the data.", RECIPE, SETTINGS,
    argument("--split", choices=SPLITS, default="train", help="default: train"),
    argument("--examples", type=positive, default=5, metavar="N", help="how many (default: 5)"),
    loads=True,
)  # fmt: skip
def preview(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.planning import preview_examples

    console.preview(preview_examples(recipe_of(options), options.split, options.examples))


@command(
    "rates", "Find the learning rate, as a run without one does at its start.", RECIPE, SETTINGS,
    argument("--steps", type=positive, metavar="N", help="steps at each rate (default: a tenth of the run in all)"),
    loads=True,
)  # fmt: skip
def rates(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.rate_search import find_rate

    report = console.finish(find_rate(recipe_of(options), options.steps))
    lines = [report.words]
    for rung in report.rungs:
        loss = "diverged" if rung.loss is None else f"loss {rung.loss:.4f}"
        lines.append(f"{rung.rate:<8.2g} {rung.steps:>4} steps  {loss}{'' if rung.stable else ', unstable'}")
    if report.rate is not None:
        settings = [f"--set={setting}" for setting in (*options.set, f"update.learning_rate={report.rate:g}")]
        settings += [FLAG] * options.trust_remote_code
        lines.append(f"To use it: {shlex.join(['sparsezo', 'train', options.recipe, *settings])}")
    console.result(report.as_json(), "\n".join(lines))


@command(
    "noise", "Measure how much of the loss differences is rounding noise, and the epsilon that a run takes.", RECIPE,
    SETTINGS, loads=True,
)  # fmt: skip
def noise(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.noise_probe import probe_noise

    found = console.finish(probe_noise(recipe_of(options)))
    lines = [found.words]
    for each in found.trials:
        needed = "" if each.clear else f" (needed: {each.required:.1e})"
        lines.append(f"{each.epsilon:<8.2g} difference {each.difference:.1e}{needed}, noise {each.rounding:.1e}")
    console.result(found.as_json(), "\n".join(lines))


@command(
    "mask", "Find the weights to tune and save them as a mask file.", RECIPE, SETTINGS,
    argument("--out", metavar="FILE", required=True, help="mask file to write (.safetensors)"),
    argument("--again", action="store_true", help="search again, even if this mask was found before"),
    loads=True,
)  # fmt: skip
def mask(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import frozen, planning
    from sparsezo_gui.engine.masks.kept import find_once
    from sparsezo_gui.engine.masks.overlap import overlaps
    from sparsezo_gui.engine.masks.rule import Search

    chosen, out = recipe_of(options), Path(options.out)
    if out.exists():
        raise UserError(f"{out}: already exists. Choose another file.")
    chosen, _ = console.finish(planning.concrete(chosen))
    model = console.finish(frozen.load(chosen.model))
    model.spec = chosen.mask.tunable(model.spec)
    search = Search(chosen.loop.seed, chosen.data)
    mask, cost = console.finish(find_once(chosen.mask, model, search, chosen.model, options.again))
    mask.save(out, new=True)
    facts = {"tuned": mask.size, "eligible": mask.eligible, "hash": mask.hash, **dataclasses.asdict(cost)}
    shared = overlaps(mask)
    before, share = "before (--again searches again), " if cost.kept else "", 100 * mask.size / mask.eligible
    lines = [
        f"{out}: {mask.size:,} of {mask.eligible:,} weights ({share:.3g} %), found {before}in "
        f"{cost.seconds:.0f} s with a peak memory of {size(cost.bytes)}.", *map(_overlap_line, shared),
    ]  # fmt: skip
    overlap = [dataclasses.asdict(each) for each in shared]
    console.result({"mask": str(out), **facts, "overlaps": overlap}, "\n".join(lines))


def _overlap_line(overlap: Overlap) -> str:
    settings = ", ".join(f"{key} = {value!r}" for key, value in overlap.settings.items())
    share, chance = f"{100 * overlap.share:.3g} %", f"{100 * overlap.chance:.2g} %"
    return (
        f"Shares {overlap.shared:,} ({share}, by chance {chance}) with the kept mask '{overlap.rule}'"
        f"{f' ({settings})' if settings else ''} of {overlap.tuned:,} weights."
    )
