"""Proof by use: the merged folder in plain transformers against the run it came from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.models import auto
from sparsezo_gui.engine.models import device as devices
from sparsezo_gui.engine.session import Session
from sparsezo_gui.recipe.events import Progress

PROMPTS = 8
TOKENS = 16
ROOM = 2.5  # times the folder's size: 16-bit weights are computed in fp32 on a CPU


def compare(session: Session, data: TaskData, out: Path, original: bool) -> Generator[Progress, None, str]:
    """A sentence on how many greedy continuations of the task's prompts agree, token by token, with the run's.

    ``original`` says that the folder holds the base's original weights rather than the run's.
    """
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    if ROOM * size > devices.memory_free(torch.device("cpu")):
        return "Its text was not compared with the run's: there is too little free memory to load it whole."
    yield Progress("Comparing texts", 0, PROMPTS, "prompts")
    code = session.model.source.code
    plain = auto.load_model(out, code, dtype=torch.float32).eval()
    tokenizer = auto.load_tokenizer(out, code)
    agree, prompts = 0, _prompts(data)
    for done, prompt in enumerate(prompts):
        yield Progress("Comparing texts", done, len(prompts), "prompts")
        ids = torch.tensor([prompt])
        with session.overlay.applied():
            expected = list(stream(session.model, ids, TOKENS))
        found = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
            pad_token_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        written = found[0, len(prompt) :].tolist()  # and the token that ended it
        agree += written[: len(expected)] == expected and len(written) <= len(expected) + 1
    told = f"Plain transformers continues {agree} of {len(prompts)} prompts with the same tokens as the run."
    bits = session.recipe.model.bits
    if original and agree < len(prompts) and bits < 16:
        told += (
            f" Where it differs, the run's other weights are held in {bits} bits and the export's are whole; "
            "exported as trained, it gives the run's own words."
        )
    return told


def _prompts(data: TaskData) -> list[Sequence[int]]:
    """Prompts of held-out examples, or of training ones where there are none; a plain text gives its first half."""
    examples = (data.test.encoded or data.validation.encoded or data.train.encoded)[:PROMPTS]
    return [example.prompt or example.rows[0].tokens[: len(example.rows[0].tokens) // 2 + 1] for example in examples]
