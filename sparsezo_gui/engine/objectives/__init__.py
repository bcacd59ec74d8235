"""What a run makes small: a loss of the examples of a batch, from what the model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.models.tuned import Owners
    from sparsezo_gui.engine.objective import Measured

NEAREST = {"choice": "accuracy", "completion": "f1", "chat": "f1", "text": "likelihood", "preference": "preference"}
"""The rule besides likelihood that fits a kind of task."""


class Objective(Variant):
    """Base of objectives."""

    kinds: ClassVar[tuple[str, ...]] = ()
    """The kinds of tasks that it can measure; all where it names none."""
    needs: ClassVar[str] = ""
    """What such a task has, and a task that has it."""
    counts: ClassVar[bool] = False
    """Whether it counts: such a loss goes by jumps, and has no gradient."""
    writes: ClassVar[bool] = False
    """Whether it lets the model write."""

    @property
    def compares(self) -> bool:
        """Whether it compares with the frozen base model; see `reference`."""
        return type(self).reference is not Objective.reference

    def refusal(self, name: str) -> str:
        """Why the task ``name`` cannot be measured by it, in a sentence with what can; empty where it can."""
        from sparsezo_gui.engine.data.tasks import tasks

        task = tasks().get(name)
        if not self.kinds or task is None or task.kind in self.kinds:
            return ""
        return (
            f"[objective] rule = '{self.rule}' needs {self.needs}, and [data] task = '{name}' has none. Set "
            f"[objective] rule = '{NEAREST[task.kind]}', or another task."
        )

    def measure(
        self, model: FrozenModel, examples: Sequence[Encoded], sides: int = 1, owners: Owners | None = None,
        base: Tensor | None = None,
    ) -> Measured:  # fmt: skip
        """Losses of ``examples`` under the ``sides`` that the model's layers hold; see `engine.objective.measure`.

        ``base`` (examples,) is what `reference` gave where the run began.
        """
        from sparsezo_gui.engine.objective import measure

        return self.judge(measure(model, examples, sides, owners), examples, base)

    def reference(self, measured: Measured, examples: Sequence[Encoded]) -> Tensor:
        """What it compares with, fp64 (sides, examples), from what the model made of ``examples`` as the run began."""
        raise NotImplementedError

    def judge(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> Measured:
        """The objective's own losses, from the likelihoods of the answers."""
        return measured

    def metrics(self, measured: Measured, examples: Sequence[Encoded], base: Tensor | None = None) -> dict[str, float]:
        """Figures of its own for an evaluation, besides those that every one of its kind has."""
        return {}
