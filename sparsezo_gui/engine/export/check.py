"""Checks an exported folder: compares its output in plain transformers with that of the run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.session import Session
from sparsezo_gui.recipe.events import Progress

PROMPTS = 8
TOKENS = 16
ROOM = 2.5  # memory needed, as a multiple of the folder's size: a CPU computes 16-bit weights in fp32


def compare(session: Session, data: TaskData, out: Path, original: bool) -> Generator[Progress, None, str]:
    """A sentence on how many greedy continuations of the task's prompts match those of the run, token by token.

    ``original``: the folder has the original weights of the base model rather than those of the run.
    """
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    if ROOM * size > devices.memory_free(torch.device("cpu")):
        return "Not compared with the run's output: too little free memory to load the whole model."
    yield Progress("Comparing texts", 0, PROMPTS, "prompts")
    code = session.model.source.code
    plain = auto.load_model(out, code, dtype=torch.float32).eval()
    tokenizer = auto.load_tokenizer(out, code)
    agree, prompts = 0, _prompts(data)
    for done, prompt in enumerate(prompts):
        yield Progress("Comparing texts", done, len(prompts), "prompts")
        ids = torch.tensor([prompt])
        with session.tuned.applied():
            expected = list(stream(session.model, ids, TOKENS))
        found = plain.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
            pad_token_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        written = found[0, len(prompt) :].tolist()  # and the token that ends it
        agree += written[: len(expected)] == expected and len(written) <= len(expected) + 1
    told = f"In plain transformers, {agree} of {len(prompts)} prompts give the same tokens as in the run."
    bits = session.recipe.model.bits
    if original and agree < len(prompts) and bits < 16:
        told += (
            f" The others differ because the run used {bits}-bit weights and the export has the original ones; export "
            "the weights as trained to get the same text."
        )
    return told


def _prompts(data: TaskData) -> list[Sequence[int]]:
    """Prompts from held-out examples, or else from training examples; for plain text, its first half."""
    examples = (data.test.encoded or data.validation.encoded or data.train.encoded)[:PROMPTS]
    return [example.prompt or example.rows[0].tokens[: len(example.rows[0].tokens) // 2 + 1] for example in examples]
