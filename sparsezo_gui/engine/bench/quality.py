"""How well methods tune: tasks × methods × seeds, each cell a full run of the program.

Every cell is saved in ``results.jsonl`` as soon as it is done, and a run that is interrupted resumes at its last step,
so a benchmark of hours can be stopped, continued and extended. Masks and the results of untuned models are kept too.
A method's learning rate is searched for first, with full runs of the first seed, compared on validation data: one rate
for all methods would be unfair, and short runs tolerate higher rates than long ones. Methods that are compared as users
get them are not searched for (see `contestants`). A backward pass counts as two forward passes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsezo_gui.engine.bench import lora
from sparsezo_gui.engine.bench.contestants import LORA, PROBE, STEPS, UNTUNED, named, parsed, searched, settings
from sparsezo_gui.engine.bench.linear_probe import linear_probe
from sparsezo_gui.engine.bench.trials import Cell, Work, tuned, untuned
from sparsezo_gui.engine.data.tasks import task as kind_of
from sparsezo_gui.engine.files import cannot_write, write_text
from sparsezo_gui.engine.locks import held
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe import events as e

APART = 4.0  # factor between two rates to try
FURTHEST = 3  # how many rates to try above or below the first
HIGHEST = 1.0  # highest rate that a recipe accepts
RESULTS, LOCK = "results.jsonl", "results.lock"


@dataclass
class Quality:
    """Measures ``methods`` (see `contestants`) on ``tasks`` (settings by name), starting from ``base``, and saves the
    cells in ``folder``. With ``once``, the best rates on the first task are used for all; without ``search``, the usual
    ones. A run looks at the validation data ``evaluations`` times, evenly spaced.

    Raises `UserError` if something cannot be compared."""

    base: Recipe
    tasks: dict[str, tuple[str, ...]]
    methods: tuple[str, ...]
    seeds: int
    forwards: int
    folder: Path
    once: bool = False
    search: bool = True
    evaluations: int = 10
    cells: list[Cell] = field(init=False)

    def __post_init__(self) -> None:
        for table, key in (("estimator", "rule"), ("update", "rule"), ("update", "schedule")):
            if getattr(getattr(self.base, table), key) != getattr(getattr(Recipe(), table), key):
                raise UserError(f"[{table}] {key} belongs to the compared methods. Leave it out, and choose --methods.")
        self.methods = tuple(named(self.methods, ()))
        for task in self.tasks:  # report errors before the first one takes hours
            for name in self.methods:
                data = self._recipe(task, name).data
                if kind_of(data.task).kind == "preference":
                    raise UserError(f"Task '{data.task}' cannot be compared: its pairs have no correct answer. Choose "
                                    "another task.")  # fmt: skip
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

    def run(self) -> Generator[e.Event, None, None]:
        """Measures all missing cells, all of the first seed before those of the next. Raises `UserError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        for seed in range(self.seeds):
            for task in self.tasks:
                for name in self.methods:
                    if self._takes(name, task, seed):
                        factor = yield from self._factor(next(iter(self.tasks)) if self.once else task, name)
                        yield from self._cell(task, name, seed, factor)

    def _takes(self, name: str, task: str, seed: int) -> bool:
        """Whether there is such a cell: what has no seed has one, and a probe needs the same answers in all rows."""
        method, of_task = parsed(name).method, kind_of(self._recipe(task, name).data.task)
        fixed = of_task.kind == "choice" and not of_task.item and not any("{{" in each.text for each in of_task.answers)
        return (method != PROBE or fixed) and (method not in (UNTUNED, PROBE) or seed == 0)

    def _factor(self, task: str, name: str) -> Generator[e.Event, None, float]:
        """The factor on a method's usual rate with the lowest validation loss at the end of a run: tries higher rates
        as long as they help, else lower ones."""
        best = 1.0
        if not self.search or not searched(name):
            return best
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
        return lora.RATE if parsed(name).method == LORA else self._recipe(task, name).update.learning_rate

    def _recipe(self, task: str, name: str) -> Recipe:
        of_task = with_settings(self.base, self.tasks[task], Path.cwd())
        return with_settings(of_task, settings(name))

    def _cell(self, task: str, name: str, seed: int, factor: float) -> Work:
        key = {**self._key(task, name), "seed": seed, "factor": factor}
        if found := self._found(key):
            return found
        yield e.Notice(f"{task}, {name}, seed {seed}" + (f", {factor:g} × the usual rate" if searched(name) else ""))
        recipe = with_settings(self._recipe(task, name), [f"loop.seed={seed}"])
        return self._keep(key | (yield from self._measured(recipe, name, factor)))

    def _measured(self, recipe: Recipe, name: str, factor: float) -> Work:
        method, metric = parsed(name).method, {"metric": kind_of(recipe.data.task).metric}
        if method == LORA:
            return metric | (yield from lora.lora(self._evaluated(recipe, name), factor))
        base = yield from self._untuned(recipe)
        if method == UNTUNED:
            return metric | base
        beside = metric | {f"base_{key}": base[key] for key in ("final", "loss", "scores", "samples") if key in base}
        if method == PROBE:
            return beside | (yield from linear_probe(recipe))
        if searched(name):  # with the guard, a run that goes back and repeats steps would use more passes than others
            recipe = with_settings(recipe, ["loop.guard=false"])
            recipe = recipe.with_rate(factor * recipe.update.learning_rate)
        return beside | (yield from tuned(self._evaluated(recipe, name), self.folder))

    def _untuned(self, recipe: Recipe) -> Work:
        """The result of the model without tuning, which only depends on the model and the data."""
        tables = [recipe.model.model_dump_json(), recipe.data.model_dump_json()]
        key = {"untuned": hashlib.sha256(json.dumps(tables).encode()).hexdigest()[:12]}
        found = self._found(key) or self._keep(key | (yield from untuned(recipe)))
        return {name: value for name, value in found.items() if name != "untuned"}

    def _found(self, key: Cell) -> Cell | None:
        return next((cell for cell in self.cells if cell.items() >= key.items()), None)

    def _keep(self, cell: Cell) -> Cell:
        try:
            with held(self.folder / LOCK, -1):
                self.cells = [*self._kept(), cell]  # others may have added cells meanwhile
                write_text(self.folder / RESULTS, "".join(json.dumps(each) + "\n" for each in self.cells))
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return cell

    def _evaluated(self, recipe: Recipe, name: str) -> Recipe:
        """``recipe`` with the steps of a method: its own, or as many as ``forwards`` pay for."""
        cost = lora.COST if parsed(name).method == LORA else recipe.cost
        steps = parsed(name).steps or max(1, self.forwards // cost)
        every = max(1, steps // self.evaluations)
        return with_settings(recipe, [f"loop.steps={steps}", f"loop.evaluate_every={every}"])

    def _key(self, task: str, name: str) -> Cell:
        """Identifies cells. Settings with default values are left out, since later versions have more of them; but of
        what is compared as users get it, the usual rate is part of the key."""
        own, usual = (each.model_dump(mode="json", exclude={"run"}) for each in (self.base, Recipe()))
        usual["model"]["block"] = 64  # the only value when the first cells were measured
        changed = {name: {key: value for key, value in table.items() if value != usual[name].get(key)}
                   for name, table in own.items() if isinstance(table, dict)}  # fmt: skip
        method, *_, steps = parsed(name)
        content: list[Any] = [changed, self.tasks[task], settings(name)]
        if method in STEPS:
            content.append(self._usual(task, name))
        base = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
        cost = lora.COST if method == LORA else self._recipe(task, name).cost
        forwards = steps * cost or (self.forwards if method != PROBE else 0)
        return {"model": self.base.model.id, "base": base, "forwards": forwards, "task": task, "method": name}

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
