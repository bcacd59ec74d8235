"""The sensitive weights: those with the largest squared gradients on text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from sparsezo_gui import resources
from sparsezo_gui.engine.sparse.rule import ScoredRule, Search
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from torch import Tensor

    from sparsezo_gui.engine.models.frozen import FrozenModel
    from sparsezo_gui.engine.sparse.select import Selection


class Sensitive(ScoredRule):
    """Weights with the largest squared gradient of the language-model loss on text.

    The diagonal of the empirical Fisher information, arXiv 2406.02913 section 3: the mask is static, found once for a
    model, and serves all its tasks. The top 0.1 % of a large model hold about half of the squared gradient norm.
    """

    title: ClassVar[str] = "Sensitive"
    paper: ClassVar[str] = "SensZOQ, arXiv 2406.02913"
    rule: Literal["sensitive"] = "sensitive"
    text: str = setting(
        "general", "Text to feel the gradients on: 'general', 'task' (your examples), a file, or a Hub data set."
    )
    sequences: int = setting(32, "Sequences of that text.", unit="sequences", ge=1, le=65536, sane=(16, 128))
    tokens: int = setting(512, "Longest sequence.", unit="tokens", ge=8, le=131072, sane=(128, 2048))

    def source(self) -> str:
        """See `MaskRule.source`."""
        bundled = f"the bundled {self.text} text" if self.text in resources.BUNDLED_TEXT else self.text
        text = "your training examples" if self.text == "task" else bundled
        return f"Found on {text}: at most {self.sequences} sequences of up to {self.tokens} tokens."

    def cost(self) -> str:
        """See `MaskRule.cost`."""
        return (
            f"About {self.sequences} forward and backward passes at the start of every run, block by block, so that "
            "little more memory than the run's own is needed; an interrupted search goes on where it was."
        )

    def scores(
        self, model: FrozenModel, search: Search, selection: Selection
    ) -> Iterator[Progress | tuple[str, Tensor]]:
        """See `ScoredRule.scores`."""
        from sparsezo_gui.engine.data import text_blocks
        from sparsezo_gui.engine.sparse.fisher import squared_gradients
        from sparsezo_gui.engine.sparse.unfinished import unfinished

        yield Progress("Reading text for the mask")
        longest = getattr(model.source.config, "max_position_embeddings", None) or self.tokens
        blocks = text_blocks(self.text, model.tokenizer, self.sequences, min(self.tokens, longest), search.data)
        with unfinished(self._key(model, blocks)) as work:
            yield from squared_gradients(model, blocks, work, selection)

    def _key(self, model: FrozenModel, blocks: list[tuple[int, ...]]) -> str:
        """The same for the same search: rule, text, weights, and how they are held and computed with."""
        held = {type(layer).__name__ + type(layer.store).__name__ for layer in model.layers.values()}
        parts = (self.model_dump_json(), model.fingerprint, model.device.type, model.dtype, sorted(held), blocks)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
