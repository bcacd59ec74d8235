"""A run in memory: the frozen model, its tuned values and its data, at any step."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.masks.gradient_subspace import GradientSubspace, directions
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.engine.probe import ModelProbe
from sparsezo_gui.engine.runs.checkpoints import plain_states, states_of
from sparsezo_gui.engine.runs.gradients import Rounded, rounded
from sparsezo_gui.engine.selection import Chosen
from sparsezo_gui.engine.spaces.values import TunedValues
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.engine.zo.estimators import Estimate
from sparsezo_gui.engine.zo.generator import GENERATOR, Source
from sparsezo_gui.engine.zo.updates import Gradient
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.spaces.span import SpanValues


class State(NamedTuple):
    """The state of estimator and update after a step."""

    estimator: Any = None
    update: Any = None
    basis: tuple[Tensor] | None = None
    """The basis (k, n) of the directions, if it was found again during the run; None: that of the mask."""


@dataclass
class Session:
    """A run after ``step`` steps: ``tuned`` has its values, ``state`` what estimator and update remember."""

    recipe: Recipe
    model: FrozenModel
    tuned: TunedValues
    step: int = 0
    state: State = field(default_factory=State)
    factor: float = 1.0
    data: dict[str, tuple[TaskData, dict[str, str]]] = field(default_factory=dict)
    """The data read so far, and its hashes, by its table in a recipe; see `loading.data_of`."""
    changed: tuple[str, ...] = ()
    """Inputs accepted although they changed since the run started; see `sparsezo_gui.engine.provenance`."""
    generator: str = GENERATOR
    """The version of the random numbers that the run started with."""
    known: dict[tuple[Encoded, int], float] = field(default_factory=dict)
    """What the objective compares examples against, as far as measured; see `base`."""

    def begin(self, recipe: Recipe | None = None) -> None:
        """Sets values and state to the start of ``recipe`` (None: the session's)."""
        recipe = recipe or self.recipe
        self.tuned.reset()
        self.step, self.state = 0, self.start(recipe)
        self.model.workers.began(self)

    def start(self, recipe: Recipe) -> State:
        """The state of ``recipe`` before the first step."""
        start = self.tuned.start
        return State(recipe.estimator.start(start, self.source(recipe, 0)), recipe.update.start(start))

    def source(self, recipe: Recipe, step: int) -> Source:
        """The random numbers of ``step``."""
        values = self.tuned.values
        return Source(recipe.loop.seed, step, values.numel(), values.device, self.generator)

    def directions(self) -> Any:
        """Directions of the next step, (probes, n)."""
        return self.shaped(self.recipe, self.drawn(self.recipe, self.step + 1))

    def drawn(self, recipe: Recipe, step: int) -> Any:
        """The random numbers for the directions of ``step``."""
        return self.tuned.draw(recipe.estimator, self.source(recipe, step), recipe.loop.batch_size)

    def shaped(self, recipe: Recipe, drawn: Any) -> Any:
        """The directions of the next step, from the numbers ``drawn`` for it."""
        basis = self.state.basis[0] if self.state.basis else None
        return self.tuned.shape(recipe.estimator, drawn, self.step + 1, self.state.estimator, basis)

    def refresh(self, examples: Sequence[Encoded], recipe: Recipe | None = None) -> Generator[Progress, None, Rounded]:
        """Finds the basis of the next step's directions again, at the current values, from those of the training
        ``examples`` that come next in ``recipe`` (None: the session's). Returns what is to be recorded of it."""
        recipe, tuned = recipe or self.recipe, cast("SpanValues", self.tuned)
        found = yield from directions(self.model, tuned, _coming(recipe, self.step + 1, examples), len(tuned.basis))
        kept = rounded(found.flatten() if found.numel() else None)
        self.use_basis(kept)
        return kept

    def use_basis(self, kept: Rounded) -> None:
        """Takes a recorded basis for the directions from the next step on."""
        basis = cast("SpanValues", self.tuned).basis
        found = kept.unpacked(basis.flatten())
        self.state = self.state._replace(basis=(basis if found is None else found.view_as(basis),))

    def choose(self, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step, from the training ``examples``."""
        return self.recipe.privacy.choose(self, examples)

    def base(self, examples: Sequence[Encoded], together: int = 1) -> Tensor | None:
        """What the objective compares ``examples`` against, (examples,), measured once at the initial values; None if
        it does not compare.

        ``together`` examples go through the model in one pass, which affects the last bits: one, if their batches can
        differ when a run resumes.
        """
        objective = self.recipe.objective
        if not objective.compares:
            return None
        with self.tuned.base(), torch.no_grad():
            for first in range(0, len(examples), together):
                part = examples[first : first + together]
                if any((example, together) not in self.known for example in part):
                    found = objective.reference(measure(self.model, part), part)[0].tolist()
                    self.known |= {(example, together): value for example, value in zip(part, found, strict=True)}
        return torch.tensor([self.known[example, together] for example in examples], dtype=torch.float64)

    def probe(self, batch: Sequence[Encoded], directions: Any, shared: bool = False) -> ModelProbe:
        """The model at the current values, with ``batch``, along ``directions``; workers can share the passes along
        those of the next step."""
        recipe = self.recipe
        return ModelProbe(
            self.model,
            self.tuned,
            recipe.objective,
            batch,
            directions,
            recipe.model.compute,
            self.base(batch),
            shared,
        )

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside, the model runs with the current values, on all workers."""
        with self.tuned.applied(), self.model.workers.at("current", self):
            yield

    @contextmanager
    def original(self) -> Iterator[None]:
        """Inside, the model runs with the original values, on all workers."""
        with self.tuned.base(), self.model.workers.at("original", self):
            yield

    def estimate(self, batch: Sequence[Encoded], directions: Any, rate: float = 0.0) -> Estimate:
        """Runs the forward passes of the next step, all on the same ``batch``. Raises TypeError for rules that measure
        something other than they declare, which could not be replayed."""
        self.model.workers.ready(self)
        recipe, probe = self.recipe, self.probe(batch, directions, shared=True)
        found = recipe.privacy.estimate(recipe.estimator, probe, self.state.estimator, recipe.loop.batch_size)
        if found.exact is not None and not recipe.estimator.exact:
            raise TypeError(f"'{recipe.estimator.rule}' found a gradient exactly and does not say so")
        found = self._asked(found, probe, directions, rate)
        if len(found.recorded) != recipe.recorded:
            raise TypeError(f"a step measured {len(found.recorded)} numbers where its rules say {recipe.recorded}")
        return found

    def _asked(self, found: Estimate, probe: ModelProbe, directions: Any, rate: float) -> Estimate:
        """The estimate with the update's own measurements."""
        recipe = self.recipe
        if not recipe.update.recorded:
            return found
        if not all(map(math.isfinite, found.recorded)):  # the step will be skipped
            return replace(found, recorded=(*found.recorded, *(0.0,) * recipe.update.recorded))
        grads, _ = recipe.estimator.projected_grads(directions, found.recorded, self.state.estimator)
        more = recipe.update.measure(probe, Gradient(directions, grads, found.exact), rate, self.state.update)
        return replace(found, recorded=(*found.recorded, *more))

    def snapshot(self) -> tuple[dict[str, Any], list[Tensor]]:
        """Step, values and state, as JSON and tensors, for `restore`."""
        plain, tensors = plain_states(self.state)
        return {"step": self.step, "states": plain}, [self.tuned.values, *tensors]

    def restore(self, plain: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Sets step, values and state to those of a `snapshot`."""
        values, *others = (each.to(self.tuned.values.device) for each in tensors)
        self.tuned.values.copy_(values)
        self.step, self.state = plain["step"], State(*states_of(plain["states"], others))

    def take(self, directions: Any, found: Sequence[float], rate: float, exact: Tensor | None = None) -> None:
        """`advance`, on all workers."""
        self.advance(directions, found, rate, exact)
        self.model.workers.advanced(self, found, rate, exact)

    def advance(
        self, directions: Any, recorded: Sequence[float], rate: float, exact: Tensor | None = None,
        recipe: Recipe | None = None,
    ) -> None:  # fmt: skip
        """Takes the next step along its directions; used by a replay, and by `take`."""
        recipe, tuned = recipe or self.recipe, self.tuned
        count = len(recorded) - recipe.update.recorded
        grads, state = recipe.estimator.projected_grads(directions, recorded[:count], self.state.estimator)
        # All-zero scalars mark a skipped step, which a replay does not compute again.
        exact, exact_rate = exact if any(recorded) else None, recipe.estimator.exact_rate(directions)
        gradient = Gradient(directions, grads, exact, exact_rate)
        update = recipe.update.apply(tuned.values, gradient, rate, self.state.update, recorded[count:])
        if recipe.update.decay and not gradient.zero and not recipe.update.rejects(recorded[count:]):
            # Decoupled decay as in AdamW (arXiv 1711.05101), but towards the original values.
            tuned.values -= (tuned.values - tuned.start) * (rate * recipe.update.decay)
        self.state = self.state._replace(estimator=state, update=update)
        self.step += 1


def _coming(recipe: Recipe, step: int, examples: Sequence[Encoded]) -> list[Encoded]:
    """As many of the training ``examples`` as the mask's rule takes, in the order of the steps from ``step`` on."""
    rule, loop = cast("GradientSubspace", recipe.mask), recipe.loop
    batches = -(-min(rule.examples, len(examples)) // loop.batch_size)
    return [each for number in range(batches) for each in shuffled_batch(loop, step + number, examples)]
