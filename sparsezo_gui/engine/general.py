"""The perplexity on general text: what tuning for a task costs elsewhere.

A model that is tuned too far forgets what the task does not need, which metrics of the task do not show. The text is
bundled (``resources/text/check.jsonl``) and used for nothing else; in particular, no mask is found on it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from sparsezo_gui import resources
from sparsezo_gui.engine.data.encode import Encoded, encode_text
from sparsezo_gui.engine.data.readers import read
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.objective import weight_of
from sparsezo_gui.recipe.events import GeneralText, Progress

if TYPE_CHECKING:
    from sparsezo_gui.engine.session import Session

NOT_MEASURED = "The perplexity on general text was not measured:"


def general_text(model: FrozenModel, max_tokens: int) -> list[Encoded]:
    """The text, each passage in parts of at most ``max_tokens``. All tokens are predicted, except the first of a
    passage if no token begins every text, and none that ends a text, which a model may have learned for its answers.
    Raises `UserError` if the tokenizer fails on the text, or makes tokens that the model lacks."""
    longest = min(max_tokens, model.limits.positions or max_tokens)
    texts = (str(record.values["text"]) for record in read(resources.CHECK_TEXT))
    parts = [part for text in texts for part in encode_text(text, model.tokenizer, longest, ends=False)]
    model.check_tokens((row.tokens for part in parts for row in part.rows), "The general text")
    return parts


def perplexity(model: FrozenModel, text: list[Encoded]) -> Generator[Progress, None, float]:
    """exp of the mean loss per token, of the values that the layers currently use.

    One passage at a time: of all others, an evaluation may score a few answers alone, and its memory was told for
    these. Together, the passages need logits at every token of a pack.
    """
    return (yield from evaluate(model, text, "general text", together=1)).metrics["perplexity"]


def compared(session: Session) -> Generator[Progress, None, GeneralText]:
    """The perplexity of the base model and of the session's. Raises `UserError` like `general_text`."""
    model = session.model
    text = general_text(model, session.recipe.data.max_tokens)
    with session.original():
        before = yield from perplexity(model, text)
    with session.current():
        after = yield from perplexity(model, text)
    return GeneralText(session.step, sum(map(weight_of, text)), before, after)


def untuned(model: FrozenModel, max_tokens: int) -> Generator[Progress, None, GeneralText]:
    """The perplexity of a model without tuned values. Raises `UserError` like `general_text`."""
    text = general_text(model, max_tokens)
    found = yield from perplexity(model, text)
    return GeneralText(0, sum(map(weight_of, text)), found, found)
