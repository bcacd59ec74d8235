"""A prompt for a run, made as its training examples were; its candidates are looked for in its data."""

from __future__ import annotations

from collections.abc import Generator

from sparsezo_gui.engine.data.ask import EncodedPrompt, answers_in_data, encode_prompt
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session, data_of
from sparsezo_gui.errors import ChangedInputs, UserError
from sparsezo_gui.recipe.events import Notice, Progress


def prompt_in_run(
    session: Session, run: RunFolder, text: str, raw: bool = False, accept: bool = False
) -> Generator[Progress | Notice, None, tuple[EncodedPrompt, str]]:
    """``text`` as a prompt of the run, and a sentence where its data, and so the candidates, cannot be read: the model
    then writes freely. Raises `UserError`, and `ChangedInputs` where changed data would give other candidates, unless
    these are to be ``accept``ed."""
    table, answers, note = session.recipe.data, (), ""
    if answers_in_data(table) and not raw:
        try:
            answers = (yield from data_of(session, run, ("train",), accept)).answers
        except ChangedInputs:
            raise
        except UserError as error:
            note = f"The run's data, which has its list of answers, cannot be read: the model writes freely. {error}"
    return encode_prompt(table, session.model.tokenizer, text, answers, raw), note
