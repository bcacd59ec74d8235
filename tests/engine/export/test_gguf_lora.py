"""GGUF adapters, and the Modelfiles and programs that GGUF files are made for."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from sparsezo_gui.engine.export import adapter, export_run
from sparsezo_gui.engine.export.gguf import lora_file, modelfile, programs
from sparsezo_gui.engine.export.gguf.plan import Weights
from sparsezo_gui.engine.pretrained.gguf.tensors import processor_for
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from tests import gguf_files
from tests.engine.conftest import finish
from tests.models import BOS, tiny, tokenizer

FAR = {"rule": "scalar-normalised", "learning_rate": 0.05}
RULES = {
    "lora": {"rule": "lora", "rank": 3},
    "lora on some layers": {"rule": "lora", "rank": 40, "targets": ["k_proj", "down_proj", "q_proj"]},
    "several subspaces": {"rule": "subspace", "rank": 3, "refresh": 2, "subspaces": 3},
}


@pytest.fixture
def run_of(trained):
    def made(rule, family="llama", **model):
        return trained(
            f"{family} {rule} {len(model)}", family=family, mask=RULES[rule], model={"bits": 32, **model},
            loop={"steps": 4}, update=FAR, data={"test": 2, "validation": 2},
        )  # fmt: skip

    return made


def export(run, out, form="gguf-lora", **options):
    return finish(export_run(run.path, form, out, **options))["told"]


def added(path, session):
    """What llama.cpp adds to each weight, in the order of rows that transformers has: α/r·B·A."""
    reader = gguf.GGUFReader(path)
    fields = {key: each.contents() for key, each in reader.fields.items()}
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    tensors = {each.name: torch.from_numpy(each.data.copy()) for each in reader.tensors}
    names, found = Weights(session).layout.names, {}
    turn = processor_for(fields["general.architecture"], session.model.source.config)
    for name in session.tuned.products():
        a, b = (tensors.pop(f"{names[name]}.lora_{side}") for side in "ab")
        change = fields["adapter.lora.alpha"] / len(a) * b @ a
        flips = name in session.model.spec.transposed
        found[name] = change if flips else turn.process(weights=change, name=names[name]).weights
    assert not tensors
    return found


@pytest.mark.parametrize(
    ("rule", "family"), [*((rule, "llama") for rule in RULES), ("lora", "gpt2"), ("lora", "qwen2")]
)
def test_the_file_adds_what_the_run_did(run_of, tmp_path, rule, family):
    run = run_of(rule, family)
    told = export(run, tmp_path / "out.gguf")
    assert told[-1] == "In plain transformers, 2 of 2 prompts give the same tokens as in the run."
    session = finish(open_session(run))
    for name, change in added(tmp_path / "out.gguf", session).items():
        product = session.tuned.products()[name]
        torch.testing.assert_close(change, product.scale * product.b @ product.a, rtol=1e-5, atol=1e-6)
        assert change.abs().max() > 1e-3


def test_a_modelfile_adds_it_to_the_base(run_of, tmp_path):
    export(run_of("lora"), tmp_path / "out.gguf")
    assert (tmp_path / "out.Modelfile").read_text().startswith("FROM ./llama\nADAPTER ./out.gguf\n")


def test_the_adapter_of_a_gguf_model_is_compared_with_the_run(run_of, tmp_path):
    tiny("llama", tmp_path / "llama")
    file = gguf_files.write(tmp_path / "llama", tmp_path / "base.gguf", Kind.F16)
    told = export(run_of("lora", id=str(file)), tmp_path / "out.gguf")
    assert told[0].startswith("LoRA adapter: ") and "2 of 2 prompts give the same tokens" in told[-1]
    assert "FROM ./base.gguf\n" in (tmp_path / "out.Modelfile").read_text()


def test_an_adapter_that_computes_something_else_is_told(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(adapter, "_low_rank", lambda a, b, scale: lambda _, inputs, named, output: -output)
    assert "0 of 2 prompts give the same tokens" in export(run_of("lora"), tmp_path / "out.gguf")[-1]


def test_single_and_all_weights_are_no_adapter(trained, tmp_path):
    run = trained("entries", mask={"rule": "random", "density": 0.01}, loop={"steps": 1})
    with pytest.raises(UserError, match=r"this run tuned single weights\. Export it with --format gguf\."):
        export(run, tmp_path / "out.gguf")
    empty = adapter.Adapter({"lora_alpha": 1.0, "target_modules": [], "alpha_pattern": {}}, {})
    with pytest.raises(UserError, match="an adapter would be empty"):
        lora_file.plan(finish(open_session(run)), empty)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HELPFUL = (  # says something of its own if there is no system turn
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe {{ kind }}<|im_end|>\n' }}{% endif %}" + CHATML
)
COUNTING = (
    "{% for m in messages %}{{ loop.index }} {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def go(template, messages):
    """What Ollama's Go template makes of messages, as far as such templates go."""
    assert template.startswith("{{ range $i, $_ := .Messages }}") and template.endswith("{{ end }}{{ end }}")
    body = template.replace('{{ "{{" }}', "\0")
    system, rest = body.split('{{ if eq .Role "system" }}')[1].split(
        '{{ .Content }}{{ else if eq .Role "user" }}{{ if eq $i 0 }}'
    )
    first, rest = rest.split("{{ else if and (eq $i 1) $.System }}")
    after, rest = rest.split("{{ else }}", 1)
    again, rest = rest.split("{{ end }}{{ .Content }}", 1)
    answer = rest.split("{{ else }}")[0]
    out, has_system = "", messages[0]["role"] == "system"
    for index, message in enumerate(messages):
        if message["role"] == "system":
            out += system + message["content"]
        elif message["role"] == "user":
            start = first if index == 0 else after if index == 1 and has_system else again
            out += start + message["content"] + answer
        else:
            out += message["content"]
    return out.replace("\0", "{{")


@pytest.mark.parametrize("template", [CHATML, HELPFUL])
def test_a_chat_template_in_go(template):
    made = tokenizer()
    made.chat_template = template
    found = modelfile.talk(made)
    users = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Why"},
    ]
    for talk in (users[:1], users, [{"role": "system", "content": "S"}, *users]):
        assert go(found, talk) == made.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)


def test_the_token_that_begins_every_text_is_left_to_ollama():
    made = tokenizer()  # whose template writes it, and which adds none
    assert "FIRST" not in modelfile.talk(made) and "{{ if eq $i 0 }}<s><user> {{ else" in modelfile.talk(made)
    adding = SimpleNamespace(bos_token="<s>", bos_token_id=BOS)
    assert modelfile._without_start("<s><user> ", _calls(adding)) == "<user> "


def _calls(made):
    return type("Tokenizer", (), {**vars(made), "__call__": lambda self, text: SimpleNamespace(input_ids=[BOS])})()


def test_a_template_that_go_cannot_repeat_is_left_out():
    made = tokenizer()
    made.chat_template = COUNTING
    assert modelfile.talk(made) == ""
    made.chat_template = None
    assert modelfile.talk(made) == ""


@pytest.fixture
def lm_studio(tmp_path, monkeypatch):
    monkeypatch.setattr(programs.Path, "home", lambda: tmp_path / "user")
    return tmp_path / "user" / ".lmstudio" / "models"


@pytest.fixture
def entries(trained):
    return trained(
        "entries 32", mask={"rule": "random", "density": 0.01}, model={"bits": 32}, loop={"steps": 1},
        data={"test": 2, "validation": 2}, run={"name": "My Run"},
    )  # fmt: skip


def test_lm_studio_lists_the_file(entries, lm_studio, tmp_path):
    with pytest.raises(UserError, match=r"Where should the file be written\? Add --out PATH\."):
        export(entries, None, "gguf", to="lmstudio")
    with pytest.raises(UserError, match="LM Studio was not found: there is no folder"):
        export(entries, tmp_path / "x.gguf", "gguf", to="lmstudio")
    lm_studio.mkdir(parents=True)
    with pytest.raises(UserError, match=r"LM Studio lists only .*PUBLISHER.*Leave out --out"):
        export(entries, tmp_path / "x.gguf", "gguf", to="lmstudio")
    told = export(entries, None, "gguf", to="lmstudio")
    assert told[-1] == "LM Studio lists it as sparsezo/my-run."
    assert (lm_studio / "sparsezo" / "my-run" / "my-run.gguf").is_file()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ollama is a shell script")
def test_ollama_gets_the_model(entries, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    told = export(entries, tmp_path / "My Tuned.gguf", "gguf", to="ollama")
    assert told[-1].startswith("Ollama is not installed here. Where it is, run: ollama create my-tuned -f '")
    ollama = tmp_path / "bin" / "ollama"
    ollama.parent.mkdir()
    ollama.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n')
    ollama.chmod(ollama.stat().st_mode | stat.S_IXUSR)
    told = export(entries, tmp_path / "b.gguf", "gguf", to="ollama")
    assert told[-1] == "Added to Ollama. Try it: ollama run b"
    assert (tmp_path / "said").read_text() == f"create b -f {tmp_path}/b.Modelfile\n"
    ollama.write_text("#!/bin/sh\necho 'Error: no server \033[1m'\nexit 1\n")
    told = export(entries, tmp_path / "c.gguf", "gguf", to="ollama")
    assert told[-1].startswith("Ollama could not add the model (Error: no server ") and "\033" not in told[-1]
    assert (tmp_path / "c.gguf").is_file()


def test_without_room_for_the_modelfile_nothing_is_left(entries, tmp_path, monkeypatch):
    from sparsezo_gui.engine.export.gguf import making

    def full(path, text):
        raise UserError(f"{path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(making, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        export(entries, tmp_path / "new" / "out.gguf", "gguf")
    assert list((tmp_path / "new").iterdir()) == []
