"""Commands before a run: `estimate`, `preview`, `rates` and `mask`."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

from sparsezo_gui.cli.command import FLAG, RECIPE, SETTINGS, argument, command, positive, recipe_of
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.sizes import size


@command(
    "estimate", "Estimate the memory that a recipe needs, before downloading or loading anything.", RECIPE, SETTINGS,
    argument("--measure", action="store_true", help="load the model and run two steps on the largest batch"),
    loads=True,
)  # fmt: skip
def estimate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import planning

    chosen = recipe_of(options)
    console.memory(console.finish(planning.measure(chosen)) if options.measure else planning.estimate(chosen))


@command(
    "preview", "Show examples as the model sees them, and warnings about the data.", RECIPE, SETTINGS,
    argument("--split", choices=("train", "validation", "test"), default="train", help="default: train"),
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
    "mask", "Find the weights to tune and save them as a mask file.", RECIPE, SETTINGS,
    argument("--out", metavar="FILE", required=True, help="mask file to write (.safetensors)"),
    loads=True,
)  # fmt: skip
def mask(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import frozen
    from sparsezo_gui.engine.masks.rule import Search, find_measured

    chosen, out = recipe_of(options), Path(options.out)
    if out.exists():
        raise UserError(f"{out}: already exists. Choose another file.")
    model = console.finish(frozen.load(chosen.model))
    model.spec = chosen.mask.tunable(model.spec)
    mask, cost = console.finish(find_measured(chosen.mask, model, Search(chosen.loop.seed, chosen.data)))
    mask.save(out, new=True)
    facts = {"tuned": mask.size, "eligible": mask.eligible, "hash": mask.hash, **dataclasses.asdict(cost)}
    console.result(
        {"mask": str(out), **facts},
        f"{out}: {mask.size:,} of {mask.eligible:,} weights ({100 * mask.size / mask.eligible:.3g} %), found in "
        f"{cost.seconds:.0f} s with a peak memory of {size(cost.bytes)}.",
    )
