"""`bench`: its options, and the benchmarks it runs."""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from sparsezo_gui import recipe
from sparsezo_gui.cli.command import SETTINGS, code_settings, command, positive
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError, did_you_mean
from sparsezo_gui.recipe import Recipe


def _options(sub: argparse.ArgumentParser) -> None:
    """Adds all options except --set."""
    sub.add_argument("what", choices=("steps", "memory", "quality", "bits"), nargs="?", default="steps",
                     help="steps: time compared with plain inference, MeZO and QLoRA (default); memory: the formula "
                     "compared with real runs, in MiB; quality: accuracy of methods on tasks at equal forward passes; "
                     "bits: how quantisation changes a model before tuning")  # fmt: skip
    sub.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    speed = sub.add_argument_group("steps and memory")
    speed.add_argument("--shape", nargs="+", default=["llama-135m"], metavar="NAME",
                       help="shape of the model, such as llama-2-7b; for memory, or the folder of a model (default: "
                       "llama-135m)")  # fmt: skip
    speed.add_argument("--repeats", type=positive, default=7, metavar="N",
                       help="number of rounds, whose median is shown (default: 7)")  # fmt: skip
    speed.add_argument("--against", nargs="+", default=["plain", "mezo", "qlora"], choices=("plain", "mezo", "qlora"),
                       help="what steps are compared with (default: all)")  # fmt: skip
    peaks = sub.add_argument_group("memory")
    peaks.add_argument("--kept", metavar="FOLDER", help="folder to save each figure in; saved figures are not measured "
                       "again, so use a separate folder for each device and --set")  # fmt: skip
    peaks.add_argument("--batches", nargs="+", type=positive, metavar="N",
                       help="examples a step, instead of the usual grid")  # fmt: skip
    peaks.add_argument("--tokens", nargs="+", type=positive, metavar="N", help="tokens an example, likewise")
    peaks.add_argument("--trained", nargs="+", choices=("answers", "whole"), help="what is trained of them, likewise")
    peaks.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="what is measured (default: all)")
    quality = sub.add_argument_group("quality")
    quality.add_argument("--methods", nargs="+", default=[], metavar="NAME",
                         help="methods to compare, with tuned blocks, a density or steps of their own: exact/half, "
                         "random@0.01, lora:100, random/quarter@0.01:300 (default: all)")  # fmt: skip
    quality.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds per method (default: 3)")
    quality.add_argument("--forwards", type=positive, default=2000, metavar="N",
                         help="forward passes per run; a backward pass counts as two (default: 2000)")  # fmt: skip
    quality.add_argument("--no-search", action="store_true", help="use the usual learning rate of every method")
    quality.add_argument("--evaluations", type=positive, default=10, metavar="N",
                         help="evaluations on validation data in each run (default: 10)")  # fmt: skip
    quality.add_argument("--passes", nargs="+", type=positive, default=[], metavar="N",
                         help="also print the metric on validation data within so many forward passes")  # fmt: skip
    quality.add_argument("--minutes", nargs="+", type=positive, default=[], metavar="N", help="likewise, in minutes")
    quality.add_argument("--once", action="store_true", help="search for learning rates on the first task only")
    quality.add_argument("--out", default="sparsezo-quality", metavar="FOLDER",
                         help="folder for results; existing results are not measured again")  # fmt: skip
    quality.add_argument("--picture", metavar="FILE", help="plot accuracy over density and forward passes to this file")
    both = sub.add_argument_group("quality and bits")
    both.add_argument("--tasks", nargs="+", default=["starter"], metavar="NAME[=DATA]",
                      help="'starter', or tasks with their data, such as sst2=data/sst2 (default: starter)"
                      )  # fmt: skip
    both.add_argument("--densities", nargs="+", default=[], metavar="PART",
                      help="densities to run each method at; for bits: shares of weights kept in full precision"
                      )  # fmt: skip
    bits = sub.add_argument_group("bits")
    bits.add_argument("--ways", nargs="+", default=[], metavar="NAME", help="number formats to compare (default: all)")
    bits.add_argument("--text", default="general", metavar="TEXT", help="a bundled text, a file or a data set")


@command("bench", "Benchmark speed, memory, quality, or the cost of fewer bits.", _options, SETTINGS, loads=True)
def bench(options: argparse.Namespace, console: Console) -> None:
    if options.what == "quality":
        return _quality(options, console)
    if options.what == "bits":
        return _bits(options, console)
    from sparsezo_gui.engine import device as devices
    from sparsezo_gui.engine.bench import shapes
    from sparsezo_gui.engine.bench.memory import WORK, grid, memory
    from sparsezo_gui.engine.bench.steps import steps

    if options.what == "steps" and len(options.shape) > 1:
        raise UserError("'bench steps' takes one --shape at a time; 'bench memory' takes several.")
    for shape in options.shape:  # before the first one takes minutes
        if options.what == "steps" or not Path(shape).is_dir():
            shapes.check(shape)
    for column in options.columns:
        if column not in WORK:
            raise UserError(f"--columns {column}: unknown column. {did_you_mean(column, WORK)}")
    chosen = recipe.with_settings(Recipe(), options.set)
    console.say(f"On {devices.name(devices.choose(chosen.model.device))}.")
    with tempfile.TemporaryDirectory(prefix="sparsezo-bench-") as folder:
        if options.what == "steps":
            work = steps(Path(folder), options.shape[0], options.repeats, options.set, options.against)
            columns: tuple[str, ...] = ("shape", "load", "against", "ours_ms", "theirs_ms", "ratio")
        else:
            kept = Path(options.kept) if options.kept else None
            cells = grid(options.batches, options.tokens, options.trained)
            work = memory(Path(folder), options.shape, options.set, cells, options.columns, kept)
            columns = ("shape", "batch", "tokens", "trained", "formula", "measured", "start", "run", "run_s",
                       "exact_formula", "exact", "exact_s", "plain", "plain_s", "qlora_formula", "qlora",
                       "qlora_s")  # fmt: skip
        rows = console.finish(work)
        measured = [column for column in columns if any(column in row for row in rows)]
        console.table(rows, measured, "", options.markdown)


def _quality(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.bench import pictures, tables
    from sparsezo_gui.engine.bench.contestants import ALL, LORA, named
    from sparsezo_gui.engine.bench.quality import Quality

    methods = named(options.methods or [name for name in ALL if name != LORA or find_spec("peft")], options.densities)
    peft = any(name.startswith(LORA) for name in methods)
    for needed, module in ((peft, "peft"), (options.picture, "matplotlib")):
        if needed and find_spec(module) is None:
            raise UserError(f"This needs {module}: pip install 'sparsezo-gui[bench]'")
    if options.picture:
        pictures.check(Path(options.picture))  # before measuring for hours
    tasks = dict(task_of(text) for text in options.tasks)
    base = recipe.with_settings(Recipe(), [*options.set, *code_settings(options)])
    quality = Quality(base, tasks, tuple(methods), options.seeds, options.forwards, Path(options.out), options.once,
                      not options.no_search, options.evaluations)  # fmt: skip
    console.finish(quality.run())
    found = tables.rows(quality)
    console.table(found, [each for each in tables.COLUMNS if any(row[each] != "" for row in found)], "",
                  options.markdown)  # fmt: skip
    if options.passes or options.minutes:
        found = tables.within(quality, options.passes, options.minutes)
        console.table(found, list(found[0]) if found else [], "Nothing has steps.", options.markdown)
    if options.picture:
        drawn = pictures.draw(quality, Path(options.picture))
        console.say(f"Plot written to {options.picture}." if drawn else "Nothing to plot yet.")


def _bits(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.bench.bits import WAYS, bits

    for way in options.ways:
        if way not in WAYS:
            raise UserError(f"--ways {way}: unknown number format. {did_you_mean(way, WAYS)}")
    if len(options.tasks) > 1:
        raise UserError("'bench bits' takes one task at a time. Choose one with --tasks.")
    [(_, settings)] = map(task_of, options.tasks)
    chosen = recipe.with_settings(Recipe(), [*settings, *options.set, *code_settings(options)], Path.cwd())
    rows = console.finish(bits(chosen, options.text, options.ways or tuple(WAYS), options.densities))
    columns = ("held", "bits", "loss", "cost", "accuracy", "perplexity", "text_cost", "time")
    console.table(rows, columns, "", options.markdown)


def task_of(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and settings of a task, from 'starter' or a text such as 'sst2=data/sst2'."""
    name, _, source = text.partition("=")
    if name == "starter":
        chosen = recipe.load("starter")
        columns = ", ".join(f"{key} = '{value}'" for key, value in chosen.data.columns.items())
        return name, (
            "data.source=starter", "data.task=choice", f"data.template={json.dumps(chosen.data.template)}",
            f"data.columns={{ {columns} }}", "mask.text=starter",
        )  # fmt: skip
    if not source:
        raise UserError(f"--tasks {text}: add the path of its data, such as {name}=data/{name}.")
    return name, (f"data.source={json.dumps(source)}", f"data.task={name}")
