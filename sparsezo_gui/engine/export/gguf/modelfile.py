"""An Ollama Modelfile for a GGUF file: where it is, how prompts look, and where answers end.

Ollama's templates are Go's, not Jinja: of a chat template only what surrounds each turn is kept, and only if that
gives the same text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sparsezo_gui.engine.data import chat
from sparsezo_gui.engine.data.conversations import Conversation
from sparsezo_gui.engine.data.prompts import encode_prompt
from sparsezo_gui.engine.data.tasks import task
from sparsezo_gui.engine.export.card import base_name
from sparsezo_gui.engine.pretrained.gguf.stores import OLLAMA
from sparsezo_gui.engine.session import Session
from sparsezo_gui.errors import UserError

_WORDS = ("qzxvsystem", "qzxvone", "qzxvtwo", "qzxvthree", "qzxvfour", "qzxvfive")
_ROLES = ("user", "assistant")
_TURNS = (
    '{{ range $i, $_ := .Messages }}{{ if eq .Role "system" }}SYSTEM{{ .Content }}{{ else if eq .Role "user" }}'
    "{{ if eq $i 0 }}FIRST{{ else if and (eq $i 1) $.System }}AFTER{{ else }}AGAIN{{ end }}{{ .Content }}ANSWER"
    "{{ else }}{{ .Content }}{{ end }}{{ end }}"
)


def modelfile(session: Session, base: str, adapter: str = "") -> str:
    """The text of a Modelfile; ``base`` and ``adapter`` are what Ollama finds them by."""
    lines = [f"FROM {base}", *([f"ADAPTER {adapter}"] if adapter else [])]
    if template := template_of(session):
        lines.append(f'TEMPLATE """{template}"""')
    return "\n".join([*lines, *(f"PARAMETER stop {json.dumps(stop)}" for stop in stops(session)), ""])


def from_base(session: Session) -> str:
    """The base model for a Modelfile: by its name in Ollama, its file or folder beside the Modelfile, or its id."""
    return base_name(session).removeprefix(OLLAMA)


def stops(session: Session) -> list[str]:
    """The texts of the tokens that end an answer."""
    tokenizer = session.model.tokenizer
    texts = (tokenizer.convert_ids_to_tokens(stop) for stop in sorted(session.model.stops))
    return [text for text in texts if text]


def template_of(session: Session) -> str:
    """The run's prompts as a Go template. Empty if Ollama needs none, as for plain text, or if there is none, as for
    prompts with several columns."""
    table, tokenizer = session.recipe.data, session.model.tokenizer
    kind = task(table.task).kind
    try:
        found = {"text": "", "chat": talk(tokenizer)}.get(kind)
        if found is None:
            found = _around(session, _WORDS[1])
    except UserError:
        return ""
    return "" if '"""' in found or found == "{{ .Prompt }}" else found


def _around(session: Session, word: str) -> str:
    """What surrounds a prompt that is a single text."""
    tokenizer = session.model.tokenizer
    prompt = encode_prompt(session.recipe.data, tokenizer, word).prompt
    before, found, after = _without_start(tokenizer.decode(prompt), tokenizer).partition(word)
    return f"{_go(before)}{{{{ .Prompt }}}}{_go(after)}" if found and word not in after else ""


def talk(tokenizer: Any) -> str:
    """What surrounds the turns of a conversation in the model's chat template. Empty if it does more than that."""
    if not getattr(tokenizer, "chat_template", None):
        return ""
    two = _written(tokenizer, _WORDS[1:4])
    first, _, rest = two.partition(_WORDS[1])
    answer, _, rest = rest.partition(_WORDS[2])
    again, _, last = rest.partition(_WORDS[3])
    system, _, after = _written(tokenizer, _WORDS[1:2], _WORDS[0]).partition(_WORDS[0])
    after = after.partition(_WORDS[1])[0]
    for words in (_WORDS[1:4], _WORDS[1:6]):
        for head, begin in (("", first), (_WORDS[0], f"{system}{_WORDS[0]}{after}")):
            expected = begin + words[0]
            for index, word in enumerate(words[1:]):
                expected += (again if index % 2 else answer) + word
            if expected + answer != _written(tokenizer, words, head) or answer != last:
                return ""
    parts = {"SYSTEM": system, "FIRST": first, "AFTER": after, "AGAIN": again, "ANSWER": answer}
    return re.sub("|".join(parts), lambda found: _go(parts[found[0]]), _TURNS)


def _written(tokenizer: Any, words: tuple[str, ...], system: str = "") -> str:
    """The prompt for an answer to a conversation of ``words``. Raises `UserError`."""
    said = [{"role": _ROLES[index % 2], "content": word} for index, word in enumerate(words)]
    messages = [*([{"role": "system", "content": system}] if system else []), *said]
    messages.append({"role": "assistant", "content": "x"})
    rendered = chat.render(Conversation(messages, None, (len(messages) - 1,)), tokenizer, "Ollama's template")
    return _without_start(rendered.prompt, tokenizer)


def _without_start(text: str, tokenizer: Any) -> str:
    """``text`` without the token that begins every text, which Ollama adds itself."""
    added = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if added and tokenizer.bos_token else text


def _go(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')
