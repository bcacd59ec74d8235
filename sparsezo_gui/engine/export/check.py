"""Checks an export: compares its output in plain transformers with that of the run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data import TaskData
from sparsezo_gui.engine.generate import stream
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.consent import TrustedCode
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import data_of
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress

PROMPTS = 8
TOKENS = 16
ROOM = 2.5  # memory needed, as a multiple of the folder's size: a CPU computes 16-bit weights in fp32


@dataclass(frozen=True)
class Plain:
    """A model in plain transformers: what ``load``s it in fp32, the ``bytes`` that this takes, and in a sentence
    ``why`` its text may differ from the run's; empty if it must not."""

    load: Callable[[], Any]
    bytes: float
    why: str = ""


def why_original(bits: int) -> str:
    """Why the original weights of the base model may give another text than a run in ``bits``."""
    if bits >= 16:
        return ""
    return (
        f"The others differ because the run used {bits}-bit weights and the export has the original ones; export a "
        "Hugging Face folder with the weights as trained to get the same text."
    )


def in_folder(
    folder: Path, code: TrustedCode | None, why: str, adapt: Callable[[Any], None] = lambda model: None
) -> Plain:
    """The model in a Hugging Face ``folder``, after ``adapt``."""

    def load() -> Any:
        model = auto.load_model(folder, code, dtype=torch.float32).eval()
        adapt(model)
        return model

    return Plain(load, ROOM * sum(path.stat().st_size for path in folder.glob("*.safetensors")), why)


def plain_base(source: ModelSource, why: str, adapt: Callable[[Any], None]) -> Plain:
    """The base model itself, after ``adapt``."""
    if not source.packed:
        return in_folder(source.folder, source.code, why, adapt)

    def load() -> Any:
        model = auto.load_tensors(source.config, source.packed, dtype=torch.float32).eval()
        adapt(model)
        return model

    return Plain(load, 4 * source.spec.parameters, why)


def compared(session: Session, run: RunFolder, plain: Plain, accept: bool) -> Generator[Progress | Notice, None, str]:
    """A sentence on how many greedy continuations of the task's prompts match those of the run, token by token."""
    try:
        data = yield from data_of(session, run, accept=accept)
    except UserError as error:  # the export is complete without the data
        return f"Not compared with the run's output: {error}"
    return (yield from _compare(session, data, plain))


def _compare(session: Session, data: TaskData, plain: Plain) -> Generator[Progress, None, str]:
    if plain.bytes > devices.memory_free(torch.device("cpu")):
        return "Not compared with the run's output: too little free memory to load the whole model."
    yield Progress("Comparing texts", 0, PROMPTS, "prompts")
    model, pad = plain.load(), session.model.tokenizer.pad_token_id or 0
    agree, prompts = 0, prompts_of(data)
    for done, prompt in enumerate(prompts):
        yield Progress("Comparing texts", done, len(prompts), "prompts")
        ids = torch.tensor([prompt])
        with session.tuned.applied():
            expected = list(stream(session.model, ids, TOKENS))
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=pad
        )
        written = found[0, len(prompt) :].tolist()  # and the token that ends it
        agree += written[: len(expected)] == expected and len(written) <= len(expected) + 1
    told = f"In plain transformers, {agree} of {len(prompts)} prompts give the same tokens as in the run."
    return f"{told} {plain.why}" if plain.why and agree < len(prompts) else told


def prompts_of(data: TaskData) -> list[Sequence[int]]:
    """Prompts from held-out examples, or else from training examples; for plain text, its first half."""
    examples = (data.test.encoded or data.validation.encoded or data.train.encoded)[:PROMPTS]
    return [example.prompt or example.rows[0].tokens[: len(example.rows[0].tokens) // 2 + 1] for example in examples]
