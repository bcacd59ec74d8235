"""Objectives: the loss that a run minimises, computed from the model's outputs on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.frozen import FrozenModel
    from sparsezo_gui.engine.layers.patch import Owners
    from sparsezo_gui.engine.objective import Measured

NEAREST = {"choice": "accuracy", "completion": "f1", "chat": "f1", "text": "likelihood", "preference": "preference"}
"""The rule besides likelihood that suits each kind of task."""


class Objective(Variant):
    """Base of objectives."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """Supported kinds of tasks; all if empty."""
    needs: ClassVar[str] = ""
    """What a supported task has."""
    counts: ClassVar[bool] = False
    """Whether it counts, which makes the loss a step function without a gradient."""

    @property
    def writes(self) -> bool:
        """Whether it measures generated text, not likelihoods; see `measure`."""
        return type(self).measure is not Objective.measure

    @property
    def compares(self) -> bool:
        """Whether it compares against the frozen base model; see `reference`."""
        return type(self).reference is not Objective.reference

    def refusal(self, name: str) -> str:
        """Why it does not support the task ``name``, with what does, in a sentence; empty if it does."""
        from sparsezo_gui.engine.data.tasks import tasks

        task = tasks().get(name)
        if not self.kinds or task is None or task.kind in self.kinds:
            return ""
        return (
            f"[objective] rule = '{self.rule}' needs {self.needs}, and [data] task = '{name}' has none. Set "
            f"[objective] rule = '{NEAREST[task.kind]}', or another task."
        )

    def measure(
        self, model: FrozenModel, examples: Sequence[Encoded], points: int = 1, owners: Owners | None = None,
        base: Tensor | None = None,
    ) -> Measured:  # fmt: skip
        """Losses of ``examples`` for the ``points`` held by the model's layers; see `engine.objective.measure`.

        ``base`` (examples,) is the result of `reference` at the start of the run.
        """
        from sparsezo_gui.engine.objective import measure

        return self.losses_of(measure(model, examples, points, owners), examples, base)

    def reference(self, measured: Measured, examples: Sequence[Encoded]) -> Tensor:
        """What it compares against, fp64 (points, examples), from ``measured`` at the start of the run."""
        raise NotImplementedError

    def losses_of(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> Measured:
        """The objective's own losses, from the likelihoods of the answers."""
        return measured

    def metrics(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> dict[str, float]:
        """Additional evaluation metrics, besides those of every task of its kind."""
        return {}
