"""Commands that use a tuned model: `evaluate`, `generate` and `export`; and `convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparsezo_gui.cli.command import (
    CHANGED,
    RUN,
    SETTINGS,
    STEP,
    argument,
    command,
    past,
    positive,
    recipe_of,
    session_of,
)
from sparsezo_gui.cli.hub import PUBLIC, check, send
from sparsezo_gui.console import Console
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import default_export, export_format, export_formats
from sparsezo_gui.recipe.recipe import SPLITS
from sparsezo_gui.recipe.registry import SPACES

if TYPE_CHECKING:
    from sparsezo_gui.engine.export.form import Option


@command(
    "evaluate", "Evaluate a run (tuned and base model) or a recipe's base model on a split, and on general text.",
    argument("target", metavar="RUN|RECIPE", help="folder or name of a run, or a recipe"), SETTINGS, STEP, CHANGED,
    argument("--split", choices=SPLITS, default="test", help="default: test"),
    loads=True,
)  # fmt: skip
def evaluate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.evaluate import evaluate
    from sparsezo_gui.engine.general import NOT_MEASURED, compared, untuned
    from sparsezo_gui.engine.provenance import marked
    from sparsezo_gui.engine.session.loading import load_data, load_model
    from sparsezo_gui.engine.session.metrics import base_and_tuned

    found: dict[str, dict[str, float]] = {}
    changed: tuple[str, ...] = ()
    if _is_run(options.target):
        if options.set:
            raise UserError(f"--set works on recipes only, and '{options.target}' is a run. Leave it out.")
        options.run = options.target
        session, run = session_of(options, console)
        found |= console.finish(base_and_tuned(session, run, options.split, options.changed_inputs))
        changed = session.changed
        general = compared(session)
    else:
        if options.step is not None:
            raise UserError(f"--step works on runs only, and '{options.target}' is not one. Leave it out.")
        if options.changed_inputs:
            raise UserError(f"--changed-inputs works on runs only, and '{options.target}' is not one. Leave it out.")
        chosen = recipe_of(options, options.target)
        model = console.finish(load_model(chosen))
        data = console.finish(load_data(chosen, model))
        examples = getattr(data, options.split).encoded
        found["base"] = console.finish(evaluate(model, examples, options.split, chosen.objective)).metrics
        general = untuned(model, chosen.data.max_tokens)
    try:
        text = console.finish(general)
        for name in found:
            found[name]["general_perplexity"] = getattr(text, name)
    except UserError as error:
        console.note(f"{NOT_MEASURED} {error}")
    console.metrics(found, changed, marked(changed) if changed else "")


def _is_run(target: str) -> bool:
    from sparsezo_gui.engine.runs.folder import runs_home
    from sparsezo_gui.engine.runs.listing import is_run

    return is_run(Path(target)) or is_run(runs_home() / target)


@command(
    "generate", "Prompt the tuned or base model through the run's template. If the task has a list of answers, show "
    "their probabilities.", RUN,
    argument("--prompt", required=True, metavar="TEXT", help="text for the task's template or the model's chat "
             "template; for a template with several columns, a JSON object of them"),
    argument("--raw", action="store_true", help="continue the prompt as it is, without a template"),
    argument("--base", action="store_true", help="use the model before tuning"),
    argument("--tokens", type=positive, default=128, metavar="N", help="maximum tokens (default: 128)"),
    STEP, CHANGED, loads=True,
)  # fmt: skip
def generate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.generate import continuation, rank_candidates
    from sparsezo_gui.engine.run_prompts import prompt_in_run

    session, run = session_of(options, console)
    asked, note = console.finish(prompt_in_run(session, run, options.prompt, options.raw, options.changed_inputs))
    if note:
        console.note(note)
    tuned = session.tuned
    with tuned.base() if options.base else tuned.applied():
        if asked.choice:
            console.choices(rank_candidates(session.model, asked), session.changed)
        else:
            console.stream(continuation(session.model, asked, options.tokens), session.changed)


def _formats(parser: argparse.ArgumentParser) -> None:
    """The flags that the registered formats need; an option that several formats have is one flag."""
    forms = export_formats()
    listed = "; ".join(f"{name}: {form.help[:1].lower()}{form.help[1:-1]}" for name, form in forms.items())
    parser.add_argument("--format", choices=tuple(forms), help=f"{listed} (default: the smallest that suits the run)")
    folders = " and ".join(name for name, form in forms.items() if form.folder)
    told = f"file to write (a folder for {folders}); not needed with --to lmstudio"
    parser.add_argument("--out", type=Path, metavar="PATH", help=told)
    options: dict[str, dict[str, Option]] = {}
    for name, form in forms.items():
        for option in form.options:
            options.setdefault(option.name, {})[name] = option
    for flag, having in options.items():
        choices = dict.fromkeys(choice for option in having.values() for choice in option.choices)
        told = "; ".join(f"for {name}: {option.help}" for name, option in having.items())
        parser.add_argument(f"--{flag}", choices=tuple(choices), help=told)


@command(
    "export", "Export a run for use in other programs.", RUN, _formats, STEP, CHANGED,
    argument("--push", metavar="OWNER/NAME", help="then upload it to the Hugging Face Hub, as a new private model"),
    PUBLIC, loads=True,
)  # fmt: skip
def export(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.export import export_run

    if options.public and not options.push:
        raise UserError("--public needs --push OWNER/NAME.")
    if options.push:
        check(options.push, options.public, console)
    run, step = past(options)
    form = export_format(options.format or default_export(SPACES[run.recipe.mask.space]))
    if options.push and options.out and form.suffix and options.out.suffix != form.suffix:
        raise UserError(
            f"--out {options.out}: a {form.title} that is uploaded has a name that ends in {form.suffix}. Set --out "
            f"{options.out}{form.suffix}."
        )
    names = {option.name for form in export_formats().values() for option in form.options}
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    accept = options.changed_inputs
    report = console.finish(export_run(run.path, options.format, options.out, step, accept=accept, **chosen))
    card = report.pop("card", "")
    console.result(report, f"Written to {report['out']}.")
    for line in report.get("told", ()):
        console.say(line)
    for program, line in report["serve"].items():
        console.say(f"Serve it with {program}: {line}")
    if options.push:
        send(Path(report["out"]), options.push, options.public, console, card)


@command(
    "convert", "Convert a model with pickled weights to safetensors.",
    argument("folder", metavar="FOLDER", help="folder with config.json and pytorch_model.bin"),
    argument("--out", metavar="FOLDER", required=True, help="folder to write"),
)  # fmt: skip
def convert(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.pretrained.convert import convert

    files = console.finish(convert(Path(options.folder), Path(options.out)))
    console.result({"out": options.out, "weights": files}, f"Written to {options.out}: {', '.join(files)}.")
