"""The leader of several workers; see the package."""

from __future__ import annotations

import dataclasses
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.forward import SMALL_ROWS
from sparsezo_gui.engine.gradient import BackwardPasses
from sparsezo_gui.engine.objective import Passes
from sparsezo_gui.engine.runs.gradients import rounded
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.team.link import Link
from sparsezo_gui.engine.workers import Workers, shares
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.sizes import size


class Leader(Workers):
    """Rank 0: decides, and has the others make their part of the passes."""

    def __init__(self, link: Link) -> None:
        self.link, self.size = link, link.size
        self.here: dict[str, Any] | None = None
        self._known: tuple[Any, ...] = ()  # what the helpers' session is like
        self._numbers: dict[Encoded, int] = {}  # of the examples that they have
        self._rows = [0] * self.size  # that each worker computed
        self._steps, self._bytes = 0, 0  # taken, and exchanged for them

    def prepare(self, recipe: Recipe) -> Recipe:
        """See `Workers.prepare`: passes become small enough to be shared, as large on every computer."""
        self._refuse(recipe)
        if recipe.loop.pass_rows:
            return recipe
        rows = SMALL_ROWS[devices.choose(recipe.model.device).type] * SPACES[recipe.mask.space].packs
        return with_settings(recipe, [f"loop.pass_rows={rows}"])

    def load(self, recipe: Recipe) -> None:
        """See `Workers.load`. Raises `UserError` for what cannot be shared."""
        self._refuse(recipe)
        self._tell({"do": "load", "recipe": recipe.model_dump_json()})

    def open(self, session: Session) -> None:
        """See `Workers.open`. Raises `UserError` if a helper could not load the model."""
        model = session.model
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.safetensors"
            session.tuned.mask.save(path)
            mask = torch.from_numpy(np.fromfile(path, np.uint8))
        self._tell(
            {
                "do": "open", "recipe": session.recipe.model_dump_json(), "fingerprint": model.fingerprint,
                "pack_rows": model.pack_rows, "generator": session.generator,
            },
            [mask],
        )  # fmt: skip
        list(self.link.answers())
        model.workers, self._known = self, ()

    def began(self, session: Session) -> None:
        """See `Workers.began`."""
        self._tell({"do": "begin", "recipe": session.recipe.model_dump_json()})
        self._known = _mark(session)

    def advanced(self, session: Session, recorded: Sequence[float], rate: float, exact: Tensor | None) -> None:
        """See `Workers.advanced`."""
        order: dict[str, Any] = {"do": "advance", "recorded": list(recorded), "rate": rate}
        tensors = []
        if exact is not None and any(recorded):
            short = rounded(exact)
            again = short.unpacked(exact)
            if again is not None and torch.equal(again, exact):
                order["exact"] = [short.first, short.exponent]
                tensors = [torch.from_numpy(short.numbers.astype(np.float16))]
            else:
                tensors = [exact.cpu()]
        with self._counting():
            self._tell(order, tensors)
        self._known, self._steps = _mark(session), self._steps + 1

    def ready(self, session: Session) -> None:
        """See `Workers.ready`."""
        if self.size == 1 or _same(self._known, _mark(session)):
            return
        plain, tensors = session.snapshot()
        self._tell({"do": "restore", "recipe": session.recipe.model_dump_json(), **plain}, tensors)
        self._known = _mark(session)

    @contextmanager
    def at(self, where: str, session: Session) -> Iterator[None]:
        """See `Workers.at`."""
        self.ready(session)
        self.here = {"at": where, "parts": []}
        try:
            yield
        finally:
            self.here = None

    def run(self, passes: Passes) -> list[Tensor]:
        """See `Workers.run`."""
        if passes.asked is None or self.size == 1:
            return super().run(passes)
        mine, *others = self._shared(passes.rows)
        if not any(others):
            return passes.run(mine)
        self._teach(passes.examples)
        with self._counting():
            self._ask("forward", passes, passes.asked)
            found = passes.run(mine)
            shapes = [passes.shapes[units.start : units.stop] for units in others]
            sizes = [[points * slots for points, slots in each] for each in shapes]
            for number, numbers in enumerate(self.link.answers(list(map(sum, sizes)))):
                parts = numbers.split(sizes[number]) if sizes[number] else ()
                found += [part.view(shape) for part, shape in zip(parts, shapes[number], strict=True)]
        return found

    def add(self, passes: BackwardPasses, found: Tensor) -> list[float]:
        """See `Workers.add`: the first worker adds its gradients, the next one continues with the sum, and so on, so
        that the order is that of one worker alone."""
        if passes.asked is None or self.size == 1:
            return super().add(passes, found)
        mine, *others = self._shared(passes.rows)
        if not any(others):
            return passes.run(mine, found)
        self._teach(passes.examples)
        with self._counting():
            base = None if passes.base is None else passes.base.tolist()
            self._ask("backward", passes, {**passes.asked, "blocks": passes.blocks, "base": base})
            losses = passes.run(mine, found)
            for part in self.link.answers(list(map(len, others))):
                losses += part.tolist()
            self.link.pass_on(found, 1)
            self.link.take_over(found, self.size - 1)
        return losses

    def end(self) -> None:
        """Sends the helpers home. Raises `LostWorker` if one is gone."""
        if self.link.between:
            self._tell({"do": "end"})
            list(self.link.answers())

    @property
    def greeting(self) -> str:
        """See `Workers.greeting`."""
        if self.size == 1:
            return ""
        return f"{self.size} workers share the forward passes of each step."

    @property
    def account(self) -> str:
        """See `Workers.account`."""
        if self.size == 1 or not self._steps:
            return ""
        part = [100 * rows / max(1, sum(self._rows)) for rows in self._rows]
        each = self._bytes / self._steps / (self.size - 1)
        return (
            f"Work of workers 0 to {self.size - 1}: {', '.join(f'{share:.0f} %' for share in part)} "
            f"({sum(self._rows):,} rows). Exchanged with each of the others: {each:,.0f} bytes per step, and "
            f"{size((self.link.sent + self.link.received - self._bytes) / (self.size - 1))} besides."
        )

    def _refuse(self, recipe: Recipe) -> None:
        for table, rule, shared in (
            ("objective", recipe.objective.writes and recipe.objective.rule, "likelihood"),
            ("selection", recipe.selection.cost and recipe.selection.rule, "shuffled"),
        ):
            if rule and self.size > 1:
                raise UserError(
                    f"[{table}] rule = '{rule}' cannot be shared by several workers. Set [{table}] rule = '{shared}', "
                    "or run it without torchrun."
                )

    def _tell(self, order: dict[str, Any], tensors: Sequence[Tensor] = ()) -> None:
        if self.size > 1:
            self.link.tell(order, [each.cpu().contiguous() for each in tensors])

    def _ask(self, what: str, passes: Passes | BackwardPasses, asked: dict[str, Any]) -> None:
        """Orders passes."""
        numbers = [self._numbers[each] for each in passes.examples]
        self._tell({"do": what, **asked, "parts": len(asked["parts"]), "examples": numbers}, asked["parts"])

    def _teach(self, examples: Sequence[Encoded]) -> None:
        """Gives the helpers the ``examples`` that they do not have yet."""
        new = [each for each in dict.fromkeys(examples) if each not in self._numbers]
        if new:
            self._numbers |= {each: number for number, each in enumerate(new, len(self._numbers))}
            self._tell({"do": "learn", "examples": list(map(_plain, new))})

    def _shared(self, rows: Sequence[int]) -> list[range]:
        found = shares(rows, self.size)
        for worker, units in enumerate(found):
            self._rows[worker] += sum(rows[unit] for unit in units)
        return found

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Inside, what is exchanged is for a step, unless it is for an evaluation."""
        before = self.link.sent + self.link.received
        yield
        if not self.here:
            self._bytes += self.link.sent + self.link.received - before


def _mark(session: Session) -> tuple[Any, ...]:
    """What changes whenever the session does; it does not hold the model in memory."""
    return weakref.ref(session), session.step, session.state, session.recipe, session.tuned.values._version


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two marks are those of the same state: its parts are replaced, never changed."""
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(a is b or (isinstance(a, int) and a == b) for a, b in pairs)


def _plain(example: Encoded) -> list[Any]:
    """What passes need of an example, as JSON."""
    return [[dataclasses.astuple(row) for row in example.rows], example.choices, example.label]
