"""The command line: parse, build a recipe, consume events. Every command takes --json.

Exit codes: 0 success, 2 bad input (with a sentence on standard error), 1 failure, 130 interrupted before a run began.
With --json, errors on standard error are also events on standard output: {"event": "error", "message": …}.
The engine is imported inside the commands, so that --help and lists appear instantly.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from sparsezo_gui import __version__, benching, plain, recipe, resources, start
from sparsezo_gui.console import Console
from sparsezo_gui.engine.sandbox import child
from sparsezo_gui.errors import OUT_OF_MEMORY, ConsentNeeded, UserError, out_of_memory
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from sparsezo_gui.redaction import redacted
from sparsezo_gui.sizes import size
from sparsezo_gui.untrusted import is_fault

if TYPE_CHECKING:
    from sparsezo_gui.engine.runs.folder import RunFolder
    from sparsezo_gui.engine.runs.share import Content
    from sparsezo_gui.engine.session import Session

TRUST = "--trust-remote-code"
LOADING = ("train", "resume", "verify", "estimate", "rates", "mask", "evaluate", "generate", "export", "bench",
           "preview")  # fmt: skip
"""Commands that load a model or its tokenizer."""
Command = Callable[[argparse.Namespace, Console], int | None]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    if sys.argv[1:] == [child.WORD]:
        return child.main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a stream that is not the system's
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    with plain.streams():
        return _main(sys.argv[1:] if arguments is None else arguments)


def _main(arguments: list[str]) -> int:
    console = Console("--json" in arguments)
    warnings.simplefilter("ignore")  # from libraries, meant for programmers
    try:
        with _interruptible():
            return _run(_parser().parse_args(arguments), console) or 0
    except UserError as error:
        console.error(OUT_OF_MEMORY if out_of_memory(error) else str(error))
        return 2
    except KeyboardInterrupt:
        console.error("Interrupted.")
        exec("")  # Python would end by the signal, not with this code, where the last exec() was interrupted
        return start.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone, so nothing can be written any more, not even when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        if not is_fault(error):
            raise
        if out_of_memory(error):
            console.error(OUT_OF_MEMORY)
            return 2
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            console.error(f"{str(error.filename)[:80]}…: this file name is too long. Choose a shorter one.")
            return 2
        console.error(redacted(f"Unexpected error: {type(error).__name__}: {error}\nDetails: {_details()}"))
        return 1
    finally:
        console.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Within: Ctrl-C comes out as `KeyboardInterrupt`, also where a library makes another error of it."""
    struck = False

    def interrupt(_signal: int, _frame: object) -> None:
        nonlocal struck
        struck = True
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as error:
        if struck and is_fault(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


def _run(options: argparse.Namespace, console: Console) -> int | None:
    """Runs the command; if it needs code that the user allows with --trust-remote-code, starts it again."""
    try:
        return options.command(options, console)
    except ConsentNeeded as needed:
        if not options.trust_remote_code:
            raise
        from sparsezo_gui.engine.pretrained import consent

        consent.give(needed.code)
        files = (f"  {name} ({len(content):,} bytes)" for name, content in sorted(needed.code.files.items()))
        console.note(f"You allowed this code to run, from {needed.code.folder}:", *files)
    return options.command(options, console)


def _details() -> Path | str:
    """Writes the traceback to a file and returns its path; if that fails, the end of the traceback itself."""
    import traceback

    from sparsezo_gui.engine.files import write_text
    from sparsezo_gui.engine.runs.folder import runs_home

    path = runs_home().parent / "logs" / f"error-{os.getpid()}.txt"
    text = plain.readable(redacted(traceback.format_exc()))
    try:
        write_text(path, text)
    except UserError:
        return text[-2000:]
    return path


def _train(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.training import train

    chosen, commands = _recipe(options), SimpleQueue()
    _watch(train(chosen, commands, Path(options.run) if options.run else None), commands, console)


def _resume(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.training import resume

    commands: SimpleQueue = SimpleQueue()
    run, step = _past(options)
    if step is not None and step < run.start:
        raise UserError(
            f"Run '{run.name}' branched off at step {run.start}, so it cannot go back to step {step}. Branch "
            "from the original run instead: sparsezo branch"
        )
    if step is not None:
        commands.put(e.GoBack(step))
    _watch(resume(run.path, commands), commands, console)


def _verify(options: argparse.Namespace, console: Console) -> int:
    """Replays the journal from its start and compares the hash of the tuned values with the recorded one."""
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.session import open_session
    from sparsezo_gui.recipe.outcome import on_lineage

    run = open_run(options.run)
    ends = [event for event in on_lineage(run.events()) if isinstance(event, e.Finished)]
    if not ends:
        raise UserError(f"{options.run}: this run has not recorded a hash yet. It does so when it stops or finishes.")
    step, told = ends[-1].step, ends[-1].hash
    found = console.finish(open_session(run, step, from_checkpoints=False)).tuned.hash()
    words = f"The replay of {step} steps gives bit-identical values: {found}"
    if found != told:
        words = (
            f"The replay of {step} steps gives values with hash {found}, but the run recorded {told}: its journal or "
            "events were changed. Restore them from a copy of the run."
        )
    console.result({"step": step, "hash": found, "same": found == told}, words)
    return int(found != told)


def _branch(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.branch import branch

    run, step = _past(options)
    made = branch(run, step, options.set, options.name)
    start, resume = made.facts.branched.step, shlex.join(["sparsezo", "resume", str(made.path)])
    console.result(
        {"run": str(made.path), "name": made.name, "step": start},
        f"{made.path}: continues from step {start} of '{run.name}'. To start it: {resume}",
    )


def _share(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.runs.share import contents, share

    run, more = open_run(options.run), (options.with_mask, options.with_examples)
    console.say(f"{options.out} will contain:\n{_listed(contents(run, *more))}")
    shared = share(run, Path(options.out), *more)
    mask = "with its mask" if shared.with_mask else "without its mask, which the other computer finds again"
    facts = {"out": options.out, **dataclasses.asdict(shared)}
    words = f"{options.out}: {shared.bytes:,} bytes; {mask}. It contains:\n{_listed(shared.contents)}"
    console.result(facts, words if options.with_examples else f"{words}\nIt contains no examples from your data.")


def _listed(contents: Iterable[Content]) -> str:
    return "\n".join(f"  {each.file} ({each.bytes:,} bytes): {each.holds}" for each in contents)


def _receive(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.share import lacks, receive

    run = receive(Path(options.file), Path(options.run) if options.run else None, options.set)
    keys, words = lacks(run)
    told = f"{run.path}: check it with {shlex.join(['sparsezo', 'verify', str(run.path)])}"
    facts = {"run": str(run.path), "name": run.name, "lacks": keys}
    console.result(facts, f"{told}\n{words}" if words else told)


def _note(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import open_run

    run = open_run(options.run)
    if options.text is not None:
        run.note(options.text)
    console.result({"notes": run.notes}, run.notes or "No notes yet.", to_read=True)


def _watch(events: Iterator[e.Event], commands: SimpleQueue, console: Console) -> None:
    """Shows events. While the loop runs, the first Ctrl-C stops it after the current step, a second one immediately."""
    running = False

    def interrupt(_signal: int, _frame: object) -> None:
        nonlocal running
        if not running:
            raise KeyboardInterrupt
        running = False
        commands.put(e.Stop())
        console.say("Stopping after this step. Press Ctrl-C again to stop immediately.")

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for event in events:
            running = running or isinstance(event, e.Started)
            console.event(event)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _estimate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import planning

    chosen = _recipe(options)
    console.memory(console.finish(planning.measure(chosen)) if options.measure else planning.estimate(chosen))


def _preview(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.planning import preview_examples

    console.preview(preview_examples(_recipe(options), options.split, options.examples))


def _rates(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.range_test import find_rate

    report = console.finish(find_rate(_recipe(options), options.steps))
    lines = [report.words]
    for rung in report.rungs:
        loss = "diverged" if rung.loss is None else f"loss {rung.loss:.4f}"
        lines.append(f"{rung.rate:<8.2g} {loss}{'' if rung.stable else ', unstable'}")
    if report.rate is not None:
        settings = [f"--set={setting}" for setting in (*options.set, f"update.learning_rate={report.rate:g}")]
        settings += [TRUST] * options.trust_remote_code
        lines.append(f"To use it: {shlex.join(['sparsezo', 'train', options.recipe, *settings])}")
    console.result(report.as_json(), "\n".join(lines))


def _mask(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine import frozen
    from sparsezo_gui.engine.masks.rule import Search, find_measured

    chosen, out = _recipe(options), Path(options.out)
    if out.exists():
        raise UserError(f"{out}: already exists. Choose another file.")
    model = console.finish(frozen.load(chosen.model))
    mask, cost = console.finish(find_measured(chosen.mask, model, Search(chosen.loop.seed, chosen.data)))
    mask.save(out, new=True)
    facts = {"tuned": mask.size, "eligible": mask.eligible, "hash": mask.hash, **dataclasses.asdict(cost)}
    console.result(
        {"mask": str(out), **facts},
        f"{out}: {mask.size:,} of {mask.eligible:,} weights ({100 * mask.size / mask.eligible:.3g} %), found in "
        f"{cost.seconds:.0f} s with a peak memory of {size(cost.bytes)}.",
    )


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.evaluate import BATCH, evaluate
    from sparsezo_gui.engine.provenance import told
    from sparsezo_gui.engine.session import data_of, load_base, load_data

    found: dict[str, dict[str, float]] = {}
    changed: tuple[str, ...] = ()
    if _is_run(options.target):
        if options.set:
            raise UserError(f"--set works on recipes only, and '{options.target}' is a run. Leave it out.")
        options.run = options.target
        session, run = _session(options, console)
        data = console.finish(data_of(session, run, (options.split,), options.changed_inputs))
        changed = session.changed
        examples = getattr(data, options.split).encoded
        judged = session.model, examples, options.split, session.recipe.objective, session.base(examples, BATCH)
        with session.tuned.base():
            found["base"] = console.finish(evaluate(*judged)).metrics
        with session.tuned.applied():
            found["tuned"] = console.finish(evaluate(*judged)).metrics
    else:
        if options.step is not None:
            raise UserError(f"--step works on runs only, and '{options.target}' is not one. Leave it out.")
        if options.changed_inputs:
            raise UserError(f"--changed-inputs works on runs only, and '{options.target}' is not one. Leave it out.")
        chosen = _recipe(options, options.target)
        model = console.finish(load_base(chosen))
        data = console.finish(load_data(chosen, model))
        examples = getattr(data, options.split).encoded
        found["base"] = console.finish(evaluate(model, examples, options.split, chosen.objective)).metrics
    console.metrics(found, changed, told(changed) if changed else "")


def _generate(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.generate import continuation, rank_candidates
    from sparsezo_gui.engine.run_prompts import prompt_in_run

    session, run = _session(options, console)
    asked, note = console.finish(prompt_in_run(session, run, options.prompt, options.raw, options.changed_inputs))
    if note:
        console.note(note)
    overlay = session.tuned
    with overlay.base() if options.base else overlay.applied():
        if asked.choice:
            console.choices(rank_candidates(session.model, asked), session.changed)
        else:
            console.stream(continuation(session.model, asked, options.tokens), session.changed)


def _export(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.export import export_run

    run, step = _past(options)
    way = options.weights, options.changed_inputs
    report = console.finish(export_run(run.path, options.format, Path(options.out), step, *way))
    console.result({"out": options.out, "format": options.format, **report}, f"Written to {options.out}.")
    for line in report.get("told", ()):
        console.say(line)


def _convert(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.pretrained.convert import convert

    files = console.finish(convert(Path(options.folder), Path(options.out)))
    console.result({"out": options.out, "weights": files}, f"Written to {options.out}: {', '.join(files)}.")


def _runs(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.runs.folder import BRANCHES
    from sparsezo_gui.engine.runs.listing import list_runs

    rows = [run.as_json() for run in list_runs()]
    if not options.json:
        for row in rows:
            row["name"] = f"{'  ' * Path(row['path']).parts.count(BRANCHES)}{row['name']}"
    console.table(rows, ("name", "state", "step", "steps", "model", "created", "path"), "No runs yet.")


def _recipes(options: argparse.Namespace, console: Console) -> None:
    found = [(name, recipe.load(name)) for name in resources.recipes()]
    rows = [
        {"recipe": name, "model": each.model.id, "data": each.data.source, "mask": each.mask.rule, "path": str(path)}
        for (name, each), path in zip(found, resources.recipes().values(), strict=True)
    ]
    console.table(rows, ("recipe", "model", "data", "mask", "path"), "No bundled recipes.")


def _models(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.hub.library import local_models

    rows = [dataclasses.asdict(model) for model in local_models()]
    console.table(
        rows, ("id", "architecture", "parameters", "bytes", "kind", "problem"), "No models on this computer yet."
    )


def _methods(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.data.tasks import tasks
    from sparsezo_gui.recipe import methods

    if options.markdown and not options.json:
        print(methods.markdown(), end="")
        return
    rows = methods.rows()
    for name, task in tasks().items():
        rows.append({"table": "data", "rule": f"task = {name}", "about": task.title, "source": task.paper, "keys": {}})
    console.table(rows, ("table", "rule", "about"), "")


def _token(options: argparse.Namespace, console: Console) -> None:
    from sparsezo_gui.engine.hub import token

    if options.what == "keep":
        token.keep(_secret())
        console.result({"kept": True}, "Token saved in the system keyring. Remove it with 'sparsezo token forget'.")
    elif options.what == "forget":
        had = token.forget()
        console.result({"forgotten": had}, "Token removed." if had else "The keyring has no token from SparseZO.")
    else:
        text, place = token.found()
        end = f"…{text[-4:]}" if text else None
        told = f"The token ends in {end} and comes from {place}." if end else "No token. Public models do not need one."
        console.result({"token": end, "from": place if end else None}, told)


def _secret() -> str:
    """The token, typed without echo or from standard input; never from the command line, which all users can see."""
    from getpass import getpass

    try:
        return (getpass("Token (hidden as you type): ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    except EOFError:
        return ""


def _recipe(options: argparse.Namespace, name: str = "") -> Recipe:
    needs = ["model.trust_remote_code=true"] if options.trust_remote_code else []
    return recipe.with_settings(recipe.load(name or options.recipe), [*options.set, *needs], Path.cwd())


def _is_run(target: str) -> bool:
    from sparsezo_gui.engine.runs.folder import runs_home

    return (Path(target) / "run.json").is_file() or (runs_home() / target / "run.json").is_file()


def _past(options: argparse.Namespace) -> tuple[RunFolder, int | None]:
    """The run and the step that the options name; checks that the run has that step."""
    from sparsezo_gui.engine.runs.folder import open_run
    from sparsezo_gui.engine.runs.lineage import lineage_of
    from sparsezo_gui.recipe import outcome

    run, step = open_run(options.run), options.step
    if step == "best":
        best = outcome.best(outcome.on_lineage(run.events()))
        if best is None:
            raise UserError(f"Run '{run.name}' has no evaluation on validation examples yet, so there is no best step.")
        step = best.step
    return run, None if step is None else lineage_of(run, step).step


def _session(options: argparse.Namespace, console: Console) -> tuple[Session, RunFolder]:
    from sparsezo_gui.engine.session import open_session

    run, step = _past(options)
    return console.finish(open_session(run, step, accept=options.changed_inputs)), run


class _Parser(argparse.ArgumentParser):
    """Reports wrong command lines like any other error, and accepts no abbreviated options: consent should be explicit,
    and ``--json`` is searched for before parsing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser.error`."""
        raise UserError(*self.format_usage().splitlines(), f"{self.prog}: error: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sparsezo",
        description="Fine-tune language models on a laptop: sparse zeroth-order fine-tuning of 4-bit models.",
        epilog="To start: sparsezo train starter",
    )
    parser.add_argument("--version", action="version", version=f"sparsezo {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, about: str, command: Command) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(command=command, set=[], trust_remote_code=False)
        sub.add_argument("--json", action="store_true", help="one JSON object per line on standard output")
        return sub

    def takes_recipe(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("recipe", metavar="RECIPE", help="a recipe file (TOML), or the name of a bundled one")
        _takes_settings(sub)

    def takes_run(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("run", metavar="RUN", help="folder or name of a run")

    def takes_step(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--step", type=_step, metavar="N|best", help="use the run as of step N, or as of its "
                         "best step on the validation examples (default: the last step)")  # fmt: skip

    def takes_changed(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--changed-inputs", action="store_true", help="continue even if the examples, the "
                         "tokenizer or the model's configuration changed since the run started; marks the result")

    sub = add("train", "Run a recipe.", _train)
    takes_recipe(sub)
    sub.add_argument("--run", metavar="DIR", help="folder of the new run (default: a dated one in your runs folder)")
    sub = add("resume", "Resume a run after any stop; with --step, go back to that step first.", _resume)
    takes_run(sub)
    takes_step(sub)
    sub = add("branch", "Start a new run from any step of another one, with different settings.", _branch)
    takes_run(sub)
    takes_step(sub)
    _takes_settings(sub)
    sub.add_argument("--name", default="", metavar="NAME", help="name of the new run")
    sub = add("verify", "Replay a run's journal and check the hash of its tuned values.", _verify)
    takes_run(sub)
    sub = add("share", "Write a run to a small file from which others can rebuild every step.", _share)
    takes_run(sub)
    sub.add_argument("--out", metavar="FILE", required=True, help="file to write (.zip)")
    sub.add_argument("--with-mask", action="store_true", help="include the mask even if it is large")
    sub.add_argument("--with-examples", action="store_true", help="include the best and worst examples of the "
                     "evaluations: rows of your data, word for word")  # fmt: skip
    sub = add("receive", "Unpack a shared run.", _receive)
    sub.add_argument("file", metavar="FILE", help="file written by 'sparsezo share'")
    sub.add_argument("--run", metavar="DIR", help="folder of the run (default: a new one in your runs folder)")
    _takes_settings(sub)
    sub = add("note", "Show or replace your notes on a run.", _note)
    takes_run(sub)
    sub.add_argument("--text", metavar="TEXT", help="the new notes")
    sub = add("estimate", "Estimate the memory that a recipe needs, before downloading or loading anything.", _estimate)
    takes_recipe(sub)
    sub.add_argument("--measure", action="store_true", help="load the model and run two steps on the largest batch")
    sub = add("preview", "Show examples as the model sees them, and warnings about the data.", _preview)
    takes_recipe(sub)
    sub.add_argument("--split", choices=("train", "validation", "test"), default="train", help="default: train")
    sub.add_argument("--examples", type=benching.positive, default=5, metavar="N", help="how many (default: 5)")
    sub = add("rates", "Find a learning rate by trying several for a few steps each.", _rates)
    takes_recipe(sub)
    sub.add_argument("--steps", type=benching.positive, default=40, metavar="N", help="steps at each rate (40)")
    sub = add("mask", "Find the weights to tune and save them as a mask file.", _mask)
    takes_recipe(sub)
    sub.add_argument("--out", metavar="FILE", required=True, help="mask file to write (.safetensors)")
    sub = add("evaluate", "Evaluate a run (tuned and base model) or a recipe's base model on a split.", _evaluate)
    sub.add_argument("target", metavar="RUN|RECIPE", help="folder or name of a run, or a recipe")
    _takes_settings(sub)
    takes_step(sub)
    takes_changed(sub)
    sub.add_argument("--split", choices=("train", "validation", "test"), default="test", help="default: test")
    sub = add("generate", "Prompt the tuned or base model through the run's template. If the task has a list of "
              "answers, show their probabilities.", _generate)  # fmt: skip
    takes_run(sub)
    sub.add_argument("--prompt", required=True, metavar="TEXT", help="text for the task's template or the model's "
                     "chat template; for a template with several columns, a JSON object of them")  # fmt: skip
    sub.add_argument("--raw", action="store_true", help="continue the prompt as it is, without a template")
    sub.add_argument("--base", action="store_true", help="use the model before tuning")
    sub.add_argument("--tokens", type=benching.positive, default=128, metavar="N", help="maximum tokens (default: 128)")
    takes_step(sub)
    takes_changed(sub)
    sub = add("export", "Export a run for use in other programs.", _export)
    takes_run(sub)
    sub.add_argument("--format", choices=("overlay", "hf"), required=True, help="overlay: a small file with the tuned "
                     "values; hf: a merged Hugging Face folder")  # fmt: skip
    sub.add_argument("--out", required=True, metavar="PATH", help="file (overlay) or folder (hf) to write")
    sub.add_argument("--weights", choices=("original", "trained"), default="original", help="for hf: the original "
                     "weights of the base model with the tuned values (default), or all weights exactly as the run "
                     "used them, so that other programs generate the same text")  # fmt: skip
    takes_step(sub)
    takes_changed(sub)
    sub = add("convert", "Convert a model with pickled weights to safetensors.", _convert)
    sub.add_argument("folder", metavar="FOLDER", help="folder with config.json and pytorch_model.bin")
    sub.add_argument("--out", metavar="FOLDER", required=True, help="folder to write")
    add("runs", "List your runs.", _runs)
    sub = add("methods", "List the rules for each part of a method, and the tasks.", _methods)
    sub.add_argument("--markdown", action="store_true", help="print the documentation page")
    add("recipes", "List the bundled recipes.", _recipes)
    add("models", "List the models on this computer.", _models)
    sub = add("bench", "Benchmark speed, memory, quality, or the cost of fewer bits.", benching.run)
    benching.add_options(sub)
    _takes_settings(sub)
    sub = add("token", "Save an access token for gated and private models in the system keyring.", _token)
    sub.add_argument("what", choices=("keep", "forget", "show"), help="keep: save it (asks for it, or reads standard "
                     "input); forget: remove it; show: where it comes from, and its last 4 characters")  # fmt: skip
    for name in LOADING:
        commands.choices[name].add_argument(TRUST, action="store_true", help="let the model's Python code run. "
                                            "It can do anything you can on this computer, so read it first. Needed "
                                            "again when the code changes")  # fmt: skip
    return parser


def _takes_settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting, such as loop.steps=100"
    )


def _step(text: str) -> int | str:
    if text == "best":
        return text
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a step number or 'best', not '{text}'")
    return int(text)


if __name__ == "__main__":
    sys.exit(start.terminal())
