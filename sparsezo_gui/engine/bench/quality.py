"""How well methods tune: tasks × methods × seeds at equal forward passes, each cell a full run of the program.

Every cell is saved in ``results.jsonl`` as soon as it is done, so a benchmark of hours can be stopped, resumed and
extended. A method's learning rate is searched for first, with full runs of the first seed, compared on validation data:
one rate for all methods would be unfair, and short runs tolerate higher rates than long ones. A backward pass counts as
two forward passes.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsezo_gui.engine import frozen, training
from sparsezo_gui.engine.bench.contestants import LORA, LORA_RATE, UNTUNED, lora, settings
from sparsezo_gui.engine.data.tasks import task as kind_of
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.files import cannot_write, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.folder import RunFolder, open_run
from sparsezo_gui.engine.runs.lineage import lineage_of
from sparsezo_gui.engine.session.loading import load_data
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.engine.session.replay import replay
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, outcome, with_settings
from sparsezo_gui.recipe import events as e

EVALUATIONS = 10  # on validation data, evenly spaced over a run
APART = 4.0  # factor between two rates to try
FURTHEST = 3  # how many rates to try above or below the first
HIGHEST = 1.0  # highest rate that a recipe accepts
RESULTS, LOCK = "results.jsonl", "results.lock"
METRIC = "accuracy"  # the metric of the tasks that are compared
TARGET = "mezo"  # the method whose final accuracy the others should reach in fewer forward passes

Cell = dict[str, Any]
Work = Generator[e.Event, None, Cell]


@dataclass
class Quality:
    """Measures ``methods`` (see `contestants.settings`) on ``tasks`` (settings by name), starting from ``base``, and
    saves the cells in ``folder``. With ``once``, the best rates on the first task are used for all.

    Raises `UserError` if something cannot be compared."""

    base: Recipe
    tasks: dict[str, tuple[str, ...]]
    methods: tuple[str, ...]
    seeds: int
    forwards: int
    folder: Path
    once: bool = False
    cells: list[Cell] = field(init=False)

    def __post_init__(self) -> None:
        for table, key in (("estimator", "rule"), ("update", "rule"), ("update", "schedule")):
            if getattr(getattr(self.base, table), key) != getattr(getattr(Recipe(), table), key):
                raise UserError(f"[{table}] {key} belongs to the compared methods. Leave it out, and choose --methods.")
        for task in self.tasks:  # report errors before the first one takes hours
            for name in self.methods:
                data = self._recipe(task, name).data
                if kind_of(data.task).kind != "choice" or kind_of(data.task).metric != METRIC:
                    raise UserError(
                        f"Task '{data.task}' has no answers to choose from, but accuracy is compared here. "
                        "Choose a task with answers."
                    )
                if not data.validation or not data.test:
                    raise UserError("Rates are chosen on validation data, and results measured on test data. Set "
                                    "[data] validation and test above 0.")  # fmt: skip
        self.cells = self._kept()

    def _kept(self) -> list[Cell]:
        path = self.folder / RESULTS
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise UserError(f"{path}: not a results file ({error}). Choose another folder with --out.") from error

    def run(self) -> Generator[e.Event, None, list[Cell]]:
        """Measures all missing cells; returns a row for each task and method. Raises `UserError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        for task in self.tasks:
            searched = next(iter(self.tasks)) if self.once else task
            for name in self.methods:
                factor = 1.0 if name == UNTUNED else (yield from self._rate(searched, name))
                for seed in range(1 if name == UNTUNED else self.seeds):
                    yield from self._cell(task, name, seed, factor)
        return self.rows()

    def _rate(self, task: str, name: str) -> Generator[e.Event, None, float]:
        """The factor on a method's default rate with the lowest validation loss at the end of a run: tries higher rates
        as long as they help, else lower ones."""
        best = 1.0
        lowest = _loss((yield from self._cell(task, name, 0, best)))
        for direction in (APART, 1 / APART):
            for _ in range(FURTHEST):
                if best * direction * self._usual(task, name) > HIGHEST:
                    break
                loss = _loss((yield from self._cell(task, name, 0, best * direction)))
                if loss >= lowest:
                    break
                best, lowest = best * direction, loss
            if best != 1.0:
                break
        return best

    def _usual(self, task: str, name: str) -> float:
        """The rate that the search starts from."""
        if name == LORA:
            return LORA_RATE
        return self._recipe(task, name).update.learning_rate

    def _recipe(self, task: str, name: str) -> Recipe:
        of_task = with_settings(self.base, self.tasks[task], Path.cwd())
        return with_settings(of_task, settings(name))

    def _cell(self, task: str, name: str, seed: int, factor: float) -> Work:
        key = {**self._key(task, name), "seed": seed, "factor": factor}
        for cell in self.cells:
            if cell.items() >= key.items():
                return cell
        yield e.Notice(f"{task}, {name}, seed {seed}, {factor:g} × the default rate")
        chosen = with_settings(self._recipe(task, name), [f"loop.seed={seed}"])
        if name == UNTUNED:
            work = _untuned(chosen)
        elif name == LORA:
            work = lora(_evaluated(chosen, self.forwards // 3), self.forwards // 3, factor)
        else:
            rate = f"update.learning_rate={factor * chosen.update.learning_rate!r}"
            work = _tuned(_evaluated(with_settings(chosen, [rate]), self.forwards // chosen.cost))
        cell = key | (yield from work)
        try:
            with held(self.folder / LOCK, -1):
                self.cells = [*self._kept(), cell]  # others may have added cells meanwhile
                write_text(self.folder / RESULTS, "".join(json.dumps(each) + "\n" for each in self.cells))
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return cell

    def rows(self) -> list[Cell]:
        """For each task and method: accuracy in percent, mean ± standard error over the seeds, at the end (``final``)
        and at the best step on validation data (``best``); and the forward passes and seconds needed to reach MeZO's
        mean final accuracy on validation data, if all seeds reached it. ``mib`` is the old name of
        ``peak_memory_mib``, in results too."""
        return [self._row(task, name) for task in self.tasks for name in self.methods if self.whole(task, name)]

    def _row(self, task: str, name: str) -> Cell:
        cells, other = self.whole(task, name), self.whole(task, TARGET)
        reached: list[int | None] = [None]
        if other and name != UNTUNED:
            target = statistics.mean(cell["curve"][-1][1] for cell in other)
            reached = [next((count for count, hit in cell["curve"] if hit >= target), None) for cell in cells]
        counts = [count for count in reached if count is not None]
        passes = statistics.mean(counts) if len(counts) == len(reached) else None
        seconds = statistics.mean(cell["seconds"] for cell in cells) if "seconds" in cells[0] else None
        return {
            "task": task, "method": name, "seeds": len(cells),
            "final": _spread(cell["final"] for cell in cells),
            "best": _spread(cell["best"] for cell in cells) if "best" in cells[0] else "",
            "forwards_to_mezo": "" if passes is None else round(passes),
            "seconds_to_mezo": "" if passes is None or seconds is None else round(seconds * passes / self.forwards),
            "tuned": cells[0]["tuned"], "rate": f"{cells[0]['rate']:.1e}",
            "seconds": "" if seconds is None else round(seconds),
            "mask_seconds": cells[0].get("mask_seconds", ""),
            **dict.fromkeys(("peak_memory_mib", "mib"), cells[0].get("peak_memory_mib", cells[0].get("mib", ""))),
        }  # fmt: skip

    def _key(self, task: str, name: str) -> Cell:
        """Identifies cells. Settings with default values are left out, since later versions have more of them."""
        own, usual = (each.model_dump(mode="json", exclude={"run"}) for each in (self.base, Recipe()))
        usual["model"]["block"] = 64  # the only value when the first cells were measured
        changed = {name: {key: value for key, value in table.items() if value != usual[name].get(key)}
                   for name, table in own.items() if isinstance(table, dict)}  # fmt: skip
        text = json.dumps([changed, self.tasks[task], settings(name)], sort_keys=True)
        base = hashlib.sha256(text.encode()).hexdigest()[:12]
        return {"model": self.base.model.id, "base": base, "forwards": self.forwards, "task": task, "method": name}

    def whole(self, task: str, name: str) -> list[Cell]:
        """The cells of a method on a task at its best rate."""
        key = self._key(task, name)
        found = [cell for cell in self.cells if cell.items() >= key.items() and cell["seed"] < self.seeds]
        best = min((cell for cell in found if cell["seed"] == 0), key=_loss, default={"factor": 1.0})["factor"]
        return [cell for cell in found if cell["factor"] == best]


def _loss(cell: Cell) -> float:
    """Validation loss; infinite if the run ended without a finite one."""
    loss = cell.get("validation_loss", 0.0)
    return loss if math.isfinite(loss) else math.inf


def _evaluated(recipe: Recipe, steps: int) -> Recipe:
    every = max(1, steps // EVALUATIONS)
    # With the guard, a run that goes back and repeats steps would use more forward passes than the others.
    loop = ["loop.guard=false", f"loop.steps={max(1, steps)}", f"loop.evaluate_every={every}"]
    return with_settings(recipe, [*loop, "run.checkpoints=200"])


def _tuned(recipe: Recipe) -> Work:
    """A run of ``recipe``, and its accuracy at the end and at its best step on validation data."""
    with tempfile.TemporaryDirectory(prefix="sparsezo-quality-") as place:
        path = Path(place) / "run"
        try:
            # Test data is used only after the run.
            for event in training.train(with_settings(recipe, ["data.test=0"]), folder=path):
                if isinstance(event, e.Progress):
                    yield event
        except UserError as error:  # such as steps without a finite loss: the run up to there counts
            if not (path / "run.json").exists():
                raise
            yield e.Notice(str(error), "warning")
        run = open_run(path)
        events, steps = outcome.on_lineage(run.events()), journal.read(run.journal).steps
        validated = sorted(outcome.evaluations(events), key=lambda event: event.step)
        found = {
            "curve": [(event.step * recipe.cost, event.metrics[METRIC]) for event in validated],
            "validation_loss": validated[-1].metrics["loss"], "steps": len(steps), "tuned": run.facts.tuned,
            "seconds": round(float(steps["seconds"].sum()), 1), "mask_seconds": run.facts.mask_seconds,
            "peak_memory_mib": round(int(steps["memory"].max(initial=0)) / 2**20), "rate": recipe.update.learning_rate,
        }  # fmt: skip
        return found | (yield from _tested(recipe, run, outcome.best(events)))


def _tested(recipe: Recipe, run: RunFolder, best: e.Evaluation | None) -> Work:
    """Accuracy on test data, at the end of the run and at its ``best`` step."""
    session = yield from open_session(run)
    data = yield from load_data(recipe, session.model)
    with session.tuned.applied():
        final = (yield from evaluate(session.model, data.test.encoded, "test")).metrics[METRIC]
    chosen = final
    if best is not None and best.step != session.step:
        yield from replay(session, lineage_of(run, best.step))
        with session.tuned.applied():
            chosen = (yield from evaluate(session.model, data.test.encoded, "test")).metrics[METRIC]
    return {"final": final, "best": chosen}


def _untuned(recipe: Recipe) -> Work:
    """Accuracy of the base model on test data."""
    model = yield from frozen.load(recipe.model)
    data = yield from load_data(recipe, model)
    metrics = (yield from evaluate(model, data.test.encoded, "test")).metrics
    return {"final": metrics[METRIC], "curve": [], "tuned": 0, "rate": 0.0}


def _spread(values: Iterable[float]) -> str:
    """Mean and standard error in percent."""
    percent = [100 * value for value in values]
    error = f" ± {statistics.stdev(percent) / math.sqrt(len(percent)):.1f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.1f}{error}"
