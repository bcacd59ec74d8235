"""A stand-in for the engine: the same answers without a model, so that the window's tests are quick and exact."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsezo_gui.answers import (
    Cache,
    Content,
    Cost,
    Crash,
    DataPreview,
    Downloaded,
    Exported,
    Finding,
    Found,
    History,
    MaskReport,
    MemoryEstimate,
    ModelCode,
    ModelSummary,
    Overlap,
    Pace,
    Part,
    Plan,
    Pushed,
    RateReport,
    Received,
    Removable,
    Rung,
    RunSummary,
    Shareable,
    Shared,
    Tally,
    Task,
    WayFigures,
)
from sparsezo_gui.errors import ChangedInputs
from sparsezo_gui.gui.calls import Commands, Work
from sparsezo_gui.gui.worker import Engine
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe.noise import Noise, NoiseProbed
from sparsezo_gui.recipe.ways import as_settings, ways

MB, GB = 2**20, 2**30


def memory(
    available: int = 8 * GB,
    scale: float = 1.0,
    search: int = 0,
    others: dict[str, int] | None = None,
    measured: bool = False,
) -> MemoryEstimate:
    """Of a model like Qwen3 0.6B; ``scale`` is the factor of all parts."""
    parts = (
        ("Weights", 820 * MB, "The frozen weights of the blocks in 4 bits."),
        ("Scales", 52 * MB, "One scale for every 64 weights."),
        ("Embeddings", 296 * MB, "Kept in 16 bits."),
        ("Tuned values", 6 * MB, "The tuned values in 32 bits."),
        ("Activations", 240 * MB, "Of the current layer, in both forward passes."),
        ("Runtime", 480 * MB, "Python and PyTorch themselves."),
    )
    others = {"lora": 3 * GB, "qlora": 2 * GB, "full": 11 * GB} if others is None else others
    made = tuple(Part(name, int(size * scale), why) for name, size, why in parts)
    return MemoryEstimate(made, available, 16 * GB, 4096, 2 * GB, others, measured, search)


def plan(recipe: Recipe, needed: MemoryEstimate) -> Plan:
    """Ways that need ``needed``; LoRA is too large, and exact gradients in all blocks are recommended."""
    found = []
    for way in ways(recipe):
        own = replace(needed, available=GB) if way.name == "lora" else needed
        pace = Pace(0.25, 12.0 * (way.name == "exact"), 30.0 * way.name.endswith("half")) if needed.measured else None
        made = as_settings(recipe, way)
        found.append(WayFigures(way.name, way.title, way.limits, way.steps, way.settings, made, "", own, pace))
    return Plan(tuple(found), "exact", "Exact gradients: usually 100 steps instead of 2,000, and it fits.", ("Notes.",))


def model(identity: str, title: str, parameters: int, kind: str, **more: Any) -> ModelSummary:
    """A model of 16 bits."""
    facts = {"architecture": "Qwen3ForCausalLM", "bytes": 2 * parameters, "licence": "apache-2.0", **more}
    return ModelSummary(identity, title, kind, parameters=parameters, **facts)


class StandIn:
    """``faults`` maps a method's name to the exception it raises; ``pace`` is the seconds of a step. While ``endless``,
    searches for a mask and exports stay at their first event."""

    def __init__(self, home: Path, pace: float = 0.002, loading: float = 0.0) -> None:
        self.home, self.pace, self.loading = home, pace, loading
        self.summaries: dict[str, ModelSummary] = {}  # by id, of models that are not listed
        self.endless, self.verdict = False, "fits"
        self.faults: dict[str, Exception] = {}
        self.estimated = memory()
        self.findings = [Finding("Python", "3.12.1")]
        self.left: list[Crash] = []
        self.run_list: list[RunSummary] = []
        self.also: Path | None = None
        self.exported: tuple[str, Path, int | None, dict[str, str]] | None = None
        self.histories: dict[Path, History] = {}
        self.asked: list[Any] = []
        self.parts: dict[str, int] = {}  # of downloads, by id
        self.held = ("metrics", "metrics and 20 EXAMPLES")

    def _told(self, event: e.Progress) -> Iterator[e.Progress]:
        yield event
        time.sleep(self.pace)
        while self.endless:
            yield event
            time.sleep(0.01)

    def _fail(self, kind: str) -> None:
        if kind in self.faults:
            raise self.faults[kind]

    def load(self, closing: threading.Event) -> Work[None]:
        """Takes ``loading`` seconds."""
        self._fail("load")
        began = time.monotonic()
        while time.monotonic() < began + self.loading and not closing.is_set():
            yield e.Progress("Loading the engine", 1, 6, "packages")
            time.sleep(0.01)

    def tasks(self) -> list[Task]:
        """The real ones, which need no model."""
        return Engine().tasks()

    def computer(self) -> list[Finding]:
        """Nothing is wrong, unless ``findings`` say so."""
        self._fail("computer")
        return self.findings

    def crashes(self) -> list[Crash]:
        """None, unless some are ``left``."""
        self._fail("crashes")
        return self.left

    def models(self) -> list[ModelSummary]:
        """Four of them."""
        self._fail("models")
        return [
            model("starter", "Starter", 3_400_000, "bundled", architecture="LlamaForCausalLM"),
            model("Qwen/Qwen3-0.6B", "Qwen3 0.6B", 596_000_000, "cache"),
            model("meta-llama/Llama-3.2-1B", "Llama 3.2 1B", 1_236_000_000, "cache", gated=True, licence="llama3.2"),
            model("/models/broken", "broken", 0, "folder", problem="config.json is missing."),
        ]

    def summary(self, recipe: Recipe) -> ModelSummary:
        """The model of that name."""
        self._fail("summary")
        if recipe.model.id in self.summaries:
            return self.summaries[recipe.model.id]
        return next((m for m in self.models() if m.id == recipe.model.id), model(recipe.model.id, "", 0, "hub"))

    def estimate(self, recipe: Recipe) -> Work[MemoryEstimate]:
        """Always the same."""
        self._fail("estimate")
        yield e.Progress("Reading data")
        return self.estimated

    def fits(self, recipe: Recipe, models: tuple[str, ...]) -> Work[dict[str, str]]:
        """The large one is too large."""
        yield e.Progress("Reading data")
        return {name: "too large" if "Llama" in name else self.verdict for name in models}

    def measure(self, recipe: Recipe) -> Work[MemoryEstimate]:
        """Two forward passes."""
        self._fail("measure")
        for done in range(2):
            yield e.Progress("Measuring", done, 2, "passes")
        return memory(scale=0.95, measured=True)

    def ways(self, recipe: Recipe) -> Work[Plan]:
        """By formula."""
        self._fail("ways")
        yield e.Progress("Reading data")
        return plan(recipe, self.estimated)

    def plan(self, recipe: Recipe) -> Work[Plan]:
        """As if measured, one way after the other."""
        self._fail("plan")
        for way in ways(recipe):
            yield from self._told(e.Progress(f"Measuring: {way.title}", 0, 3, "steps"))
        return plan(recipe, memory(scale=0.95, measured=True))

    def mask(self, recipe: Recipe) -> Work[MaskReport]:
        """Most in the first blocks and in the values."""
        self._fail("mask")
        for done in range(0, 33, 8):
            yield from self._told(e.Progress("Finding the sensitive weights", done, 32, "sequences"))
        return mask_report()

    def rates(self, recipe: Recipe) -> Work[RateReport]:
        """The third of four is the best."""
        self._fail("rates")
        for done in range(0, 40, 10):
            yield e.Progress("Trying a learning rate of 0.001", done, 40, "steps")
            time.sleep(self.pace)
        losses = {1e-4: 1.39, 1e-3: 1.3, 1e-2: 1.1, 1e-1: 2.4}
        rungs = tuple(Rung(rate, loss, loss < 2, 40, (1.4, loss)) for rate, loss in losses.items())
        return RateReport(rungs, 1.4, 40, 3e-3)

    def noise(self, recipe: Recipe) -> Work[NoiseProbed]:
        """Three times the usual epsilon is clear."""
        self._fail("noise")
        yield from self._told(e.Progress("Measuring rounding noise of the loss"))
        found = ((1, 2.1e-4, 1e-4), (3, 6.4e-4, 1.1e-4), (10, 2.2e-3, 0.9e-4))
        epsilon = recipe.estimator.epsilon
        return NoiseProbed.of([Noise(factor * epsilon, *each) for factor, *each in found])

    def preview(self, recipe: Recipe, page: int) -> Work[DataPreview]:
        """Messages to teams."""
        self._fail("preview")
        yield e.Progress("Reading data")
        texts = (
            "My parcel has not arrived yet and the tracking page shows nothing.",
            "I was charged twice this month.",
            "The app closes when I open the camera.",
            "How do I change my password?",
        )
        teams = ("delivery", "billing", "technical", "account")
        rows = tuple((texts[i % 4], teams[i % 4], str(1000 + i)) for i in range(page * 50, min(page * 50 + 50, 170)))
        examples = tuple(
            (*((f"{word} ", False) for word in f"Customer: {text}".split()), ("\nTeam:", False), (f" {team}", True))
            for text, team, _ in rows[:12]
        )
        lengths = tuple((4 * (i + 1), int(120 * math.exp(-((i - 7) ** 2) / 12))) for i in range(20))
        return DataPreview(
            columns=("text", "label", "ticket"), rows=rows, page=page, available=170,
            totals={"train": 120, "validation": 25, "test": 25}, columns_of={"text": "text", "answer": "label"},
            names=tuple(f"{int(ticket):016x}" for *_, ticket in rows),
            left_out_rows=tuple((name, f"Ticket {int(name, 16)}") for name in recipe.data.leave_out),
            suggestion={}, examples=examples, classes={"delivery": 48, "billing": 33, "technical": 27, "account": 12},
            lengths=lengths, longest=examples[0], longest_tokens=78, cut=0,
        )  # fmt: skip

    def runs(self, also: Path | None) -> list[RunSummary]:
        """What a test put there; remembers ``also``."""
        self._fail("runs")
        self.also = also
        return self.run_list

    def history(self, folder: Path) -> History:
        """What a test put there."""
        self._fail("history")
        return self.histories[folder]

    def curves(self, folders: tuple[Path, ...]) -> list[History]:
        """What a test put there."""
        return [self.history(folder) for folder in folders]

    def train(
        self, recipe: Recipe, commands: Commands, first: int = 1, folder: Path | None = None
    ) -> Iterator[e.Event]:
        """A loss that falls, with evaluations and a warning."""
        self._fail("train")
        folder = folder or self.home / "run"
        folder.mkdir(parents=True, exist_ok=True)
        if first == 1:
            yield e.Preparing(str(folder), recipe.run.name or "starter")
        self._fail("prepare")
        for done in range(0, 33, 8):
            yield e.Progress("Finding sensitive weights", done, 32, "sequences")
            time.sleep(self.pace)
        steps = recipe.loop.steps
        yield e.Started(
            str(folder), recipe.run.name or "starter", first, steps, 3_400_000, 2_000_000, 20_000, "CPU (x86)"
        )
        if first == 1:
            yield e.Evaluation(0, "validation", {"accuracy": 0.26, "loss": 1.40, "examples": 64}, partial=True)
        base = [e.Evaluation(0, "validation", {"accuracy": 0.24, "loss": 1.42, "examples": 120})] if first == 1 else []
        chance = np.random.default_rng(0)
        rate, step = 1e-3, first - 1
        for step in range(first, steps + 1):
            stopped = yield from self._commands(commands, step - 1)
            if stopped:
                yield e.Finished(step - 1, "stopped", "0" * 64)
                return
            time.sleep(self.pace)
            self._fail("step")
            yield self.step(step, chance, rate)
            if (recipe.loop.evaluate_every and step % recipe.loop.evaluate_every == 0) or step == steps:
                yield from base
                base = []
                yield self.evaluation(step, steps)
            if step == 40:
                yield e.Notice("The loss jumped to 2.1; the step was undone and the learning rate halved.", "warning")
        yield e.Evaluation(0, "test", {"accuracy": 0.25, "loss": 1.41, "examples": 200})
        yield e.Evaluation(step, "test", {"accuracy": 0.88, "loss": 0.36, "examples": 200})
        yield e.GeneralText(step, 1500, 20.0, 20.4)
        worst = {"number": 7, "loss": 2.5, "prompt": "Customer: where is it?", "expected": "delivery"}
        best = {"number": 3, "loss": 0.01, "prompt": "Customer: twice charged", "expected": "billing"}
        changed = [{**best, "answer": "billing", "before": "account"}]
        yield e.Examples(step, "test", [{**best, "answer": "billing"}], [{**worst, "answer": "billing"}], changed)
        yield e.Finished(step, "done", "0" * 64)

    def step(self, step: int, chance: Any, rate: float = 1e-3) -> e.Step:
        """One made-up step."""
        loss = 0.35 + 1.05 * math.exp(-step / 150) + 0.12 * chance.standard_normal()
        seconds = 0.031 + 0.004 * abs(chance.standard_normal()) + (0.03 if chance.random() < 0.03 else 0)
        slope = float(3 * chance.standard_normal())
        memory = int(700 * MB + 30 * MB * (1 - math.exp(-step / 50)) + 2 * MB * chance.random())
        return e.Step(step, max(loss, 0.05), slope, rate, seconds, memory, 620)

    def evaluation(self, step: int, steps: int) -> e.Evaluation:
        """Better and better."""
        part = 1 - math.exp(-3 * step / steps)
        values = {"accuracy": 0.24 + 0.64 * part, "loss": 1.42 - 1.0 * part, "examples": 120}
        return e.Evaluation(step, "validation", values)

    def _commands(self, commands: Commands, step: int) -> Generator[e.Event, None, bool]:
        paused = False
        while paused or not commands.empty():
            command = commands.get()
            if isinstance(command, e.Stop):
                return True
            self.asked.append(command)
            if isinstance(command, e.Pause):
                paused = True
                yield e.Paused(step)
            elif isinstance(command, e.Resume):
                paused = False
                yield e.Resumed(step)
            elif isinstance(command, e.Release):
                paused = True
                yield e.Released(step)
            elif isinstance(command, e.Ask):
                yield from self._answer(command, step)
            elif isinstance(command, e.EvaluateNow):
                yield e.Progress("Evaluating", 0, 120, "examples")
                yield self.evaluation(step, 600)
            elif isinstance(command, e.SetRate):
                yield e.Notice(f"The rate is {command.factor:g} times the scheduled one from here on.")
        return False

    def resume(self, folder: Path, commands: Commands) -> Iterator[e.Event]:
        """From step 101 on, or from the first if it was not prepared yet."""
        self._fail("resume")
        history = self.histories.get(folder)
        first = 1 if history and history.run.state == "interrupted" else 101
        return self.train(history.recipe if history else Recipe(), commands, first=first, folder=folder)

    def inspect(self, folder: Path, accept: bool, commands: Commands) -> Iterator[e.Event]:
        """Loaded and paused at step 100; answers, evaluates and rolls back. Changed inputs are a fault until they are
        accepted."""
        if not (accept and isinstance(self.faults.get("inspect"), ChangedInputs)):
            self._fail("inspect")
        yield e.Progress("Loading the model", 1, 2, "parts")
        yield e.Started(str(folder), "yesterday", 101, 2000, 3_400_000, 2_000_000, 20_000, "CPU (x86)")
        step = 100
        while True:
            if commands.empty():
                yield e.Paused(step)
            command = commands.get()
            if isinstance(command, e.Stop | e.Resume):
                yield e.Finished(step, "stopped", "0" * 64)
                return
            self.asked.append(command)
            if isinstance(command, e.Ask):
                yield from self._answer(command, step)
            elif isinstance(command, e.EvaluateNow):
                metrics, changed = {"accuracy": 0.5, "loss": 1.1, "examples": 120}, ("validation",) if accept else ()
                yield e.Evaluation(command.step or step, "validation", metrics, changed)
            elif isinstance(command, e.GoBack):
                step = command.step
                yield e.Returned(step)

    def _answer(self, asked: e.Ask, step: int) -> Iterator[e.Event]:
        for piece in ("The answer ", f"after {asked.step if asked.step is not None else 'all'}."):
            time.sleep(self.pace)
            yield e.Answer(step, piece)
        yield e.Answer(step, "", last=True)

    def branch(self, folder: Path, step: int, settings: list[str], name: str) -> Path:
        """Remembered only."""
        self._fail("branch")
        self.asked.append((folder, step, settings, name))
        return folder / "branches" / name

    def note(self, folder: Path, text: str) -> None:
        """Remembered only."""
        self.asked.append((folder, text))

    def label(self, folder: Path, name: str, tags: tuple[str, ...]) -> None:
        """Changes the list."""
        self._fail("label")
        self.run_list = [replace(run, name=name or run.name, tags=tags) if run.path == str(folder) else run
                         for run in self.run_list]  # fmt: skip

    def removable(self, folder: Path) -> Removable:
        """Of three MiB."""
        return Removable(str(folder), 3 * MB, sum(run.parent == str(folder) for run in self.run_list))

    def remove_run(self, folder: Path) -> Removable:
        """Changes the list."""
        self._fail("remove_run")
        self.run_list = [run for run in self.run_list if str(folder) not in (run.path, run.parent)]
        return self.removable(folder)

    def contents(self, folder: Path) -> Shareable:
        """One file that holds examples, or not."""
        self._fail("contents")
        return Shareable(*((Content("events.jsonl", 9, holds),) for holds in self.held))

    def share(self, folder: Path, out: Path, with_examples: bool) -> Shared:
        """Remembered only."""
        self.asked.append((folder, out, with_examples))
        found = self.contents(folder)
        return Shared(1, True, found.with_examples if with_examples else found.contents)

    def receive(self, file: Path) -> Received:
        """Without its model."""
        return Received(file.with_suffix(""), "It came without its model.")

    def export(
        self, folder: Path, form: str, out: Path, step: int | None, options: dict[str, str], accept: bool
    ) -> Work[Exported]:
        """Two stages."""
        if not (accept and isinstance(self.faults.get("export"), ChangedInputs)):
            self._fail("export")
        self.exported = (form, out, step, options)
        yield from self._told(e.Progress("Writing", 1, 2, "files"))
        yield e.Notice("The base model is in 4 bits only.")
        yield e.Progress("Checking", 2, 2, "prompts")
        if out.is_relative_to(self.home.parent):  # else it is a user's folder
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(b"x" * 2048)
        told = ("20,000 of 20,000 tuned weights differ from the base model's.",)
        return Exported(step or 100, 20_000, told, str(out))

    def ask_export(self, folder: Path, out: Path, prompt: str) -> Work[str]:
        """Reads the file."""
        self._fail("ask_export")
        yield e.Progress("Loading the model", 1, 2, "parts")
        return f"{out.name} with {len(out.read_bytes())} bytes answers: {prompt}"

    def consent(self, code: ModelCode) -> None:
        """Remembered only."""
        self._fail("consent")
        self.asked.append(code)

    def search(self, recipe: Recipe, words: str, datasets: bool) -> Work[list[Found]]:
        """Four models or two data sets, whatever the words."""
        self._fail("search")
        yield from self._told(e.Progress("Searching the Hub"))
        return list(DATA_SETS if datasets else MODELS)

    def judge(self, recipe: Recipe, found: tuple[Found, ...]) -> list[Found]:
        """The first fits as told."""
        return [replace(found[0], fit=self.verdict), *found[1:]]

    def download(self, id: str, datasets: bool) -> Work[Downloaded]:
        """A GiB in ten parts; what an earlier try downloaded stays."""
        self._fail("download")
        what = "data set" if datasets else "model"
        for done in range(self.parts.get(id, 0), 10):
            self.parts[id] = done
            yield from self._told(e.Progress(f"Downloading the {what}", done * GB // 10, GB, "bytes"))
        return Downloaded(id, "0" * 40, f"/cache/{id}", GB, GB)

    def discard(self, id: str, datasets: bool) -> None:
        """Forgets what was downloaded."""
        self.parts.pop(id, None)

    def remove(self, id: str, datasets: bool) -> Cache:
        """Remembered only."""
        self._fail("remove")
        self.asked.append(("remove", id, datasets))
        return Cache(id, "data set" if datasets else "model", GB, 0.0, f"/cache/{id}")

    def push(self, out: Path, id: str, public: bool, card: str) -> Work[Pushed]:
        """In two parts."""
        self._fail("push")
        self.asked.append(("push", out, id, public))
        yield from self._told(e.Progress("Uploading", GB // 2, GB, "bytes"))
        return Pushed(id, f"https://huggingface.co/{id}", not public, GB)


MODELS = (
    Found("Qwen/Qwen3-0.6B", 596_000_000, "", 1_503_000_000, "apache-2.0", 9_120_345, fit="fits"),
    Found("meta-llama/Llama-3.2-1B", 1_236_000_000, "", 2_472_000_000, "llama3.2", 2_345_678, True),
    Found("Qwen/Qwen3-32B", 32_762_000_000, "", 65_524_000_000, "apache-2.0", 1_234_567, fit="too large"),
    Found("Qwen/Qwen3-0.6B-GGUF", downloads=43_210, licence="apache-2.0", problem="It has no safetensors weights."),
)
DATA_SETS = (
    Found("nyu-mll/glue", rows="100K to 1M", bytes=163 * MB, licence="other", downloads=412_345),
    Found("stanfordnlp/imdb", rows="10K to 100K", bytes=84 * MB, licence="other", downloads=234_567),
)


def mask_report(blocks: int = 28) -> MaskReport:
    """A mask of 0.1 % of a model like Qwen3 0.6B."""
    layers = tuple(
        Tally(str(i), int(15_000 * (0.4 + 2 * math.exp(-i / 3) + 0.2 * (i % 3))), 15_728_640) for i in range(blocks)
    )
    tuned = sum(layer.tuned for layer in layers)
    parts = {"q_proj": (2, 13), "k_proj": (1, 8), "v_proj": (1, 31), "o_proj": (2, 16), "gate_proj": (3, 9),
             "up_proj": (3, 11), "down_proj": (3, 12)}  # fmt: skip
    weights = sum(layer.weights for layer in layers)
    kinds = tuple(Tally(kind, tuned * b // 100, weights * a // 15) for kind, (a, b) in parts.items())
    others = (Overlap("Sensitive", {"density": 0.01}, 10 * tuned, tuned, 1.0, 0.01),
              Overlap("Large activations", {"text": "task", "sequences": 16}, tuned, tuned // 7, 0.143,
                      0.001))  # fmt: skip
    return MaskReport(tuned, weights, Cost(21.4, 1_500 * MB), layers, kinds, others)


def past(steps: int = 100, state: str = "stopped", of: int = 2000) -> History:
    """Of an interrupted run."""
    engine, chance = StandIn(Path()), np.random.default_rng(1)
    names = ("step", "tokens", "loss", "rate", "seconds", "memory")
    rows = np.zeros(steps, np.dtype([*((name, float) for name in names), ("values", float, (1,))]))
    for index in range(steps):
        one = engine.step(index + 1, chance)
        rows[index] = (one.step, one.tokens, one.loss, one.rate, one.seconds, one.memory_bytes, one.projected_gradient)
    events: list[e.Event] = [e.Evaluation(0, "validation", {"accuracy": 0.24, "loss": 1.42, "examples": 120})]
    return History(listed(Path("yesterday"), state=state), Recipe(loop={"steps": of}), [rows], events, "")


def listed(path: Path, name: str = "yesterday", step: int = 100, **more: Any) -> RunSummary:
    """A run of 2000 steps."""
    facts = {"state": "stopped", "best": 60, "model": "starter", **more}
    return RunSummary(
        str(path), name, step=step, steps=2000, created="2026-11-21T18:04:11",
        metrics={"accuracy": 0.5}, **facts,
    )  # fmt: skip
