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
    [listed] = [each for each in map(json.loads, run("models", "--json")[1]) if each["id"] == "owner/tiny"]
    assert listed["problem"] == "Only a part of it is downloaded. Download it again to resume."
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


ABOUT = {
    "downloads": 12345, "tags": ["license:apache-2.0", "text-generation"],
    "config": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "safetensors": {"parameters": {"F32": 1000, "BF16": 10}, "total": 1010},
}  # fmt: skip


def test_models_are_searched_and_judged_before_anything_is_downloaded(run, served, llama, monkeypatch):
    """The tiny one fits; one whose embeddings alone take a terabyte does not; a BERT is none."""
    config = json.loads((llama / "config.json").read_text())
    huge = json.dumps({**config, "vocab_size": 10**8, "hidden_size": 8192}).encode()
    bert = {"config": {"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "downloads": 7}
    served.add("models/owner/tiny", llama, about=ABOUT)
    served.add("models/owner/tiny-huge", {"config.json": huge}, about={**ABOUT, "downloads": 99999})
    served.add("models/owner/tiny-bert", {"config.json": b"{}"}, about={**ABOUT, **bert})
    served.add("models/owner/tiny-gated", llama, gated=True, about={**ABOUT, "downloads": 5})
    served.add("models/owner/other", llama, about=ABOUT)
    code, lines, error = run("models", "--search", "tiny", "--json")
    assert (code, error) == (0, "")
    big, tiny_one, bert, gated = map(json.loads, lines)
    assert tiny_one == {
        "id": "owner/tiny", "parameters": 1010, "rows": "", "bytes": 4020, "licence": "apache-2.0", "downloads": 12345,
        "gated": False, "fit": "fits", "problem": "",
    }  # fmt: skip
    assert (big["id"], big["fit"]) == ("owner/tiny-huge", "too large")
    assert "has no head that predicts" in bert["problem"] or "masked" in bert["problem"]
    assert (gated["gated"], gated["fit"], gated["problem"]) == (True, "", "")
    code, lines, error = run("models", "--search", "tiny")
    assert code == 0 and "Checking what fits" in error
    assert re.search(r"owner/tiny +fits +4 KiB +apache-2.0 +12345", "\n".join(lines))
    assert cached("*") == [] and served.starts() == []


def test_data_sets_are_searched(run, served):
    about = {"downloads": 3, "mainSize": 2**20, "tags": ["license:mit", "size_categories:1K<n<10K"]}
    served.add("datasets/owner/reviews", {"train.jsonl": ROWS}, about=about)
    about = {"downloads": 2, "tags": ["size_categories:n<1K"]}
    served.add("datasets/owner/more-reviews", {"train.jsonl": ROWS}, gated=True, about=about)
    code, lines, error = run("models", "--search", "Reviews", "--datasets", "--json")
    first, second = map(json.loads, lines)
    assert (code, error) == (0, "")
    assert first == {"id": "owner/reviews", "parameters": 0, "rows": "1K to 10K", "bytes": 2**20, "licence": "mit",
                     "downloads": 3, "gated": False, "fit": "", "problem": ""}  # fmt: skip
    assert second["gated"] and second["rows"] == "under 1K"
    assert run("models", "--search", "zzz", "--datasets")[1] == ["Nothing on the Hub has these words in its name."]


def test_what_strangers_wrote_is_bounded_and_plain(run, served, llama):
    """Neither long texts, nor numbers that are none, nor ids that could be paths or sequences for a terminal."""
    bad = {
        "owner/a": {"tags": ["license:" + "x" * 10_000]},
        "owner/b": {"downloads": "many", "safetensors": {"parameters": {"F32": -5, "F64": 10**40}, "total": 1}},
        "owner/c": {"id": "../../etc/x"},
        "owner/d": {"id": "owner/\x1b[2Jd"},
        "owner/e": {"tags": [5], "config": [1]},
        "owner/f": {"config": {"model_type": "y" * 10_000, "architectures": 3}},
    }
    for name, about in bad.items():
        served.add(f"models/{name}", llama, about={**ABOUT, "downloads": 1, **about})
    code, lines, _ = run("models", "--search", "owner", "--json")
    found = {each["id"]: each for each in map(json.loads, lines)}
    assert code == 0 and {"owner/a", "owner/b"} <= set(found) <= {"owner/tiny", *bad} - {"owner/c", "owner/d"}
    assert len(found["owner/a"]["licence"]) == 60
    assert (found["owner/b"]["downloads"], found["owner/b"]["parameters"]) == (0, 0)
    assert max(len(line) for line in lines) < 3000


def test_a_search_that_cannot_be(run, served, monkeypatch):
    assert run("models", "--search", " ")[0] == 2
    code, _, error = run("models", "--datasets")
    assert code == 2 and "--datasets needs --search" in error
    served.failures = 1000
    code, _, error = run("models", "--search", "tiny")
    assert code == 2 and "the Hub cannot be reached (it answers HTTP 500)" in error
    served.failures = 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, error = run("models", "--search", "tiny")
    assert code == 2 and "offline" in error


def test_downloads_are_listed_and_removed_with_their_size(run, served, llama):
    """Of a data set the tables too that were made from its files; "all" leaves downloads."""
    import datasets

    run("download", "owner/tiny")
    run("download", "owner/reviews", "--dataset")
    tables = Path(datasets.config.HF_DATASETS_CACHE) / "owner___reviews"
    arrow = sum(path.stat().st_size for path in tables.rglob("*") if path.is_file())
    listed = {each["name"]: each for each in map(json.loads, run("cache", "--json")[1])}
    assert listed["owner/tiny"]["kind"] == "model" and listed["owner/reviews"]["kind"] == "data set"
    assert 0 <= listed["owner/tiny"]["bytes"] - total(llama) < 100  # the commit of the branch
    assert arrow > 10_000 and 0 <= listed["owner/reviews"]["bytes"] - len(ROWS) - 4 - arrow < 1000
    assert run("cache", "--remove", "all")[0] == 0 and len(run("cache", "--json")[1]) == 2
    code, _, error = run("cache", "--remove", "owner/tinny")
    assert code == 2 and "owner/tiny" in error
    code, lines, _ = run("cache", "--remove", "owner/reviews", "--json")
    assert json.loads(lines[0]) == {"removed": ["owner/reviews"], "bytes": listed["owner/reviews"]["bytes"]}
    assert not tables.exists() and not cached("*.jsonl")
    assert run("cache", "--remove", "owner/tiny")[1][0].startswith("Removed the model owner/tiny, 44")
    assert run("cache")[1] == ["Nothing is kept."]


def test_what_is_being_downloaded_is_not_removed(run, served):
    work = find(ModelTable(id="owner/tiny"))
    while not cached("*.incomplete"):
        next(work)
    code, _, error = run("cache", "--remove", "owner/tiny")
    assert code == 2 and "'owner/tiny' is being downloaded. Stop that first." in error and cached("*.incomplete")
    work.close()
    assert run("cache", "--remove", "owner/tiny")[0] == 0 and cached("*--*") == []
