"""The commands for the Hub, with the real client: downloads, searches, caches, uploads."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from sparsezo_gui.engine.data import load_rows
from sparsezo_gui.engine.hub import download
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.recipe.recipe import DataTable, ModelTable
from tests.engine.conftest import finish
from tests.hub_server import PIECE, STRANGER, TOKEN, datasets_hub, hub
from tests.models import tiny

__all__ = ["datasets_hub", "hub"]
LETTERS = random.Random(0)
ROWS = b"".join(
    json.dumps({"text": "".join(LETTERS.choices("abcdefgh ", k=60)), "label": row % 2}).encode() + b"\n"
    for row in range(200)
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def served(datasets_hub, llama, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.01,) * 5)
    datasets_hub.add("models/owner/tiny", llama)
    datasets_hub.add("datasets/owner/reviews", {"README.md": b"# R\n", "train.jsonl": ROWS, "more/notes.bin": b"x"})
    return datasets_hub


def cached(pattern):
    return sorted(Path(constants.HF_HUB_CACHE).rglob(pattern))


def total(llama):
    return sum(path.stat().st_size for path in llama.iterdir())


def test_a_model_is_downloaded_once_and_then_found_offline(run, served, llama, monkeypatch):
    code, lines, error = run("download", "owner/tiny", "--json")
    [found] = map(json.loads, lines)
    commit = served.repositories["models/owner/tiny"].commit
    assert (code, error) == (0, "")
    assert found == {"id": "owner/tiny", "revision": commit, "dataset": False, "bytes": total(llama),
                     "downloaded": total(llama), "path": str(cached("snapshots/*")[0])}  # fmt: skip
    code, lines, error = run("download", "owner/tiny")
    assert code == 0 and lines == [f"Already on this computer: {found['path']}"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert str(finish(find(ModelTable(id="owner/tiny"))).folder) == found["path"]


def test_bytes_and_speed_are_shown(run, served):
    code, lines, error = run("download", "owner/tiny")
    assert code == 0 and lines[0].startswith("Downloaded ") and "KiB: /" in lines[0]
    assert re.search(r"Downloading the model \d+ K?i?B of \d+ KiB\n", error)


def test_ctrl_c_keeps_what_was_loaded_and_the_next_try_resumes(run, served, llama, monkeypatch):
    """The first chunk that fills the file to a third brings the signal."""
    append, size = download._append, (llama / "model.safetensors").stat().st_size

    def interrupted(part, *more):
        for have in append(part, *more):
            if have > size / 3:
                raise KeyboardInterrupt
            yield have

    monkeypatch.setattr(download, "PROGRESS_EVERY", -1)
    monkeypatch.setattr(download, "_append", interrupted)
    code, lines, error = run("download", "owner/tiny")
    assert code == 130 and not lines
    assert "What was downloaded is kept. Run the command again to resume." in error and "Interrupted." in error
    [part] = cached("*.incomplete")
    have = part.stat().st_size
    assert size / 3 < have < size
    monkeypatch.setattr(download, "_append", append)
    served.asked.clear()
    code, lines, _ = run("download", "owner/tiny", "--json")
    assert code == 0 and json.loads(lines[0])["downloaded"] == size - have and served.starts() == [have]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("owner/nothing",), "There is no model 'owner/nothing' on the Hub, or it is private."),
        (("owner/nothing", "--dataset"), "There is no data set 'owner/nothing' on the Hub, or it is private."),
        (("owner/tiny", "--revision", "v9"), "The model 'owner/tiny' on the Hub lacks this revision."),
        (("owner/reviews", "--dataset", "--revision", "v9"), "The data set 'owner/reviews' on the Hub lacks this rev"),
        (("a/b/c", "--dataset"), "'a/b/c' is no data set on the Hub. Write owner/name"),
        (("starter",), "'starter' is a model on this computer"),
        (("../x",), "../x"),
        (("owner/tiny", "--revision", "../x"), "'owner/tiny'"),
    ],
)
def test_what_cannot_be_downloaded(run, served, arguments, sentence):
    code, lines, error = run("download", *arguments)
    assert code == 2 and not lines and sentence in error
    assert not cached("*.safetensors") and not cached("*.jsonl")


def test_gated(run, served, llama, monkeypatch):
    served.add("models/owner/tiny", llama, gated=True)
    served.add("datasets/owner/reviews", {"train.jsonl": ROWS}, gated=True)
    for token in ("", STRANGER):
        monkeypatch.setenv("HF_TOKEN", token)
        code, _, error = run("download", "owner/tiny")
        assert code == 2 and f"is gated. Accept its terms at {served.endpoint}/owner/tiny, create a token" in error
        code, _, error = run("download", "owner/reviews", "--dataset")
        assert code == 2 and f"is gated. Accept its terms at {served.endpoint}/datasets/owner/reviews" in error
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run("download", "owner/tiny")[0] == run("download", "owner/reviews", "--dataset")[0] == 0


@pytest.mark.parametrize("what", [("owner/tiny",), ("owner/reviews", "--dataset")])
def test_the_disk_is_looked_at_before(run, served, monkeypatch, what):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    code, _, error = run("download", *what)
    assert code == 2 and "are free. Free some space, or set HF_HOME" in error
    assert not cached("*.incomplete") and served.starts() == []


def test_a_data_set_is_downloaded_and_then_loaded_offline(run, served, monkeypatch):
    import datasets

    code, lines, error = run("download", "owner/reviews", "--dataset", "--json")
    found = json.loads(lines[0])
    assert (code, error) == (0, "")
    assert found["bytes"] == len(ROWS) + 4 and found["downloaded"] == len(ROWS) and found["dataset"]
    assert {path.name for path in Path(found["path"]).iterdir()} == {"README.md", "train.jsonl"}
    assert run("download", "owner/reviews", "--dataset")[1][0].startswith("Already on this computer")
    for place in (constants, datasets.config):
        monkeypatch.setattr(place, "HF_HUB_OFFLINE", True)
    served.asked.clear()
    rows = load_rows(DataTable(source="owner/reviews", train=20, validation=5, test=5))
    assert len(rows["train"]) == 20 and served.asked == []


def test_a_data_set_resumes_and_is_checked(run, served, monkeypatch):
    served.add("datasets/owner/big", {"train.parquet": parquet()})
    monkeypatch.setattr(served, "break_after", 5 * PIECE)
    monkeypatch.setattr(download, "WAITS", ())
    code, _, error = run("download", "owner/big", "--dataset")
    assert code == 2 and "the Hub cannot be reached" in error and "what was downloaded is kept" in error
    [part] = cached("*.incomplete")
    have = part.stat().st_size
    part.write_bytes(b"x" * have)  # and damaged meanwhile
    monkeypatch.setattr(served, "break_after", None)
    code, _, error = run("download", "owner/big", "--dataset")
    assert code == 2 and "'train.parquet' of 'owner/big' was damaged during download" in error
    served.asked.clear()
    assert run("download", "owner/big", "--dataset")[0] == 0 and served.starts()[0] in (0, None)


def parquet():
    import io

    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    texts = ["".join(LETTERS.choices("abcdefgh ", k=60)) for _ in range(2000)]
    parquet.write_table(pyarrow.table({"text": texts, "label": [row % 2 for row in range(2000)]}), out)
    return out.getvalue()


def test_only_the_chosen_configuration_is_downloaded(run, served):
    card = b"---\nconfigs:\n- config_name: one\n  data_files: 1.jsonl\n- config_name: two\n  data_files: 2.jsonl\n---\n"
    served.add("datasets/owner/two", {"README.md": card, "1.jsonl": ROWS, "2.jsonl": ROWS[:-1]})
    code, _, error = run("download", "owner/two", "--dataset")
    assert code == 2 and "['one', 'two']" in error
    assert run("download", "owner/two:two", "--dataset")[0] == 0
    assert cached("2.jsonl") and not cached("1.jsonl")
