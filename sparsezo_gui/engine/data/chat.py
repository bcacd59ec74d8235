"""Conversations as the model's own chat template writes them, with the assistant's turns marked as trained."""

from __future__ import annotations

import json
import re
from functools import lru_cache, partial
from typing import Any

from sparsezo_gui.engine.confined import turns
from sparsezo_gui.engine.confined.process import Refused
from sparsezo_gui.engine.confined.turns import Ending
from sparsezo_gui.engine.data.template import rendered
from sparsezo_gui.errors import UserError

_ROLES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_MARK = re.compile(r"⟦answer \d+⟧")
_WHERE = "the model's chat template"
Messages = list[dict[str, str]]


def messages(value: Any, place: str) -> Messages:
    """Turns as {'role', 'content'}, from those of OpenAI, ShareGPT ('from', 'value') or JSON text of either."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: the conversation is text that is not JSON ({error}).") from error
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise UserError(f"{place}: a conversation must be a list of turns, each with 'role' and 'content'.")
    talk = [_turn(turn, f"{place}, turn {number}") for number, turn in enumerate(value, 1)]
    while talk and talk[-1]["role"] != "assistant":  # nothing is learned after the last answer
        talk.pop()
    if not talk:
        raise UserError(f"{place}: the conversation has no turn of the assistant to learn from.")
    return talk


def _turn(turn: dict[str, Any], place: str) -> dict[str, str]:
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts; pictures are no text
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    if not isinstance(role, str) or not isinstance(content, str):
        raise UserError(f"{place}: needs 'role' and 'content' (or 'from' and 'value') as text.")
    return {"role": _ROLES.get(role.lower(), role.lower()), "content": content}


def segments(talk: Messages, tokenizer: Any, place: str) -> tuple[tuple[str, bool], ...]:
    """Pieces of the conversation's text; each assistant's turn is trained, with the sign that ends it.

    The template writes the conversation with a mark for each answer, and the answers are put in for the marks: so
    each boundary is exact, also with templates that change earlier turns when later ones come.
    """
    marks = {index: f"⟦answer {index}⟧" for index, turn in enumerate(talk) if turn["role"] == "assistant"}
    marked = [{**turn, "content": marks.get(index, turn["content"])} for index, turn in enumerate(talk)]
    whole, known = templated(marked, tokenizer, place), set(marks.values())
    if [mark for mark in _MARK.findall(whole) if mark in known] != list(marks.values()):
        raise UserError(f"{place}: the model's chat template leaves out turns of this conversation.")
    ending = whole.rpartition(list(marks.values())[-1])[2].rstrip()
    pieces: list[tuple[str, bool]] = []
    start = 0
    for index, mark in marks.items():
        at = whole.index(mark, start)
        after = at + len(mark)
        ends = bool(ending) and whole.startswith(ending, after)
        pieces += [(whole[start:at], False), (talk[index]["content"].strip() + (ending if ends else ""), True)]
        start = after + len(ending) * ends
    return tuple((text, trained) for text, trained in pieces if text)


def templated(talk: Messages, tokenizer: Any, place: str, prompt: bool = False) -> str:
    """The conversation in the model's chat template, in a process of its own (see `sparsezo_gui.engine.confined`); with
    ``prompt``, as far as the answer that is to come. Raises `UserError`."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "This model has no chat template: it was not made for conversations. Choose an instruction-tuned "
            "model, or the task 'pairs' with a prompt of your own."
        )
    try:
        if _has_own_way(tokenizer):
            return tokenizer.apply_chat_template(talk, add_generation_prompt=prompt, tokenize=False)
        values = {**tokenizer.special_tokens_map, "messages": talk, "add_generation_prompt": prompt}
        return rendered("conversation", tokenizer.get_chat_template(), values, "the model's chat template", place)
    except UserError:
        raise
    except Exception as error:  # templates raise their own rules: roles must alternate, no system turn …
        raise UserError(f"{place}: the model's chat template refuses this conversation: {error}.") from error


def ending(tokenizer: Any) -> Ending:
    """How answers end in the model's chat template. Raises `UserError` where it has none, or it cannot be run."""
    return _ending(tokenizer, _template(tokenizer) if not _has_own_way(tokenizer) else None)


@lru_cache(maxsize=4)
def _ending(tokenizer: Any, text: str | None) -> Ending:
    if text is None:
        return turns.ending(partial(_own, tokenizer), special(tokenizer))
    try:
        names = tokenizer.special_tokens_map
        found = json.loads(rendered("ending", text, names, _WHERE, "a sample", special(tokenizer)))
    except Refused:  # the text itself is no template: told of the first conversation
        return Ending()
    return Ending(**{**found, "openers": frozenset(found["openers"])})


def learned_end(tokenizer: Any) -> int | None:
    """The token by which an assistant's turn ends in the model's chat template; None where there is no template or it
    writes no special token there."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        found = ending(tokenizer)
    except UserError:  # of a template that takes too much
        return None
    signs = turns.pattern(special(tokenizer)).findall(found.middle or found.last)
    return tokenizer.convert_tokens_to_ids(signs[0]) if signs else None


def special(tokenizer: Any) -> list[str]:
    """Texts that are a token of their own."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return sorted(added | {token for token in tokenizer.all_special_tokens if token})


def _own(tokenizer: Any, messages: Messages, prompt: bool) -> str:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)


def _template(tokenizer: Any) -> str:
    return tokenizer.get_chat_template()


def _has_own_way(tokenizer: Any) -> bool:
    """Whether it writes conversations in Python: that of `transformers`, or of a model whose code the user trusts."""
    from transformers import PreTrainedTokenizerBase

    return type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
