"""Data sets from the Hub, with the real client: a sentence for every failure, and a second try that works."""

import errno
import io
import json
import random
import threading
from pathlib import Path

import datasets
import keyring
import pyarrow
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from sparsezo_gui.engine.data import hub_data, load_rows, sources, splits
from sparsezo_gui.engine.data.record import Binary
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.hub_server import STRANGER, TOKEN, datasets_hub, hub

__all__ = ["datasets_hub", "hub"]
JSONL = b"".join(json.dumps({"text": f"text {row}", "label": row % 2}).encode() + b"\n" for row in range(100))


@pytest.fixture
def served(datasets_hub):
    """The Hub, also for `datasets`, with the data set owner/reviews."""
    datasets_hub.add("datasets/owner/reviews", {"README.md": b"# Reviews\n", "data/train.parquet": table()})
    return datasets_hub


def table():
    """Rows of some 200 kB, which nothing has been cached of."""
    letters = random.Random(0)
    texts = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz ", k=60)) for _ in range(4000)]
    out = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts, "label": [row % 2 for row in range(4000)]}), out)
    return out.getvalue()


def load(name="owner/reviews"):
    found = load_rows(DataTable(source=name, train=20, validation=5, test=5))
    return {split: len(rows) for split, rows in found.items()}


def refused(name="owner/reviews"):
    with pytest.raises(UserError) as error:
        load(name)
    assert len(str(error.value)) > 40 and "\n" not in str(error.value)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/data/*"))
    return str(error.value)


ALL = {"train": 20, "validation": 5, "test": 5}


def test_a_data_set_is_fetched_once(served, capfd):
    assert load() == ALL
    assert served.starts() == [None]
    served.asked.clear()
    assert load() == ALL
    assert served.starts() == []
    assert capfd.readouterr() == ("", "")


def test_a_line_that_breaks(served, capfd):
    served.break_after = 1000
    assert "the Hub cannot be reached (peer closed connection" in refused()
    served.break_after = None
    assert load() == ALL
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", [0, 100_000])
def test_a_wrong_content_is_removed_and_told(served, place):
    """Also where it can be read all the same."""
    plain = io.BytesIO()
    parquet.write_table(parquet.read_table(io.BytesIO(table())), plain, compression="none", use_dictionary=False)
    served.add("datasets/owner/reviews", {"README.md": b"# Reviews\n", "data/train.parquet": plain.getvalue()})
    served.wrong, served.wrong_place = True, place
    assert "is damaged: a checksum" in refused()
    assert "a checksum does not match" in refused()  # nothing of the first try was kept
    served.wrong = False
    assert load() == {"train": 20, "validation": 5, "test": 5}


def test_gated(served, monkeypatch):
    served.add("datasets/owner/reviews", {"train.jsonl": JSONL}, gated=True)
    page = f"Accept its terms at {served.endpoint}/datasets/owner/reviews"
    assert page in refused()
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert page in refused()
    monkeypatch.setattr(keyring, "get_password", lambda *_: TOKEN)
    assert load() == ALL


def test_private_or_nowhere(served, monkeypatch):
    served.add("datasets/owner/secret", {"train.jsonl": JSONL}, private=True)
    for name in ("owner/secret", "owner/nothing"):
        assert f"There is no data set '{name}' on the Hub, or it is private" in refused(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load("owner/secret") == ALL


def test_a_token_that_the_hub_does_not_know(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "X" * 34)
    assert "Your token cannot read the data set 'owner/reviews' on the Hub (HTTP 401)" in refused()


def test_offline(served, monkeypatch):
    def offline(yes):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", yes)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", yes)

    offline(True)
    assert "the program is offline (HF_HUB_OFFLINE)" in refused()
    offline(False)
    assert load() == ALL
    offline(True)
    served.asked.clear()
    assert load() == ALL and served.asked == []


def test_a_hub_that_is_busy(served):
    served.failures = 2
    assert load() == ALL


def test_a_hub_that_stays_busy(served):
    served.failures = 1000
    said = refused()
    assert "the Hub cannot be reached (it answers HTTP 500)" in said and "file at" not in said
    served.failures = 0
    assert load() == ALL


def test_configurations(served):
    card = b"---\nconfigs:\n- config_name: one\n  data_files: 1.jsonl\n- config_name: two\n  data_files: 2.jsonl\n---\n"
    served.add("datasets/owner/two", {"README.md": card, "1.jsonl": JSONL, "2.jsonl": JSONL})
    assert "available configs: ['one', 'two']" in refused("owner/two")
    assert "['one', 'two']" in refused("owner/two:three")
    assert load("owner/two:two") == ALL


def test_a_data_set_without_data(served):
    served.add("datasets/owner/empty", {"README.md": b"# Nothing\n"})
    assert "could not be loaded from the Hub" in refused("owner/empty")


def test_a_full_disk():
    error = OSError(errno.ENOSPC, "No space left on device")
    assert "is full. Free some space and start again." in str(hub_data.hub_error("owner/reviews", error))


def test_a_data_set_that_is_read_as_it_comes(served):
    served.add("datasets/owner/text", {"train.jsonl": JSONL})
    part = sources.find("owner/text", stream=True)["train"]
    assert [record.number for record in part()] == list(range(1, 101))
    part = sources.find("owner/text", stream=True)["train"]
    served.repositories.clear()
    with pytest.raises(UserError, match="There is no data set 'owner/text' on the Hub"):
        list(part())


def test_pictures_are_not_opened(served, monkeypatch):
    """Nor is anything asked for that would open them."""
    monkeypatch.setattr(datasets.config, "PIL_AVAILABLE", False)
    features = {"text": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}
    table = pyarrow.table({"text": ["a", "b"] * 40, "image": [{"bytes": b"\x89PNG, broken", "path": None}] * 80})
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(about), file)
    served.add("datasets/owner/pictures", {"README.md": b"# Pictures\n", "data/train.parquet": file.getvalue()})
    rows = load_rows(DataTable(source="owner/pictures", train=20, validation=5, test=5))["train"]
    assert rows[0].values["image"] == {"bytes": Binary(12), "path": None}


def test_a_disk_without_room_is_told(served, monkeypatch):
    def full(*_, **__):
        raise OSError("Not enough disk space. Needed: 5.00 TiB (download: 1.00 TiB, generated: 4.00 TiB)")

    monkeypatch.setattr(datasets, "load_dataset", full)
    assert "does not fit on the disk (Not enough disk space. Needed: 5.00 TiB" in refused()


def test_what_takes_long_tells_that_it_goes_on_and_can_be_left(served, monkeypatch):
    free, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (free.wait(60), ended.set()))
    work = splits.read_rows(DataTable(source="owner/reviews"))
    assert [next(work).stage for _ in range(3)] == ["Reading data"] * 3
    work.close()
    assert not ended.is_set()
    free.set()
    assert ended.wait(60)
