"""What a chat template writes of messages, and what it ignores."""

from __future__ import annotations

import re

from sparsezo_gui.engine.sandbox.ends import Message, Write, attempt

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Fields with the assistant's reasoning before its answer."""
PLAIN = frozenset(("role", "content", "name", "id", "tool_call_id", "weight", "train", "trainable", "training", "loss"))
"""Fields that need not appear in the text."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def filled(write: Write, messages: list[Message]) -> tuple[str, list[Message]]:
    """The text; if the template needs content in every turn, missing content is empty text."""
    try:
        return write(messages, False), messages
    except Exception:
        if all(isinstance(message.get("content"), str) for message in messages):
            raise
        made = [{**message, "content": message.get("content") or ""} for message in messages]
        return write(made, False), made


def ignored_in(write: Write, messages: list[Message], whole: str, tools: bool) -> list[str]:
    """The fields, roles and tools that make no difference to the text."""
    fields = {key for message in messages for key, value in message.items() if value is not None} - PLAIN
    groups = {"reasoning": set(THOUGHTS) & fields} if set(THOUGHTS) & fields else {}
    groups |= {key: {key} for key in fields - set(THOUGHTS)}
    without = {
        name: [{key: value for key, value in message.items() if key not in keys} for message in messages]
        for name, keys in groups.items()
    }
    roles = {message["role"] for message in messages} - {"user", "assistant"}
    without |= {f"role {role}": [message for message in messages if message["role"] != role] for role in roles}
    found = [name for name, others in without.items() if attempt(write, others, False) == whole]
    said = (message.get("content") or "" for message in messages if message["role"] == "assistant")
    thoughts = [thought.strip() for text in said for thought in _THOUGHT.findall(text)]
    if any(thoughts) and not any(thought in whole for thought in filter(None, thoughts)) and "reasoning" not in found:
        found.append("reasoning")
    if tools and attempt(write, messages, False, tools=None) == whole:
        found.append("tools")
    return sorted(found)
