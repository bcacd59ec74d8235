"""A helper: a worker that does what the leader says; see the package."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.gradient import BackwardPasses
from sparsezo_gui.engine.objective import Passes, Place
from sparsezo_gui.engine.pretrained import consent
from sparsezo_gui.engine.probe import places_along
from sparsezo_gui.engine.runs.gradients import Rounded
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import tune_blocks
from sparsezo_gui.engine.spaces import mask as masks
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.team.link import Link
from sparsezo_gui.engine.workers import shares
from sparsezo_gui.errors import OUT_OF_MEMORY, ConsentNeeded, LostWorker, UserError, out_of_memory
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.untrusted import is_fault
from sparsezo_gui.work import finish


class Helper:
    """Obeys the orders that come over ``link``; ``trust`` lets the model's own code run."""

    model: FrozenModel
    session: Session

    def __init__(self, link: Link, trust: bool = False) -> None:
        self.link, self.trust = link, trust
        self.examples: list[Encoded] = []
        self._directions: Any = None
        self._fault = ""

    def serve(self) -> int:
        """Obeys until the leader ends the run; returns the exit code: 1 if the leader is gone, or gives no orders."""
        try:
            while True:
                order, tensors = self.link.told()
                try:
                    getattr(self, f"_{order['do']}")(order, tensors)
                except BaseException as error:
                    if isinstance(error, LostWorker) or not is_fault(error):
                        raise
                    self._fault = self._fault or _words(error)
                if order["do"] in ("open", "forward", "backward", "end") and self._fault:
                    self.link.complain(self._fault)
                if order["do"] == "end":
                    return 0
        except LostWorker:
            return 1
        except UserError as error:  # of what is no order
            self.link.complain(str(error))
            return 1

    def _load(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        self.__dict__.pop("session", None), self.__dict__.pop("model", None)  # which take memory
        self._fault, recipe = "", Recipe.model_validate_json(order["recipe"])
        try:
            self.model = finish(frozen.load(recipe.model))
        except ConsentNeeded as needed:
            if not self.trust:
                raise
            consent.give(needed.code)
            self.model = finish(frozen.load(recipe.model))
        tune_blocks(self.model, recipe)
        if self.model.prefix:
            self.model.prefix.room //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def _open(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        if self._fault:
            return
        if order["fingerprint"] != self.model.fingerprint:
            raise UserError("The model has other weights there. Copy the leader's model to this computer.")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.safetensors"
            path.write_bytes(tensors[0].numpy().tobytes())
            mask = masks.load(path, self.model.spec.linears, self.model.fingerprint)
        self.model.pack_rows = order["pack_rows"]
        recipe = Recipe.model_validate_json(order["recipe"])
        self.session = Session(recipe, self.model, tuned_values(self.model, mask), generator=order["generator"])
        self.link.answer(_nothing())

    def _begin(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        self.session.recipe, self._directions = Recipe.model_validate_json(order["recipe"]), None
        self.session.begin()

    def _restore(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        self.session.recipe, self._directions = Recipe.model_validate_json(order["recipe"]), None
        self.session.restore(order, tensors)

    def _learn(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        for rows, choices, label in order["examples"]:
            made = tuple(Row(*map(tuple, row)) for row in rows)
            self.examples.append(Encoded(made, choices, label, (), (), 0))

    def _advance(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        session, exact = self.session, None
        if "exact" in order:
            first, exponent = order["exact"]
            exact = Rounded(first, exponent, tensors[0].numpy()).unpacked(session.tuned.values)
        elif tensors:
            exact = tensors[0].to(session.tuned.values.device)
        session.advance(self._along(), order["recorded"], order["rate"], exact)
        self._directions = None

    def _forward(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        if self._fault:
            return
        session, examples = self.session, [self.examples[number] for number in order["examples"]]
        if order["at"] in ("probed", "own"):
            places = places_along(session.tuned, self._along(), tensors, order["at"] == "own")
        else:
            places = (Place(1, self._held(order, tensors)),)
        passes = Passes(self.model, examples, places)
        found = passes.run(shares(passes.rows, self.link.size)[self.link.rank])
        self.link.answer(torch.cat([each.reshape(-1) for each in found]) if found else _nothing())

    def _backward(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        if self._fault:
            return
        session, link, examples = self.session, self.link, [self.examples[number] for number in order["examples"]]
        base = None if order["base"] is None else torch.tensor(order["base"], dtype=torch.float64)
        passes = BackwardPasses(self.model, session.tuned, session.recipe.objective, examples, order["blocks"], base)
        sums, losses = [], list[float]()
        with self._held(order, tensors)():
            for unit in shares(passes.rows, link.size)[link.rank]:
                sums.append(torch.zeros_like(session.tuned.values, dtype=torch.float32))
                losses += passes.run(range(unit, unit + 1), sums[-1])
        link.answer(torch.tensor(losses, dtype=torch.float64))
        total = torch.empty_like(session.tuned.values, dtype=torch.float32)
        link.take_over(total, link.rank - 1)
        for each in sums:
            total += each
        link.pass_on(total, (link.rank + 1) % link.size)

    def _end(self, order: dict[str, Any], tensors: list[Tensor]) -> None:
        if not self._fault:
            self.link.answer(_nothing())

    def _along(self) -> Any:
        """The directions of the next step, drawn once."""
        if self._directions is None:
            self._directions = self.session.directions()
        return self._directions

    def _held(self, order: dict[str, Any], tensors: list[Tensor]) -> Callable[[], AbstractContextManager[None]]:
        tuned = self.session.tuned
        match order["at"]:
            case "original":
                return tuned.base
            case "current":
                return tuned.applied
        return partial(tuned.probed, self._along(), tensors[0])


def _words(error: BaseException) -> str:
    if out_of_memory(error):
        return OUT_OF_MEMORY
    return str(error) if isinstance(error, UserError) else f"Unexpected error: {type(error).__name__}: {error}"


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)
