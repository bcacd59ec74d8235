"""Exported GGUF files in llama.cpp itself: the same tokens, in and out. Needs the extra 'llama'."""

from __future__ import annotations

import pytest
import torch

from sparsezo_gui.engine.export import export_run
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.engine.session.opening import open_session
from tests import gguf_files
from tests.engine.conftest import finish

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the extra 'llama'")
pytestmark = pytest.mark.slow
TEXTS = ("a film that is great", "the cat sat  on 12 mats,\n\tit's", "naïve 日本")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "gpt2", "stablelm", "starcoder2")
FAR = {"rule": "scalar-normalised", "learning_rate": 0.05}


def loaded(path, **options):
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False, logits_all=True, **options)


def logits(model, ids):
    model.reset()
    model.eval(ids)
    return torch.from_numpy(model.scores[: len(ids)].copy())


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_tokens(trained, tmp_path, family):
    run = trained(f"llama.cpp {family}", family=family, model={"bits": 32}, loop={"steps": 2, "evaluate_every": 0},
                  update=FAR, data={"test": 2, "validation": 2})  # fmt: skip
    finish(export_run(run.path, "gguf", tmp_path / "m.gguf", kind="f32"))
    session, model, tokenizer = (
        finish(open_session(run)),
        loaded(tmp_path / "m.gguf"),
        load_tokenizer(tmp_path / family),
    )
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert model.tokenize(text.encode(), add_bos=False, special=True) == ids
        with session.tuned.applied(), torch.no_grad():
            expected = session.model.module(torch.tensor([ids])).logits[0]
        found = logits(model, ids)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.std()))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_adapter(trained, tmp_path, family):
    run = trained(f"llama.cpp adapter {family}", family=family, mask={"rule": "lora", "rank": 3}, model={"bits": 32},
                  loop={"steps": 4, "evaluate_every": 0}, update=FAR, data={"test": 2, "validation": 2})  # fmt: skip
    finish(export_run(run.path, "gguf-lora", tmp_path / "lora.gguf"))
    base = gguf_files.write(tmp_path / family, tmp_path / "base.gguf")
    ids, session = load_tokenizer(tmp_path / family)(TEXTS[0]).input_ids, finish(open_session(run))
    with session.tuned.applied(), torch.no_grad():
        expected = session.model.module(torch.tensor([ids])).logits[0]
    close = {"rtol": 0, "atol": 0.02 * float(expected.std())}
    assert not torch.allclose(logits(loaded(base), ids), expected, **close)
    found = logits(loaded(base, lora_path=str(tmp_path / "lora.gguf")), ids)
    torch.testing.assert_close(found, expected, **close)
