"""Shared by rules that run the model on text: which text, how much of it, and how it is prepared."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sparsezo_gui import resources
from sparsezo_gui.engine.masks.rule import MaskRule, Search
from sparsezo_gui.recipe.variants import setting

if TYPE_CHECKING:
    from sparsezo_gui.engine.data import Passage
    from sparsezo_gui.engine.frozen import FrozenModel

OWN = {"task": "your training examples", "answers": "the answers of your training examples"}


class Calibrated(MaskRule):
    """Base of rules that run the model on a little text."""

    sequences: int = setting(32, "Sequences from each text.", unit="sequences", ge=1, le=65536, sane=(16, 128))
    tokens: int = setting(512, "Maximum length of a sequence.", unit="tokens", ge=8, le=131072, sane=(128, 2048))

    @property
    def repeats(self) -> int:
        """Forward passes of each sequence: with gradients two, and a backward pass."""
        return 4 if self.sums else 1

    def work(self, model: FrozenModel, search: Search, own: bool = False) -> int:
        """See `MaskRule.work`."""
        texts = zip(self.names, self.passages(model, search), strict=True)
        return self.repeats * sum(len(each.tokens) for name, text in texts if name in OWN or not own for each in text)

    @property
    def reads_task(self) -> bool:
        """See `MaskRule.reads_task`."""
        return any(name in OWN for name in self.names)

    def texts_used(self) -> str:
        """Describes the texts and how much of them is used."""
        words = [
            OWN.get(name, f"the bundled {name} text" if name in resources.BUNDLED_TEXT else name) for name in self.names
        ]
        each = " of each" if len(words) > 1 else ""
        return f"{' and '.join(words)}: at most {self.sequences} sequences{each} of up to {self.tokens} tokens"

    def reads(self, model: FrozenModel, search: Search) -> tuple[Any, ...]:
        """See `MaskRule.reads`."""
        return tuple(self.passages(model, search))

    def passages(self, model: FrozenModel, search: Search) -> list[list[Passage]]:
        """The passages of each text. Raises `UserError` if one is missing or too short."""
        from sparsezo_gui.engine.data import passages

        longest = getattr(model.source.config, "max_position_embeddings", None) or self.tokens
        tokens = min(self.tokens, longest)
        found = [
            search.once(name, partial(passages, name, model.tokenizer, self.sequences, tokens, search.data))
            for name in self.names
        ]
        for name, part in zip(self.names, found, strict=True):
            model.check_tokens((passage.tokens for passage in part), f"[mask] text '{name}'")
        return found


class OnText(Calibrated):
    """Base of rules that use one text."""

    text: str = setting(
        "general",
        "Text to find the mask on: 'general', 'task' (your examples as plain text), 'answers' (your examples one by "
        "one, with the loss on the answers only), a file, or a Hub data set.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """See `MaskRule.names`."""
        return (self.text,)
