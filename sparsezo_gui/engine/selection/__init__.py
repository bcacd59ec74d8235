"""Batch selection: the training examples of a step. A replay does not need them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.session import Session


class Chosen(NamedTuple):
    """The examples of a batch, and the number of tokens processed to choose them."""

    examples: list[Encoded]
    tokens: int = 0


class Selection(Variant):
    """Base of batch selection rules."""

    forward_passes: ClassVar[int] = 0
    """Perturbed copies of the tuned values that choosing a batch evaluates together."""

    def candidates(self, batch_size: int) -> int:
        """Number of examples that a batch is chosen from by comparing them in pairs; 0: they are not compared."""
        return 0

    @property
    def cost(self) -> int:
        """Cost of choosing a batch, in forward passes of a batch."""
        return 0

    @abstractmethod
    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step of ``session``, from the training ``examples``."""
