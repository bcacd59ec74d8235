"""What the command line prints: text and a live progress line for people, one JSON object per line for programs.

Sentences and tables are made `printable` here, and the streams make everything `readable` (see `plain`). `rich` gets
plain text, never markup.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sparsezo_gui.answers import METHODS
from sparsezo_gui.plain import printable, quoted_plain, raw
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.metrics import metric
from sparsezo_gui.recipe.recipe import SPLITS
from sparsezo_gui.redaction import redacted
from sparsezo_gui.sizes import size
from sparsezo_gui.stages import ONE, Stage, Stages, amount
from sparsezo_gui.work import finish

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from sparsezo_gui.answers import MemoryEstimate
    from sparsezo_gui.engine.data import TaskData

PARTS = 1000  # of a progress bar for several stages
LINE_EVERY = 2.0  # seconds between lines of a stage with a total, if the output is not a terminal
WIDE = 240  # width of a table that is not for a terminal, in characters
T = TypeVar("T")


class Console:
    """Prints events and results; progress goes to standard error, so that results can be piped."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._stages, self._preparing = Stages(ONE), False
        self._steps = 0
        self._smoothed: float | None = None
        self._printed_at = 0.0

    def finish(self, work: Generator[e.Event, None, T]) -> T:
        """Runs ``work`` and returns its result; shows its progress, but not with --json."""
        answer = finish(work, None if self.as_json else self.event)
        self.end_progress()
        return answer

    def prepare(self, stages: tuple[Stage, ...]) -> None:
        """From here to the first step, all ``stages`` are one progress line."""
        self._stages, self._preparing = Stages(stages), True

    def event(self, event: e.Event) -> None:
        """Shows one event."""
        if self.as_json:
            self._json(event.as_json())
            return
        match event:
            case e.Progress(stage, done, total, unit):
                self._progress(stage, done, total, unit)
            case e.Started():
                self._steps = event.steps
                self.say(f"Run: {event.run}")
                self.say(
                    f"Tuning {event.tuned:,} of {event.parameters:,} weights "
                    f"({100 * event.tuned / event.eligible:.3g} % of the eligible ones) on {event.device}."
                )
            case e.Step():
                # Mean over about 50 steps: the loss of single batches is too noisy to read.
                part = 1.0 if self._smoothed is None else 0.02
                if math.isfinite(event.loss):
                    self._smoothed = event.loss * part + (self._smoothed or 0.0) * (1 - part)
                if self._preparing:
                    self.end_progress()
                    self._stages, self._preparing = Stages(ONE), False
                loss = "hidden" if self._smoothed is None else f"{self._smoothed:.4f}"
                detail = f"loss {loss} · {1000 * event.seconds:.0f} ms/step · {size(event.memory_bytes)}"
                self._progress("Tuning", event.step, self._steps, detail)
            case e.Evaluation(step, split, metrics):
                self.say(f"Step {step}, {'first ' if event.partial else ''}{split}: {_metrics(metrics)}")
            case e.GeneralText(step):
                self.say(f"Step {step}, perplexity on general text: {event}")
            case e.Notice(text, level):
                self.say(f"Warning: {text}" if level == "warning" else text)
            case e.Finished():
                self.end_progress()
                self.say(f"{'Done' if event.reason == 'done' else 'Stopped'} after step {event.step}.")

    def say(self, text: str) -> None:
        """A line for people, above the progress line."""
        if self.as_json:
            return
        text = printable(redacted(text), keep="\n")
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def note(self, *lines: str) -> None:
        """Lines for the user on standard error, also with --json."""
        self.end_progress()
        print(*map(printable, lines), sep="\n", file=sys.stderr, flush=True)

    def error(self, text: str) -> None:
        """An error message on standard error; with --json also as the event ``{"event": "error", "message": …}``."""
        self.end_progress()
        text = printable(redacted(text), keep="\n")
        if self.as_json:
            self._json({"event": "error", "message": text})
        print(text, file=sys.stderr, flush=True)

    def result(self, content: dict[str, Any], words: str, to_read: bool = False) -> None:
        """The result on standard output: ``content`` for programs, or ``words`` for people, which are sentences or, if
        ``to_read``, a longer text."""
        self.end_progress()
        if self.as_json:
            self._json(content)
        else:
            print(words if to_read else printable(words, keep="\n"), flush=True)

    def metrics(self, found: dict[str, dict[str, float]], changed: Sequence[str] = (), marked: str = "") -> None:
        """Metrics of the base and the tuned model; ``changed`` names inputs that changed since the run started, and
        ``marked`` says so in a sentence."""
        lines = [f"{name:>5}: {_metrics(metrics)}" for name, metrics in found.items()]
        more = {"changed": list(changed)} if changed else {}
        self.result({**found, **more}, "\n".join([*lines, marked] if changed else lines))

    def stream(self, pieces: Iterable[str], changed: Sequence[str] = ()) -> None:
        """Prints text piece by piece; ``changed`` names inputs that changed since the run started."""
        self.end_progress()
        if self.as_json:
            self._json({"text": "".join(pieces), **({"changed": list(changed)} if changed else {})})
            return
        for piece in pieces:
            print(piece, end="", flush=True)
        print()

    def preview(self, work: Generator[e.Event, None, TaskData]) -> None:
        """Examples from a data set, notices about it, and the number of examples in each split."""

        def show(event: e.Event) -> None:
            if isinstance(event, e.Example) and not self.as_json:
                self.end_progress()
                print(_example(event), end="\n\n", flush=True)
            elif isinstance(event, e.Notice) and event.level == "info":
                self.event(event) if self.as_json else self.say(f"Note: {event.text}")
            elif not (self.as_json and isinstance(event, e.Progress)):
                self.event(event)

        data = finish(work, show)
        counts = (f"{name} {len(getattr(data, name)):,}" for name in SPLITS)
        self.say(f"Examples: {' · '.join(counts)}.")

    def choices(self, found: Sequence[tuple[str, float]], changed: Sequence[str] = ()) -> None:
        """Candidates with their probabilities, most likely first; the first is also the ``text`` of the answer."""
        names = [printable(text) for text, _ in found]
        width = max(map(len, names))
        answers = [{"text": text, "probability": probability} for text, probability in found]
        more = {"changed": list(changed)} if changed else {}
        lines = [f"{name:<{width}}  {100 * each[1]:5.1f} %" for name, each in zip(names, found, strict=True)]
        self.result({"text": found[0][0], "answers": answers, **more}, "\n".join(lines))

    def memory(self, estimate: MemoryEstimate) -> None:
        """A memory estimate by parts: first those that were measured, then the estimated ones."""
        how = "measured" if estimate.measured else "estimated"
        lines = [f"{part.name:<28}{size(part.bytes):>10}  {part.why}" for part in estimate.parts]
        verdict = f"{how}, {size(estimate.available)} available: {estimate.verdict}"
        lines += [f"{'Total':<28}{size(estimate.total):>10}  {verdict}"]
        if estimate.search:
            lines += [f"{'Finding the mask':<28}{size(estimate.search):>10}  estimated; more than that, before the run"]
        if estimate.small < estimate.total:
            why = "estimated; smaller forward passes, used automatically when memory is short"
            lines += [f"{'With less memory':<28}{size(estimate.small):>10}  {why}"]
        for name, needed in estimate.others.items():
            lines.append(f"{'With ' + METHODS[name]:<28}{size(needed):>10}  estimated")
        self.result(estimate.as_json(), "\n".join(lines))

    def table(self, rows: Sequence[dict[str, Any]], columns: Sequence[str], empty: str, markdown: bool = False) -> None:
        """A list: one JSON object per line, or a table."""
        if self.as_json:
            for row in rows:
                self._json(row)
            return
        if not rows:
            print(empty)
            return
        from rich import box
        from rich.console import Console as Terminal
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=box.MARKDOWN if markdown else box.SIMPLE)
        for row in rows:
            table.add_row(*(Text(printable(str(row[column]))) for column in columns))
        # Without a terminal there is no width to fit, and truncated paths are useless.
        fits = sys.stdout.isatty() and not markdown
        Terminal(file=raw(sys.stdout), width=None if fits else WIDE).print(table, crop=fits)

    def end_progress(self) -> None:
        """Removes the progress line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        self._stage = ""

    def _progress(self, stage: str, done: int, total: int, detail: str) -> None:
        now = e.Progress(stage, done, total)
        overall = self._stages.at(now)
        words = overall.words()
        counts = amount(now, overall.speed) if detail == "bytes" and total else ""
        if not sys.stderr.isatty():
            clock = time.monotonic()
            if stage != self._stage or (total and clock - self._printed_at > LINE_EVERY):
                self._stage, self._printed_at = stage, clock
                line = f"{stage} {counts or (f'{done}/{total} {detail}' if total else '')}".rstrip()
                print(printable(f"{line} ({words})" if words else line), file=sys.stderr, flush=True)
            return
        if self._bar is None or self._task is None or not (stage == self._stage or self._preparing):
            self.end_progress()
            self._bar, self._task = _new_bar()
        self._stage = stage
        detail = detail if stage == "Tuning" else counts or (f"{done:,} of {total:,} {detail}" if total else "")
        if self._preparing:  # one bar for all stages
            done, total = round(PARTS * overall.fraction), PARTS
        self._bar.update(
            self._task, description=printable(stage), completed=done, total=total or None, detail=printable(detail),
            left=words,
        )  # fmt: skip

    def _json(self, content: dict[str, Any]) -> None:
        print(quoted_plain(json.dumps(e.plain(content), ensure_ascii=False, allow_nan=False)), flush=True)


def _new_bar() -> tuple[Bar, TaskID]:
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, Progress, TextColumn

    texts = ("{task.description}", "{task.fields[detail]}", "{task.fields[left]}")
    name, detail, left = (TextColumn(text, markup=False) for text in texts)
    # Other output must not pass through rich, which would interpret escape sequences in it.
    bar = Progress(
        name, BarColumn(), detail, left, console=Terminal(file=raw(sys.stderr)), transient=True,
        redirect_stdout=False, redirect_stderr=False,
    )  # fmt: skip
    bar.start()
    return bar, bar.add_task("", total=None, detail="", left="")


def _example(shown: e.Example) -> str:
    """The text of an example, with the trained parts in brackets."""
    text = "".join(f"⟦{text}⟧" if trained else text for text, trained in shown.pieces)
    return f"{shown.split} example {shown.number}: {shown.tokens:,} tokens, trained text in ⟦⟧\n{text}"


def _metrics(metrics: dict[str, float]) -> str:
    parts = []
    for name, value in metrics.items():
        if metric(name).percent:
            parts.append(f"{name.replace('_', ' ')} {100 * value:.1f} %")
        elif name == "examples":
            parts.append(f"{value:.0f} examples")
        else:
            parts.append(f"{name} {value:.4f}")
    return ", ".join(parts)
