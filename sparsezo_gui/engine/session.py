"""A run in memory: the frozen model, its overlay and its data, brought to any step."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData, load_task
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.models import frozen
from sparsezo_gui.engine.models.frozen import FrozenModel
from sparsezo_gui.engine.objective import count_tokens, measure, sides_at_once
from sparsezo_gui.engine.runs import frames as key_frames
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.runs.line import Line, line
from sparsezo_gui.engine.sparse import mask as masks
from sparsezo_gui.engine.sparse.mask import Mask
from sparsezo_gui.engine.sparse.overlay import Overlay
from sparsezo_gui.engine.sparse.rule import Search
from sparsezo_gui.engine.zo import generator
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Notice, Progress

DRAWN_AHEAD = 100_000  # values of a direction from which on others are drawn beside it


@dataclass
class Session:
    """``state`` is the update's state after ``step`` steps; the overlay's values are those after ``step`` steps too."""

    recipe: Recipe
    model: FrozenModel
    overlay: Overlay
    step: int = 0
    state: Any = None
    factor: float = 1.0

    def estimate(self, batch: Sequence[Encoded], directions: Tensor) -> Estimate:
        """Slopes along ``directions`` (probes, n) and the loss, all sides measured on the same ``batch``."""

        return self.recipe.estimator.estimate(self.overlay.values, directions, self.losses_on(batch))

    def losses_on(self, batch: Sequence[Encoded]) -> Callable[[Tensor], Tensor]:
        """The losses (sides,) of perturbed values (sides, n) on ``batch``, in fp64.

        Sides run together, through each weight while it is hot, as far as the longest example leaves room.
        """

        def losses(sides: Tensor) -> Tensor:
            found, longest = [], max(map(count_tokens, batch))
            at_once = sides_at_once(len(sides), longest, self.model.pack_rows, self.recipe.model.compute)
            for together in sides.split(at_once):
                with self.overlay.applied(together):
                    found.append(measure(self.model, batch, len(together)).loss)
            return torch.cat(found)

        return losses

    def directions(self) -> Tensor:
        """Directions of the next step, fp32 (probes, n)."""
        values, probes = self.overlay.values, self.recipe.estimator.directions
        return generator.directions(self.recipe.loop.seed, self.step + 1, probes, values.numel(), values.device)

    def advance(self, directions: Tensor, slopes: Sequence[float], rate: float, recipe: Recipe | None = None) -> None:
        """Takes the next step along its directions; used alike by the loop and by a replay."""
        update = (recipe or self.recipe).update
        self.state = update.apply(self.overlay.values, directions, slopes, rate, self.state)
        self.step += 1


def open_session(
    run: RunFolder, step: int | None = None, frames: bool = True
) -> Generator[Progress | Notice, None, Session]:
    """Loads the model of ``run`` and brings its values to ``step`` (None: the last), from the nearest key frame or, not
    using ``frames``, from the beginning. Raises `UserError`."""
    recipe, facts = run.recipe, run.facts
    if facts.generator != generator.GENERATOR:
        raise UserError(
            f"{run.path}: its directions come from another generator ({facts.generator}) than this version of SparseZO "
            f"has ({generator.GENERATOR}). Open it with the version that made it "
            f"({facts.versions.get('sparsezo-gui', 'not told')})."
        )
    model = yield from frozen.load(recipe.model)
    if facts.fingerprint != model.fingerprint:
        raise UserError(
            f"{recipe.model.id}: these are not the weights that run '{run.name}' was tuned on. Bring back the "
            "original model (id and revision are in the run's recipe.toml), or start a new run."
        )
    # Fewer rows at once give other last bits, so that a run keeps to what it began with.
    model.pack_rows = facts.pack_rows or model.pack_rows
    session = Session(recipe, model, Overlay(model, (yield from _mask(run, model))))
    session.state = recipe.update.start(session.overlay.mask.size)
    way = line(run).until(step)
    if way.fault:
        yield Notice(way.fault, "warning")
    yield from travel(session, way, frames)
    return session


def _mask(run: RunFolder, model: FrozenModel) -> Generator[Progress | Notice, None, Mask]:
    """The run's mask from its file; where a run came without one, it is found again and must be the same."""
    path, recipe, facts = run.mask, run.root.recipe, run.facts
    if path.exists():
        try:
            mask = masks.load(path, model.anatomy.linears, model.fingerprint)
        except UserError as error:
            raise UserError(f"{error} Or remove the file: the run finds its mask again.") from error
        if facts.mask_hash != mask.hash:
            raise UserError(f"{path}: not the mask that this run began with. Restore the file from a copy of the run.")
        return mask
    yield Notice("The run came without its mask, which is found again.")
    mask = yield from recipe.mask.find(model, Search(recipe.loop.seed, recipe.data))
    if facts.mask_hash != mask.hash:
        raise UserError(
            f"{run.path}: the mask that was found here is not the one that this run began with; its scores can differ "
            "in their last digits from one kind of device to another. Ask for a copy with its mask: sparsezo share RUN "
            "--with-mask"
        )
    mask.save(path)
    return mask


def travel(session: Session, way: Line, frames: bool = True) -> Generator[Progress, None, None]:
    """Brings values and state to the end of ``way``: no forward pass, the same bits wherever it begins from."""
    session.recipe, session.factor = way.segments[-1].recipe, 1.0
    _begin(session, way, frames)
    total, done = way.step - session.step, 0
    for index, part in enumerate(way.segments):
        update = part.recipe.update
        if session.step == part.first and index and type(update) is not type(way.segments[index - 1].recipe.update):
            session.state = update.start(session.overlay.mask.size)
        records = part.steps[session.step - part.first :] if session.step < part.last else part.steps[:0]
        for record, z in zip(records, _drawn(session, part.recipe, len(records)), strict=True):
            session.advance(z, record["slopes"].tolist(), float(record["rate"]), part.recipe)
            done += 1
            if done % 100 == 0:
                yield Progress("Replaying the journal", done, total, "steps")
    session.factor = way.factor


def _drawn(session: Session, recipe: Recipe, count: int) -> Iterator[Tensor]:
    """The directions of the next ``count`` steps. Long ones are drawn ahead, on as many threads as PyTorch may use: a
    replay does hardly anything else."""
    values, loop, probes = session.overlay.values, recipe.loop, recipe.estimator.directions
    draw = partial(generator.directions, loop.seed, probes=probes, count=values.numel(), device=values.device)
    steps = iter(range(session.step + 1, session.step + 1 + count))
    if values.numel() < DRAWN_AHEAD or values.device.type != "cpu":
        yield from map(draw, steps)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        waiting = deque(threads.submit(draw, step) for step in islice(steps, torch.get_num_threads()))
        while waiting:
            z = waiting.popleft().result()
            waiting.extend(threads.submit(draw, step) for step in islice(steps, 1))
            yield z


def _begin(session: Session, way: Line, frames: bool) -> None:
    """Puts the values to the last key frame on ``way`` that can be used, or to the start."""
    overlay = session.overlay
    found = [
        (frame, part)
        for part in way.segments
        for frame in (key_frames.frames(part.run.path) if frames else ())
        if part.first < frame.step <= part.last and frame.on(part.journal)
    ]
    for frame, _ in sorted(found, key=lambda item: item[0].step, reverse=True):
        content = key_frames.read(frame, overlay.start, overlay.mask.hash)
        if content is not None:
            values, session.state = content
            overlay.values.copy_(values)
            session.step = frame.step
            return
    overlay.values.copy_(overlay.start)
    session.state, session.step = way.segments[0].recipe.update.start(overlay.mask.size), 0


def load_data(recipe: Recipe, model: FrozenModel) -> Generator[Progress | Notice, None, TaskData]:
    """The recipe's data, encoded for ``model``; tells what was cut."""
    data = yield from load_task(recipe.data, model.tokenizer)
    yield from (Notice(text) for text in data.notices)
    if data.truncated:
        yield Notice(
            f"{data.truncated} examples were longer than {recipe.data.max_tokens} tokens; {data.tokens_cut} were "
            "cut from the start of their prompts. Raise max_tokens to keep them whole.", "warning",
        )  # fmt: skip
    return data


def data_hash(examples: Sequence[Encoded]) -> str:
    """SHA-256 over the tokens of the training examples, by which a resumed run knows that they are the same."""
    digest = hashlib.sha256()
    for example in examples:
        for row in example.rows:
            digest.update(repr((row.tokens, row.positions, row.targets, row.choices, example.label)).encode())
    return digest.hexdigest()
