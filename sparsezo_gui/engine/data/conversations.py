"""Conversations in files: the formats of OpenAI, ShareGPT and Alpaca, turned into `transformers` messages, with what is
not used of them."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from sparsezo_gui.engine.data import columns
from sparsezo_gui.engine.sandbox.prompt import described
from sparsezo_gui.errors import UserError

Messages = list[dict[str, Any]]
_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bot": "assistant", "ai": "assistant", "bing": "assistant", "bard": "assistant", "function_call": "assistant",
    "observation": "tool", "function": "tool", "tool_response": "tool", "function_response": "tool",
}  # fmt: skip
_KNOWN = {"system", "developer", "user", "assistant", "tool"}
_WEIGHTS = ("weight", "train", "trainable", "training", "loss")
_TWO_SYSTEMS = "the 'system' column is ignored because the turns already have a system prompt"
NO_PICTURES = "images are ignored"
_NAMES_A_TURN = re.compile(r"""["'](role|from)["']\s*:""")
LONGEST_PYTHON = 1_000_000  # characters of a cell in Python syntax; parsing one takes a hundred times its memory
_KEYS = ({"role", "content"}, {"from", "value"})
_TEXT_PARTS = {"text", "input_text", "output_text"}  # types of the parts of a content that hold text


@dataclass
class Unused:
    """What is not learned of ``total`` examples, counted in examples; ``noun`` is the user's word for one."""

    noun: str = "conversation"
    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, found: Iterable[str]) -> None:
        """Counts another example and what was ``found`` in it, such as 'images are ignored'."""
        self.total += 1
        self.counts.update(sorted(set(found)))

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence for each thing found."""
        examples = f"{self.total:,} {self.noun}{'s' * (self.total != 1)}"
        return tuple(f"In {count:,} of {examples}, {what}." for what, count in self.counts.most_common())


@dataclass(frozen=True)
class Conversation:
    """``messages`` with the ``tools`` that may be called, the indices of the assistant turns to be ``trained``, and
    what is ``unused``, see `Unused.add`."""

    messages: Messages
    tools: list[Any] | None = None
    trained: tuple[int, ...] = ()
    unused: frozenset[str] = frozenset()


def conversation(value: Any, place: str, system: Any = None, tools: Any = None, first: int = 0) -> Conversation:
    """The conversation in a cell, with the values of the columns for the system prompt and tools. Turns before
    ``first`` are not trained. Raises `UserError`."""
    talk, unused = _read(value, place)
    prompts = [turn["content"] for turn in talk if turn["role"] == "system"]
    text = "" if columns.empty(system) else written(system, f"{place}: the system prompt")
    if text and not prompts:
        talk.insert(0, {"role": "system", "content": text})
        first += first > 0
    elif text and text not in prompts:
        unused.add(_TWO_SYSTEMS)
    trained = tuple(index for index, turn in enumerate(talk) if index >= first and _learned(turn, place))
    if not trained:
        roles = ", ".join(dict.fromkeys(turn["role"] for turn in talk)) or "none"
        why = "all have the weight 0" if "assistant" in roles else f"its roles: {roles}"
        raise columns.Gap(place, f"the conversation has no assistant turn to learn from ({why})")
    return Conversation(talk, _tools(tools, place), trained, frozenset(unused))


def turns(value: Any, place: str) -> Messages:
    """The turns in a cell, unchanged. Raises `UserError`."""
    value = _parsed(value, place, "the conversation")
    value = [value] if is_turn(value) else _by_turn(value)
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise UserError(f"{place}: a conversation must be a list of turns, each with 'role' and 'content'.")
    return value


def messages(value: Any, place: str) -> Messages:
    """Turns as {'role', 'content', …}, from OpenAI's format, ShareGPT's ('from', 'value') or JSON text of either."""
    return _read(value, place)[0]


def is_turn(value: Any) -> bool:
    """Whether a value is one turn of a conversation."""
    found = isinstance(value, dict) and any(keys <= value.keys() for keys in _KEYS)
    return found and isinstance(value.get("role", value.get("from")), str)


def _by_turn(value: Any) -> Any:
    """The turns of an object with a list of roles and a list of contents, as earlier versions of `datasets` write a
    sequence of objects; anything else unchanged."""
    if not isinstance(value, dict) or not any(keys <= value.keys() for keys in _KEYS):
        return value
    lists = [each for each in value.values() if isinstance(each, list)]
    if len(lists) < len(value) or len({len(each) for each in lists}) > 1:
        return value
    return [dict(zip(value, turn, strict=True)) for turn in zip(*lists, strict=True)]


def is_turns(value: Any) -> bool:
    """Whether a cell holds turns of a conversation, or one turn, or either as text (see `_loaded`)."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and _NAMES_A_TURN.search(value):
        try:
            return is_turns(_loaded(value))
        except (ValueError, RecursionError):
            return False
    value = _by_turn(value)
    return is_turn(value) or (isinstance(value, list) and bool(value) and all(
        is_turn(turn) or (isinstance(turn, dict) and "role" in turn) for turn in value
    ))  # fmt: skip


def _loaded(text: str) -> Any:
    """The value in JSON text, or in Python syntax, as pandas writes lists of turns into CSV files. Raises `ValueError`
    or `RecursionError`."""
    try:
        return json.loads(text)
    except ValueError as error:
        if len(text) > LONGEST_PYTHON or not _NAMES_A_TURN.search(text):
            raise
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError):
            raise error from None


def history(value: Any, place: str) -> Messages:
    """Turns of earlier questions and answers: from pairs, as in Alpaca's format, or from turns."""
    value = _parsed(value, place, "the history")
    if columns.empty(value) or value == []:
        return []
    if is_turns(value):
        return messages(value, place)
    if not isinstance(value, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        raise UserError(f"{place}: the history must be a list of [question, answer] pairs.")
    return [
        {"role": role, "content": written(text, f"{place}: the history")}
        for pair in value for role, text in zip(("user", "assistant"), pair, strict=True)
    ]  # fmt: skip


def written(value: Any, where: str) -> str:
    """A cell's text unchanged, or a number as a word. Raises `UserError` for any other value."""
    if reason := described(value):
        raise UserError(f"{where} holds {reason}, not text.")
    return value if isinstance(value, str) else columns.word(value)


def _parsed(value: Any, place: str, what: str) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return _loaded(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: {what} is not valid JSON ({error}).") from error


def _read(value: Any, place: str) -> tuple[Messages, set[str]]:
    unused: set[str] = set()
    numbered = enumerate(turns(value, place), 1)
    return [_turn(turn, f"{place}, turn {number}", unused) for number, turn in numbered], unused


def _turn(turn: dict[str, Any], place: str, unused: set[str]) -> dict[str, Any]:
    named, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(named, str):
        raise UserError(f"{place}: needs 'role' and 'content' (or 'from' and 'value'), but has {_names(turn)}.")
    role = _ROLES.get(named.lower(), named.lower())
    if role not in _KNOWN:
        unused.add(f"the role '{named}' is unknown; the chat template gets it unchanged")
    made = {key: value for key, value in turn.items() if key not in ("from", "value", "function_call")}
    made |= {"role": role, "content": _content(content, unused)}
    calls = _calls(turn, named, place)
    if turn.get("tool_calls") == []:  # if all rows of a file have the field
        del made["tool_calls"]
    if calls:
        made["tool_calls"] = calls
        made["content"] = None if named.lower() == "function_call" else made["content"]
    thinks = any(turn.get(name) for name in ("reasoning_content", "thinking", "reasoning"))
    if not isinstance(made["content"], str) and not (made["content"] is None and (calls or thinks)):
        holds = f"{_names(turn)}, which holds {reason}" if (reason := described(content)) else _names(turn)
        raise UserError(f"{place}: needs 'role' and 'content' (or 'from' and 'value') as text, but has {holds}.")
    return made


def _names(turn: dict[str, Any]) -> str:
    return " and ".join(f"'{key}'" for key, value in turn.items() if value is not None) or "nothing"


def _content(content: Any, unused: set[str]) -> Any:
    """Text, also if it comes in parts."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in _TEXT_PARTS:
            unused.add(f"{_noun(str(kind))} are ignored")
        texts.append(part if isinstance(part, str) else str(part.get("text") or "") if isinstance(part, dict) else "")
    return "".join(texts)


def _noun(kind: str) -> str:
    return next((noun for word, noun in (("image", "images"), ("audio", "audio parts"), ("video", "video parts"))
                 if word in kind), f"parts of type '{kind}'")  # fmt: skip


def _calls(turn: dict[str, Any], named: str, place: str) -> list[Any] | None:
    """Tool calls in OpenAI's format, from its older one or ShareGPT's."""
    if turn.get("tool_calls"):
        return cast("list[Any]", _parsed(turn["tool_calls"], place, "'tool_calls'"))
    if isinstance(turn.get("function_call"), dict):
        return [{"type": "function", "function": turn["function_call"]}]
    if named.lower() != "function_call":
        return None
    called = turn.get("value", turn.get("content"))
    called = _parsed(called, place, "the function call") if isinstance(called, str) else called
    return [{"type": "function", "function": each} for each in (called if isinstance(called, list) else [called])]


def _learned(turn: dict[str, Any], place: str) -> bool:
    if turn["role"] != "assistant":
        return False
    weights = [turn[name] for name in _WEIGHTS if turn.get(name) is not None]
    if any(weight not in (0, 1) for weight in weights):
        raise UserError(f"{place}: the weight of a turn must be 0 or 1, not {weights[0]!r}.")
    return all(weights)


def _tools(tools: Any, place: str) -> list[Any] | None:
    tools = _parsed(tools, place, "the list of tools")
    if columns.empty(tools) or tools == []:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"{place}: tools must be a list of objects, each with a function's 'name' and 'parameters'.")
    return tools
