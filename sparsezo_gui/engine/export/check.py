"""Checks an export: compares its output in plain transformers with that of the run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress

PROMPTS = 8
TOKENS = 16
ROOM = 2.5  # memory needed, as a multiple of the folder's size: a CPU computes 16-bit weights in fp32


def compared(
    session: Session, run: RunFolder, folder: Path, original: bool, accept: bool,
    adapt: Callable[[Any], None] = lambda model: None,
) -> Generator[Progress | Notice, None, str]:  # fmt: skip
    """A sentence on how many greedy continuations of the task's prompts match those of the run, token by token.

    The model in ``folder`` is compared, after ``adapt``. ``original``: it has the original weights of the base model
    rather than those of the run.
    """
    try:
        data = yield from data_of(session, run, accept=accept)
    except UserError as error:  # the export is complete without the data
        return f"Not compared with the run's output: {error}"
    return (yield from _compare(session, data, folder, original, adapt))


def _compare(
    session: Session, data: TaskData, folder: Path, original: bool, adapt: Callable[[Any], None]
) -> Generator[Progress, None, str]:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if ROOM * size > devices.memory_free(torch.device("cpu")):
        return "Not compared with the run's output: too little free memory to load the whole model."
    yield Progress("Comparing texts", 0, PROMPTS, "prompts")
    code = session.model.source.code
    plain = auto.load_model(folder, code, dtype=torch.float32).eval()
    adapt(plain)
    tokenizer = auto.load_tokenizer(folder, code)
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
            "a Hugging Face folder with the weights as trained to get the same text."
        )
    return told


def _prompts(data: TaskData) -> list[Sequence[int]]:
    """Prompts from held-out examples, or else from training examples; for plain text, its first half."""
    examples = (data.test.encoded or data.validation.encoded or data.train.encoded)[:PROMPTS]
    return [example.prompt or example.rows[0].tokens[: len(example.rows[0].tokens) // 2 + 1] for example in examples]
