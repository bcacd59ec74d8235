"""A prompt for a run, built as its training examples were, with candidates from its data."""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine.data.prompts import EncodedPrompt, answers_in_data, encode_prompt
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.errors import ChangedInputs, UserError
from sparsezo_gui.recipe.events import Notice, Progress


def prompt_in_run(
    session: Session, run: RunFolder, text: str, raw: bool = False, accept: bool = False
) -> Generator[Progress | Notice, None, tuple[EncodedPrompt, str]]:
    """``text`` as a prompt of the run, and a note if its data, and so the candidates, cannot be read: the model then
    generates freely. Raises `UserError`, and `ChangedInputs` if changed data would give different candidates, unless
    ``accept`` is set."""
    table, answers, note = session.recipe.data, tuple[str, ...](), ""
    if answers_in_data(table) and not raw:
        try:
            answers = (yield from data_of(session, run, ("train",), accept)).answers
        except ChangedInputs:
            raise
        except UserError as error:
            note = f"The run's data, which lists its answers, cannot be read; the model generates freely. {error}"
    return encode_prompt(table, session.model.tokenizer, text, answers, raw), note
