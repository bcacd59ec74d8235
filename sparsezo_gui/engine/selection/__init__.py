"""Which training examples a step measures. A replay needs none of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sparsezo_gui.recipe.variants import Variant

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.session import Session


class Chosen(NamedTuple):
    """The examples of a batch, and how many tokens went through the model to choose them."""

    examples: list[Encoded]
    tokens: int = 0


class Selection(Variant):
    """Base of ways to choose batches."""

    @property
    def passes(self) -> int:
        """What choosing a batch costs in forward passes of one."""
        return 0

    @abstractmethod
    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """The batch of the next step of ``session``, out of the training ``examples``."""
