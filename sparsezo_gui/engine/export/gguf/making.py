"""Makes the GGUF file of a step: plans it, tells its size, writes it, reads it back and compares it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType as Kind

from sparsezo_gui.engine.export.card import base_name
from sparsezo_gui.engine.export.check import Plain, compared, why_original
from sparsezo_gui.engine.export.gguf import file, programs, written
from sparsezo_gui.engine.export.gguf.metadata import sizes
from sparsezo_gui.engine.export.gguf.modelfile import modelfile, stops
from sparsezo_gui.engine.export.gguf.plan import Plan, Weights, copied_pairs, in_kind, packed_pairs
from sparsezo_gui.engine.export.gguf.same import as_it_came
from sparsezo_gui.engine.export.gguf.vocabulary import vocabulary
from sparsezo_gui.engine.export.gguf.written import Rounding
from sparsezo_gui.engine.files import already_exists, replacing, write_text
from sparsezo_gui.engine.hub.library import licence_of
from sparsezo_gui.engine.pretrained.ends import end_tokens
from sparsezo_gui.engine.pretrained.folder import check_model_room
from sparsezo_gui.engine.pretrained.gguf.header import read_gguf
from sparsezo_gui.engine.pretrained.gguf.tokenizer import tokenizer_of
from sparsezo_gui.engine.runs.folder import RunFolder
from sparsezo_gui.engine.session import Session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice, Progress
from sparsezo_gui.sizes import size

_END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_PROMPTS, _LONGEST = 4, 64  # texts for the comparison of logits, and their most tokens


def make(
    session: Session, run: RunFolder, out: Path, accept: bool, kind: str, to: str
) -> Generator[Progress | Notice, None, list[str]]:
    """Writes the file to ``out`` and a Modelfile beside it; returns sentences for the user. Raises `UserError`."""
    beside = modelfile_of(out)
    if to == "lmstudio":
        programs.refuse_elsewhere(out)
    weights, source = Weights(session), session.model.source
    with replacing(out, new=True) as draft:
        plan = yield from _planned(session, weights, kind, draft)
        yield Notice(f"The GGUF file will take {size(plan.length)}.")
        check_model_room(out.parent, plan.length)
        if kind != "same":
            written.begin(draft, plan, source)
        yield from written.fill(draft, plan)
        rounding = yield from written.read_back(draft, plan)
        told, model = [_described(plan, kind, rounding)], None
        if written.fits(source):
            yield Progress("Comparing logits")
            model = written.model_in(draft)
            told.append(_same(written.same_logits(model, source, _samples(session))))
    write_beside(beside, modelfile(session, f"./{out.name}"), out)
    if model is None:
        told.append("Its logits were not compared: too little free memory to load the whole model.")
    else:
        told.append((yield from compared(session, run, Plain(lambda: model, 0, _why(session, kind)), accept)))
    told += _told_stops(session)
    if to == "ollama":
        told.append((yield from programs.create(out.stem, beside)))
    elif to == "lmstudio":
        told.append(f"LM Studio lists it as {programs.PUBLISHER}/{out.parent.name}.")
    return told


def _same(worst: float) -> str:
    return (
        "Read back, it gives the same logits as its weights in transformers (largest difference: "
        f"{100 * worst:.1g} % of their spread)."
    )


def modelfile_of(out: Path) -> Path:
    """The Modelfile beside ``out``. Raises `UserError` if the name is taken."""
    beside = out.with_suffix(".Modelfile")
    if beside.exists():
        raise already_exists(beside)
    return beside


def write_beside(beside: Path, text: str, out: Path) -> None:
    """Writes the Modelfile of ``out``; without it, ``out`` is removed again. Raises `UserError`."""
    try:
        write_text(beside, text)
    except UserError:
        out.unlink()
        raise


def _planned(session: Session, weights: Weights, kind: str, draft: Path) -> Generator[Progress, None, Plan]:
    source = session.model.source
    if kind == "same":
        plan = yield from as_it_came(weights)
        return Plan(_with_end(session, plan.pairs), plan.tensors, plan.version, plan.alignment)
    yield Progress("Describing the model")
    if source.packed:
        pairs = _with_end(session, copied_pairs(read_gguf(source.place)))
    else:
        pairs = _described_anew(session, weights, draft)
    return in_kind(weights, Kind[kind.upper()], pairs)


def _with_end(session: Session, pairs: dict[str, bytes] | Any) -> dict[str, bytes]:
    """Metadata of a file, with the end that the run learned if the file has another."""
    end, free = session.model.learned_end, [key for key in _END_KEYS if key not in pairs]
    if end is None or end in end_tokens(session.model.source) or not free:
        return dict(pairs)
    return {**pairs, free[0]: file.value(end)}


def _described_anew(session: Session, weights: Weights, draft: Path) -> dict[str, bytes]:
    """Metadata of a model that came as a folder."""
    source, layout = session.model.source, weights.layout
    ends = end_tokens(source)
    if (end := session.model.learned_end) is not None and end not in ends:
        ends.append(end)
    general: dict[str, Any] = {
        "general.type": "model",
        "general.name": session.recipe.run.name or "tuned model",
        "general.description": f"{base_name(session)}, tuned with SparseZO for {session.step} steps",
    }
    if licence := licence_of(source.folder):
        general["general.license"] = licence
    pairs = packed_pairs(layout.family, general, sizes(source.config, layout.family))

    def read(found: dict[str, Any]) -> Any:
        draft.write_bytes(file.head(pairs | {key: file.value(value) for key, value in found.items()}, []))
        return tokenizer_of(read_gguf(draft))

    found = vocabulary(session.model.tokenizer, source.spec.vocabulary, ends, read)
    return pairs | {key: file.value(value) for key, value in found.items()}


def _samples(session: Session) -> list[list[int]]:
    """Prompts of different lengths: the tokens of a model, whatever they say."""
    generator = torch.Generator().manual_seed(0)
    lengths = [_LONGEST * (number + 1) // _PROMPTS for number in range(_PROMPTS)]
    most = min(session.model.limits.tokens, session.model.source.spec.vocabulary)
    return [torch.randint(most, (length,), generator=generator).tolist() for length in lengths]


def _described(plan: Plan, kind: str, rounding: Rounding) -> str:
    counts: dict[str, int] = {}
    for each in plan.tensors:
        if len(each.shape) > 1:
            counts[each.kind.name] = counts.get(each.kind.name, 0) + 1
    kinds = ", ".join(f"{count} {name.lower()}" for name, count in sorted(counts.items()))
    told = f"{size(plan.length)}; matrices: {kinds}."
    return f"{told} Rounding changed the newly written ones by {100 * rounding.relative:.2g} %."


def _why(session: Session, kind: str) -> str:
    """Why the file's text may differ from the run's."""
    if why := why_original(session.recipe.model.bits):
        return why
    return "" if kind == "f32" else f"The others differ by the rounding to {kind}."


def _told_stops(session: Session) -> list[str]:
    found = ", ".join(f"'{stop}'" for stop in stops(session))
    return [f"Answers end at {found}."] if found else []
