"""Examples in a random order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui.engine.selection import Chosen, Selection

if TYPE_CHECKING:
    from sparsezo_gui.engine.data.encode import Encoded
    from sparsezo_gui.engine.session import Session


class Shuffled(Selection):
    """Every example once per epoch, in a new random order each time."""

    title: ClassVar[str] = "Shuffled"
    rule: Literal["shuffled"] = "shuffled"

    def choose(self, session: Session, examples: Sequence[Encoded]) -> Chosen:
        """See `Selection.choose`."""
        from sparsezo_gui.engine.zo.batches import shuffled_batch

        return Chosen(shuffled_batch(session.recipe.loop, session.step + 1, examples))
