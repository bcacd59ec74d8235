"""Models from the Hub, with the real client: whatever happens on the way, nothing is lost and nothing wrong is kept."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import filelock
import httpx2
import huggingface_hub
import keyring
import pytest
from huggingface_hub import constants
from huggingface_hub import errors as client

from sparsezo_gui.engine.hub import download, library
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.hub.search import search_hub
from sparsezo_gui.engine.planning import preview_examples
from sparsezo_gui.engine.pretrained import consent
from sparsezo_gui.engine.pretrained.source import SINGLE
from sparsezo_gui.errors import ConsentNeeded, UserError
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Example
from sparsezo_gui.recipe.recipe import ModelTable
from tests.engine.conftest import finish
from tests.hub_server import PIECE, STRANGER, TOKEN
from tests.models import tiny
from tests.own_code import own_code

TABLE = ModelTable(id="owner/tiny")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model with one weight file of some 400 kB."""
    return tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def served(hub, llama, monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.01,) * 5)
    hub.add("models/owner/tiny", llama)
    return hub


def cached(pattern):
    return sorted(Path(constants.HF_HUB_CACHE).rglob(pattern))


def test_more_chat_templates_come_along_and_nothing_else_from_folders(served, llama):
    files = {f"{folder}/x.jinja": b"{{ tools }}" for folder in ("additional_chat_templates", "other", "a/additional")}
    repository = served.repositories["models/owner/tiny"]
    served.repositories["models/owner/tiny"] = replace(repository, files={**repository.files, **files})
    folder = finish(find(TABLE)).folder
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("x.jinja")) == [
        "additional_chat_templates/x.jinja"
    ]


def size(llama):
    return (llama / SINGLE).stat().st_size


def refused(table=TABLE):
    with pytest.raises(UserError) as error:
        finish(find(table))
    assert len(str(error.value)) > 40 and "\n" not in str(error.value)
    return str(error.value)


def stop_at(count):
    """Begins a download, and closes it once ``count`` bytes of the weights are there; tells what it told."""
    told = []
    work = find(TABLE)
    for event in work:
        told.append(event)
        if event.unit == "bytes" and sum(path.stat().st_size for path in cached("*.incomplete")) >= count:
            break
    work.close()
    return told


def test_a_tokenizer_comes_without_the_weights(served, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t {index},{'ab'[index % 2]}\n" for index in range(20)))
    recipe = Recipe(model=TABLE, data={"source": str(tmp_path / "a.csv")})
    events = list(preview_examples(recipe, "train", 3))
    assert sum(isinstance(event, Example) for event in events) == 3
    assert cached("tokenizer.json") and not cached("*.safetensors")


def test_a_download_tells_its_bytes_and_comes_second_from_the_cache(served, llama):
    told, work = [], find(TABLE)
    try:
        while True:
            told.append(next(work))
    except StopIteration as end:
        found = end.value
    total = sum(path.stat().st_size for path in llama.iterdir())
    done = [event.done for event in told if event.unit == "bytes"]
    assert done == sorted(done) and done[-1] == total == told[-1].total
    assert found.folder.parent.name == "snapshots" and found.revision == found.folder.name
    assert {path.name for path in found.folder.iterdir()} == {path.name for path in llama.iterdir()}
    assert all(path.read_bytes() == (llama / path.name).read_bytes() for path in found.folder.iterdir())
    assert served.names()[-1] == SINGLE and served.starts() == [0]
    served.asked.clear()
    assert finish(find(TABLE)).folder == found.folder
    assert served.asked == [] and cached("*.incomplete") == []


def test_the_clients_own_functions_find_what_was_fetched(served):
    folder = finish(find(TABLE)).folder
    served.asked.clear()
    assert huggingface_hub.snapshot_download(TABLE.id, local_files_only=True) == str(folder)
    assert huggingface_hub.hf_hub_download(TABLE.id, SINGLE) == str(folder / SINGLE)
    assert served.names() == []
    [repository] = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert [sorted(each.refs) for each in repository.revisions] == [["main"]]


def test_a_revision_is_noted_in_the_cache_only(served, tmp_path):
    snapshot = download.Snapshot("owner/tiny", "abc")
    for revision in (str(tmp_path / "outside"), "../../outside"):
        snapshot.note(revision)
    assert not list(tmp_path.rglob("outside")) and cached("outside") == []
    snapshot.note("feature/one")
    assert (snapshot.storage / "refs" / "feature" / "one").read_text() == "abc"


def test_a_new_commit_fetches_only_what_changed(served, llama):
    finish(find(TABLE))
    files = served.repositories["models/owner/tiny"].files
    served.add("models/owner/tiny", {**files, "README.md": b"Better words."})
    commit = served.repositories["models/owner/tiny"].commit
    served.asked.clear()
    assert finish(find(TABLE.model_copy(update={"revision": commit}))).revision == commit
    assert served.names() == ["README.md"]


def test_a_line_that_breaks_again_and_again_costs_no_byte(served, llama):
    served.break_after = 100_000
    assert finish(find(TABLE)).spec.layers == 2
    assert served.starts() == list(range(0, size(llama), 100_000))


def test_a_dead_line_is_told_and_the_next_try_fetches_only_the_rest(served, llama):
    served.slow = 0.01
    stop_at(150_000)
    served.break_after = 0
    assert "the Hub cannot be reached" in refused()
    [part] = cached("*.incomplete")
    have = part.stat().st_size
    assert have >= 150_000 and have % PIECE == 0
    assert not [path for path in cached("blobs/*") if len(path.name) == 64]
    served.break_after, served.slow = None, 0.0
    served.asked.clear()
    finish(find(TABLE))
    assert served.starts() == [have] and served.names() == [SINGLE]


def test_closing_stops_a_slow_download_at_once_and_keeps_what_came(served, llama):
    served.slow = 0.02
    before = {thread.name.partition("-")[0] for thread in threading.enumerate()}
    told, work = [], find(TABLE)
    while not told or told[-1].done < 20 * PIECE:
        told.append(next(work))
    work.close()
    # Those of the server alone have come.
    assert {thread.name.partition("-")[0] for thread in threading.enumerate()} - before <= {"hub", "Thread"}
    assert len({event.done for event in told}) > 3
    [part] = cached("*.incomplete")
    have = part.stat().st_size
    assert 10 * PIECE <= have < size(llama) / 2 and not cached(f"snapshots/*/{SINGLE}")
    served.slow = 0.0
    served.asked.clear()
    finish(find(TABLE))
    assert served.starts() == [have]


def test_a_wrong_content_is_removed_and_told(served):
    served.wrong = True
    assert f"'{SINGLE}' of 'owner/tiny' was damaged during download" in refused()
    assert not cached("*.incomplete") and not cached(f"snapshots/*/{SINGLE}")
    served.wrong = False
    finish(find(TABLE))
    assert served.starts() == [0, 0]


def test_a_content_without_end_is_not_received(served, monkeypatch):
    received, check = [], download._is_right
    monkeypatch.setattr(
        download, "_is_right", lambda part, file: received.append(_over(part, file)) or check(part, file)
    )
    served.more = 2**24
    assert "was damaged during download" in refused()
    assert 0 < max(received) < 2**20 and not cached("*.incomplete")


def _over(part, file):
    return part.stat().st_size - file.size


def test_a_wrong_beginning_from_an_earlier_try_is_found(served, llama):
    finish(find(TABLE))
    blob = (cached(f"snapshots/*/{SINGLE}")[0]).resolve()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(b"x" * 1000)
    blob.unlink()
    assert "was damaged" in refused()
    finish(find(TABLE))
    assert served.starts() == [0, 1000, 0]


def test_a_server_without_ranges_begins_anew(served, llama, monkeypatch):
    stop_at(1)
    monkeypatch.setattr(served, "ranges", False)
    finish(find(TABLE))
    assert (cached(f"snapshots/*/{SINGLE}")[0]).read_bytes() == (llama / SINGLE).read_bytes()


def test_a_busy_hub_is_asked_again(served):
    served.failures = 3
    assert finish(find(TABLE)).spec.layers == 2
    assert served.failures == 0


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_stays_busy(served, status):
    served.failures, served.status = 1000, status
    assert f"the Hub cannot be reached (it answers HTTP {status})" in refused()
    served.failures = 0
    finish(find(TABLE))


def test_no_connection(served, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    assert "the Hub cannot be reached ([Errno" in refused()


def test_the_sign_in_page_of_a_network(served, monkeypatch):
    def page(*_, **__):
        raise json.JSONDecodeError("Expecting value", "<html>", 0)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", page)
    assert "the sign-in page of a network" in refused()


def test_gated(served, llama, monkeypatch):
    served.add("models/owner/tiny", llama, gated=True)
    page = f"Accept its terms at {served.endpoint}/owner/tiny"
    assert page in refused()
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert page in refused()
    assert cached("blobs/*") == []
    monkeypatch.setattr(keyring, "get_password", lambda *_: TOKEN)  # goes before the variable
    served.asked.clear()
    finish(find(TABLE))
    assert {each.token for each in served.asked if not each.path.startswith("/cdn/")} == {TOKEN}
    assert {each.token for each in served.asked if each.path.startswith("/cdn/")} == {""}  # another origin


def test_private_or_nowhere(served, llama, monkeypatch):
    served.add("models/owner/secret", llama, private=True)
    table = ModelTable(id="owner/secret")
    for name in ("owner/secret", "owner/nothing"):
        assert f"There is no model '{name}' on the Hub, or it is private" in refused(ModelTable(id=name))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    finish(find(table))


def test_a_token_that_the_hub_does_not_know(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "X" * 34)
    said = refused()
    assert "Your token cannot read the model 'owner/tiny' on the Hub (HTTP 401)" in said and "XXXX" not in said


def test_an_unknown_revision(served):
    assert "lacks this revision. Use 'main'" in refused(ModelTable(id="owner/tiny", revision="v9"))


def test_offline(served, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the program is offline (HF_HUB_OFFLINE)" in refused()
    assert served.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = finish(find(TABLE)).folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    served.asked.clear()
    assert finish(find(TABLE)).folder == folder and served.asked == []


def test_a_full_disk(served, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(download, "open", Full, raising=False)
    assert "is full. Free some space and start again; what was downloaded is kept." in refused()
    monkeypatch.delattr(download, "open")
    served.asked.clear()
    finish(find(TABLE))
    assert served.starts()[0] > 100_000


def test_a_disk_too_small(served, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert "KiB are free" in refused()
    assert served.names() == []


def test_one_download_of_a_file_at_a_time(served):
    stop_at(1)
    [lock] = [path for path in cached(".locks/*/*.lock") if cached(f"blobs/{path.stem}.incomplete")]
    with filelock.FileLock(lock):
        assert "is being downloaded by another program" in refused()
    finish(find(TABLE))


def test_where_links_are_forbidden(served, monkeypatch):
    def forbidden(*_, **__):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", forbidden)
    folder = finish(find(TABLE)).folder
    assert not any(path.is_symlink() for path in folder.iterdir())
    served.asked.clear()
    assert finish(find(TABLE)).folder == folder and served.asked == []


def test_a_useless_model_is_refused_before_its_weights_are_fetched(served, llama):
    config = json.loads((llama / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    files = served.repositories["models/owner/tiny"].files
    served.add("models/owner/tiny", {**files, "config.json": json.dumps(config).encode()})
    assert "'owner/tiny' on the Hub: its weights are stored in the 'gptq' format" in refused()
    assert served.starts() == []


def test_code_is_fetched_and_asked_about_before_the_weights(served, tmp_path):
    folder, marker = own_code(tmp_path / "own", tmp_path / "marker"), tmp_path / "marker"
    served.add("models/owner/own", {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    table = ModelTable(id="owner/own", trust_remote_code=True)
    assert "'configuration_own.py' is missing" in library.summary(table).problem
    with pytest.raises(ConsentNeeded) as needed:
        finish(find(table))
    assert needed.value.code.commit == served.repositories["models/owner/own"].commit
    assert SINGLE not in served.names() and not marker.exists()
    consent.give(needed.value.code)
    assert finish(find(table)).code is not None and marker.exists()
    served.asked.clear()
    assert finish(find(table)).code is not None and served.asked == []


def test_code_that_was_not_needed_is_fetched_once_it_is(served, tmp_path):
    folder, marker = own_code(tmp_path / "own", tmp_path / "marker", "llama"), tmp_path / "marker"
    served.add("models/owner/own", {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    assert finish(find(ModelTable(id="owner/own"))).code is None and not cached("*.py")
    with pytest.raises(ConsentNeeded) as needed:
        finish(find(ModelTable(id="owner/own", trust_remote_code=True)))
    assert "modeling_own.py" in needed.value.code.files and not marker.exists()


def test_models_without_safetensors(served):
    files = dict(served.repositories["models/owner/tiny"].files)
    del files[SINGLE]
    served.add("models/owner/tiny", files)
    assert "no safetensors weights" in refused()
    del files["config.json"]
    served.add("models/owner/tiny", files)
    assert "contains a tokenizer without a model" in refused()


def test_what_is_left_on_the_hub(served):
    files = served.repositories["models/owner/tiny"].files
    more = ("pytorch_model.bin", "own.py", "onnx/model.onnx", "model-00001-of-00002.safetensors", "..\\evil.json",
            "C:evil.json", "adapter_config.json")  # fmt: skip
    served.add("models/owner/tiny", {**files, **dict.fromkeys(more, b"{}")})
    finish(find(TABLE))
    assert sorted(served.names()) == sorted(files)


def test_the_hub_asked_for_a_summary_and_a_list(served, llama, monkeypatch):
    served.add("models/owner/tiny", llama, gated=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    found = library.summary("owner/tiny")
    assert (found.kind, found.gated, found.problem, found.bytes) == ("hub", True, "", size(llama))
    assert [model.id for model in search_hub("tiny")] == ["owner/tiny"]
    assert {each.token for each in served.asked} == {TOKEN}


@pytest.mark.slow
def test_the_program_is_killed_while_it_downloads_and_goes_on(hub, llama, tmp_path):
    hub.add("models/owner/tiny", llama)
    rows = b"".join(b'{"text": "film %d", "label": "%s"}\n' % (row, (b"no", b"yes")[row % 2]) for row in range(40))
    hub.add("datasets/owner/reviews", {"train.jsonl": rows})
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[model]\nid = "owner/tiny"\n[data]\nsource = "owner/reviews"\ntemplate = "{{ text }} is it?"\n'
        'columns = { answer = "label" }\ntrain = 20\nvalidation = 8\ntest = 8\n[mask]\nrule = "random"\n'
        "[loop]\nsteps = 2\nbatch_size = 2\nevaluate_every = 0\n"
    )
    command = [sys.executable, "-m", "sparsezo_gui.cli", "train", recipe, "--json"]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": constants.HF_HOME, "HF_HUB_OFFLINE": "0"}
    hub.slow = 0.05
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as program:
        while program.poll() is None and not any(path.stat().st_size > 50_000 for path in cached("*.incomplete")):
            time.sleep(0.01)
        program.kill()
    hub.slow = 0.0
    hub.asked.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["reason"] == "done"
    assert hub.starts()[0] > 50_000
    # Nothing but the model and the data set was asked for: no telemetry.
    assert all("owner/tiny" in each.path or "owner/reviews" in each.path for each in hub.asked)


def response(status, code=None):
    request = httpx2.Request("GET", "https://huggingface.co/api/models/nobody/nothing")
    return httpx2.Response(status, headers={"X-Error-Code": code} if code else {}, request=request)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (client.DisabledRepoError("403", response=response(403)), "was disabled"),
        (client.HfHubHTTPError("403", response=response(403)), r"Your token cannot read .* \(HTTP 403\)"),
        (httpx2.ConnectError("[Errno -2] Name or service not known"), "cannot be reached .*Name or service"),
        (httpx2.ReadTimeout("timed out"), r"cannot be reached \(timed out\)"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk .* is full"),
        (PermissionError(errno.EACCES, "Permission denied", "blobs/1"), r"blobs/1: cannot be written \(Permission den"),
    ],
)
def test_what_else_the_client_may_raise(hub, error, sentence, monkeypatch):
    def answer(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    with pytest.raises(UserError, match=sentence):
        finish(find(ModelTable(id="nobody/nothing")))
