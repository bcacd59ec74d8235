"""Conversations rendered by the model's own chat template, with the assistant's text marked as trained.

The text equals ``tokenizer.apply_chat_template(messages, tools=…)`` to the character. Templates run in a separate
process (see `sparsezo_gui.engine.sandbox`); `sparsezo_gui.engine.sandbox.turns` finds which text is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

from sparsezo_gui.engine.data import columns
from sparsezo_gui.engine.data.conversations import Conversation, Messages
from sparsezo_gui.engine.data.template import rendered
from sparsezo_gui.engine.sandbox import ends, faults, turns
from sparsezo_gui.engine.sandbox.ends import Ending
from sparsezo_gui.engine.sandbox.process import Refused
from sparsezo_gui.errors import UserError

_WHERE = "the model's chat template"
_IGNORED = {
    "tools": f"{_WHERE} ignores the tools",
    "tool_calls": f"{_WHERE} ignores tool calls, so they are not learned",
    "reasoning": f"{_WHERE} ignores the reasoning",
}


@dataclass(frozen=True)
class Rendered:
    """A conversation rendered by the model's chat template.

    ``segments`` are pieces of its text with whether they are trained, ``prompt`` is the text before the last trained
    turn, ``answer`` what that turn says, and ``unused`` what is not learned, see `conversations.Unused`. ``empty``
    says that a trained turn has no content, reasoning or tool call.
    """

    segments: tuple[tuple[str, bool], ...]
    prompt: str
    answer: str
    unused: frozenset[str]
    empty: bool = False

    @property
    def before(self) -> str:
        """The text before the last trained piece."""
        last = max(index for index, (_, trained) in enumerate(self.segments) if trained)
        return "".join(text for text, _ in self.segments[:last])


def render(talk: Conversation, tokenizer: Any, place: str) -> Rendered:
    """The conversation as the model's chat template writes it. Raises `UserError`."""
    found = _split(talk, tokenizer, place)
    if found["left_out"]:
        raise UserError(
            f"{place}: the model's chat template leaves out assistant turns of this conversation, so they cannot be "
            "learned. Leave the row out, or give those turns the weight 0."
        )
    if not found["spans"]:
        raise columns.Gap(place, "the conversation has no assistant turn to learn from in the model's chat template")
    unused = {_ignored(name) for name in found["ignored"]} | set(_quoted(talk, found["text"]))
    pieces = tuple(turns.pieces(found["text"], found["spans"]))
    answer = ends.pattern(_skipped(tokenizer)).sub("", found["answer"])  # as generated text is decoded
    empty = any(_is_empty(talk.messages[index]) for index in talk.trained)
    return Rendered(pieces, found["prompt"], answer, talk.unused | unused, empty)


def _is_empty(turn: dict[str, Any]) -> bool:
    return columns.empty(turn["content"]) and not any(turn.get(name) for name in ("tool_calls", *turns.THOUGHTS))


def _skipped(tokenizer: Any) -> set[str]:
    """Special tokens, which decoded text omits."""
    special = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return {*tokenizer.all_special_tokens, *special}


def learned_end(tokenizer: Any) -> int | None:
    """The token that ends an assistant turn in the model's chat template; None if there is no template or it writes no
    special token there."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        found = ending(tokenizer)
    except UserError:  # the template exceeds its limits, or has no default: reported when it is used
        return None
    signs = ends.pattern(special(tokenizer)).findall(found.last or found.middle)
    return tokenizer.convert_tokens_to_ids(signs[0]) if signs else None


def ending(tokenizer: Any, tools: list[Any] | None = None) -> Ending:
    """How answers end in the model's chat template. Raises `UserError` if it exceeds its limits."""
    return _ending(tokenizer, None if _renders_in_python(tokenizer) else _template(tokenizer, tools))


def special(tokenizer: Any) -> list[str]:
    """Texts that are single special tokens."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return sorted(added | {token for token in tokenizer.all_special_tokens if token})


def with_template(tokenizer: Any) -> None:
    """Raises `UserError` if the model has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "This model has no chat template: it was not made for conversations. Choose an instruction-tuned "
            "model, or the task 'pairs' with a prompt of your own."
        )


def _split(talk: Conversation, tokenizer: Any, place: str) -> dict[str, Any]:
    """`turns.split` of the conversation."""
    with_template(tokenizer)
    found, signs, trained = ending(tokenizer, talk.tools), special(tokenizer), list(talk.trained)
    with _with_place(place):
        if _renders_in_python(tokenizer):
            write = partial(_written, tokenizer, talk.tools)
            return turns.split(write, talk.messages, trained, found, signs, tools=bool(talk.tools))
        text = _template(tokenizer, talk.tools)
        values = {**tokenizer.special_tokens_map, "messages": talk.messages, "tools": talk.tools}
        how = {**vars(found), "openers": sorted(found.openers)}
        times = 1 + len(talk.messages) // 20  # a long conversation is rendered once per answer
        parts = rendered("split", text, values, _WHERE, place, trained, how, signs, times=times)
        return cast("dict[str, Any]", json.loads(parts))


@contextmanager
def _with_place(place: str) -> Iterator[None]:
    """Names the place in errors that templates raise for their own rules: roles must alternate, no system turn …"""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = str(error) if isinstance(error, Refused) else faults.told(error)
        raise UserError(f"{place}: the model's chat template refuses this conversation: {said}.") from error


@lru_cache(maxsize=4)
def _ending(tokenizer: Any, text: str | None) -> Ending:
    signs = special(tokenizer)
    if text is None:
        return ends.ending(partial(_written, tokenizer, None), signs)
    try:
        found = json.loads(rendered("ending", text, tokenizer.special_tokens_map, _WHERE, "a sample", signs))
    except (Refused, UserError):  # no template, or it exceeds its limits: reported for the first conversation
        return Ending()
    return Ending(**{**found, "openers": frozenset(found["openers"])})


def _template(tokenizer: Any, tools: list[Any] | None) -> str:
    """The template's text; a tokenizer may have another one for tools."""
    with _with_place(tokenizer.name_or_path):
        return str(tokenizer.get_chat_template(tools=tools))


def _written(tokenizer: Any, tools: list[Any] | None, talk: Messages, prompt: bool, **more: Any) -> str:
    options = {"tools": tools, "add_generation_prompt": prompt, "tokenize": False, **more}
    return str(tokenizer.apply_chat_template(talk, **options))


def _renders_in_python(tokenizer: Any) -> bool:
    """Whether it renders conversations in Python: in `transformers`, or in a model's own trusted code."""
    from transformers import PreTrainedTokenizerBase

    return type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template


def _ignored(name: str) -> str:
    if name.startswith("role "):
        return f"{_WHERE} ignores turns of the role '{name[5:]}'"
    return _IGNORED.get(name, f"{_WHERE} ignores the field '{name}' of turns")


def _quoted(talk: Conversation, text: str) -> Iterator[str]:
    """Whether the template, which expects objects, quotes tool arguments that are already JSON text."""
    calls = (call for turn in talk.messages for call in turn.get("tool_calls") or () if isinstance(call, dict))
    for call in calls:
        function = call.get("function", call)
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, str) and '"' in arguments and json.dumps(arguments, ensure_ascii=False) in text:
            yield f"{_WHERE} quotes tool arguments that are already JSON text. Write them as objects"
