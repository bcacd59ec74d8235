"""How to serve an export: one command for each program that loads its format."""

from __future__ import annotations

import pytest

from sparsezo_gui.engine.export import export_run
from sparsezo_gui.formats import EXPORTS, export_format
from sparsezo_gui.recipe.registry import SPACES
from tests.engine.conftest import finish

OLLAMA = "ollama create mine -f 'a b/Mine.Modelfile' && ollama run mine"


@pytest.mark.parametrize(
    ("form", "space", "out", "commands"),
    [
        ("overlay", "entries", "o.safetensors", {}),
        ("peft", "entries", "out", {}),  # no server knows SHiRA
        ("hf", "entries", "a b", {"vLLM": "vllm serve 'a b'"}),
        ("gguf", "entries", "a b/Mine.gguf", {"Ollama": OLLAMA, "llama.cpp": "llama-server -m 'a b/Mine.gguf'"}),
        ("gguf-lora", "lora", "m.gguf", {"Ollama": "ollama create m -f m.Modelfile && ollama run m",
                                         "llama.cpp": "llama-server -m BASE.gguf --lora m.gguf"}),
        ("peft", "lora", "a b", {"vLLM": "vllm serve org/base --enable-lora --max-lora-rank 32 --lora-modules "
                                         "'tuned=a b'"}),
    ],
)  # fmt: skip
def test_commands(form, space, out, commands):
    assert export_format(form).serve(out, "org/base", SPACES[space], 20) == commands


def test_vllm_must_know_the_rank():
    ranks = {rank: export_format("peft").serve("o", "b", SPACES["lora"], rank)["vLLM"].split()[5] for rank in (1, 8, 9)}
    assert ranks == {1: "1", 8: "8", 9: "16"}
    assert "--max-lora-rank RANK" in export_format("peft").serve("o", "b", SPACES["lora"])["vLLM"]


def test_exports_and_cards_say_it(trained, tmp_path):
    run = trained("served", mask={"rule": "lora", "rank": 3}, loop={"steps": 2}, data={"test": 2, "validation": 2},
                  update={"rule": "scalar-normalised", "learning_rate": 0.05})  # fmt: skip
    report = finish(export_run(run.path, "hf", tmp_path / "hf"))
    assert report["serve"] == {"vLLM": f"vllm serve {tmp_path / 'hf'}"}
    assert "## Serve\n\n- vLLM: `vllm serve .`\n" in (tmp_path / "hf" / "README.md").read_text()
    report = finish(export_run(run.path, "peft", tmp_path / "peft"))
    rest = "--enable-lora --max-lora-rank 8 --lora-modules tuned="
    assert report["serve"] == {"vLLM": f"vllm serve ./llama {rest}{tmp_path / 'peft'}"}
    assert f"- vLLM: `vllm serve ./llama {rest}.`\n" in (tmp_path / "peft" / "README.md").read_text()
    report = finish(export_run(run.path, "gguf", tmp_path / "m.gguf"))
    assert "- llama.cpp: `llama-server -m m.gguf`\n" in report["card"] and set(report["serve"]) == {
        "Ollama",
        "llama.cpp",
    }
    assert (tmp_path / "m.Modelfile").is_file()


def test_only_programs_that_are_named():
    named = {
        program for name in EXPORTS for space in ("entries", "lora")
        for program in export_format(name).serve("out", "base", SPACES[space])
    }  # fmt: skip
    assert named == {"Ollama", "llama.cpp", "vLLM"}
