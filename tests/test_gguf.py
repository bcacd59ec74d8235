"""Every command on a GGUF file, which gives the same as the model that it was written from."""

import json

import pytest
import torch
from safetensors.torch import load_file

from sparsezo_gui import cli
from tests import gguf_files
from tests.models import small_recipe

MORE = ('train = 12\nvalidation = 4\ntest = 4\n[mask]\nrule = "random"\ndensity = 0.01\n'
        "[loop]\nsteps = 3\nbatch_size = 2\nevaluate_every = 0\n")  # fmt: skip


@pytest.fixture
def run(capsys):
    """``run(*arguments)``: the objects that a command writes."""

    def call(*arguments):
        capsys.readouterr()
        code = cli.main([*map(str, arguments), "--json"])
        out, error = capsys.readouterr()
        assert (code, error) == (0, ""), (out, error)
        return [json.loads(line) for line in out.splitlines()]

    return call


def test_commands(run, tmp_path, monkeypatch):
    recipe = small_recipe(tmp_path, MORE)
    file = gguf_files.write(tmp_path / "llama", tmp_path / "llama.gguf")
    ours = ("--set", f"model.id={file}")
    assert run("preview", recipe, *ours) == run("preview", recipe)
    parts = [
        [part for part in run("estimate", recipe, *more)[0]["parts"] if part["name"] != "Runtime"]
        for more in ((), ours)
    ]
    assert parts[0] == parts[1] and len(parts[0]) > 5

    def trained(place, *settings):
        events = run("train", recipe, "--run", place, *settings)
        return [event["loss"] for event in events if event["event"] == "step"]

    losses = trained(tmp_path / "a")
    assert trained(tmp_path / "b", *ours) == losses and len(set(losses)) == 3
    assert run("evaluate", tmp_path / "b") == run("evaluate", tmp_path / "a")
    assert run("verify", tmp_path / "b") == run("verify", tmp_path / "a")
    out = ("--out", tmp_path / "model", "--format", "hf")
    assert cli.main([*map(str, ("export", tmp_path / "b", *out))]) == 2
    run("export", tmp_path / "b", *out, "--weights", "trained")
    run("export", tmp_path / "a", *out[:1], tmp_path / "same", *out[2:], "--weights", "trained")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("model", "same")]
    assert weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert "license: mit" in (tmp_path / "model/README.md").read_text()
    run("export", tmp_path / "b", "--out", tmp_path / "o.safetensors", "--format", "overlay")
    cached = [each["path"] for each in run("cache") if each["kind"] == "GGUF tokenizer"]
    assert len(cached) == 1
    texts = [run("generate", tmp_path / name, "--prompt", "a film") for name in "ab"]
    assert texts[0] == texts[1]

    store = tmp_path / "store/manifests/registry.ollama.ai/library/tiny"
    store.mkdir(parents=True)
    digest = f"sha256:{'0' * 64}"
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
    (store / "latest").write_text(json.dumps({"layers": [layer]}))
    (tmp_path / "store/blobs").mkdir()
    file.rename(tmp_path / "store/blobs" / digest.replace(":", "-"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    listed = {model["id"]: model for model in run("models")}
    assert (listed["ollama:tiny"]["kind"], listed["ollama:tiny"]["problem"]) == ("ollama", "")
    assert run("preview", recipe, "--set", "model.id=ollama:tiny") == run("preview", recipe)
