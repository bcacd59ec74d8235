"""Exports uploaded to the Hub, with the real client."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from sparsezo_gui.engine.export.push import push
from sparsezo_gui.errors import UserError
from sparsezo_gui.formats import export_formats
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.registry import SPACES
from tests.engine.conftest import finish
from tests.engine.export.test_export_run import finished
from tests.hub_server import PIECE, READER, STRANGER, TOKEN, hub
from tests.models import tiny

__all__ = ["hub"]
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # the client's own
NAME = "owner/mine"
WEIGHTS = {name: bytes([number]) * 60_000 for number, name in enumerate(("a.safetensors", "b.safetensors"))}


@pytest.fixture
def served(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's tries
    return hub


@pytest.fixture
def export(tmp_path):
    """What an export could be: a card, a config, two files of weights."""
    folder = tmp_path / "my model"
    folder.mkdir()
    files = {"README.md": b"---\nlicense: mit\n---\n# mine\n", "config.json": b"{}", **WEIGHTS}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return finished("llama", tmp_path_factory.mktemp("run"))


def on_hub(served, name=NAME):
    files = served.repositories[f"models/{name}"].files
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(run, *arguments):
    code, lines, error = run("push", *arguments)
    assert code == 2 and not lines
    return error


def test_a_folder_is_uploaded_private_and_with_one_commit(run, served, export):
    code, lines, error = run("push", export, NAME, "--json")
    total = sum(map(len, files_of(export).values()))
    assert (code, error) == (0, "")
    address = f"{served.endpoint}/{NAME}"
    pushed = {"id": NAME, "address": address, "private": True, "bytes": total}
    assert json.loads(lines[0]) == {"pushed": pushed}
    assert on_hub(served) == files_of(export) and served.repositories[f"models/{NAME}"].private
    assert sum("/commit/" in each.path for each in served.asked) == 1
    assert {each.token for each in served.asked} == {TOKEN}


def test_public_only_when_asked_and_for_an_organisation(run, served, export):
    code, lines, _ = run("push", export, "team/mine", "--public")
    assert code == 0 and lines == [f"Uploaded 117 KiB to {served.endpoint}/team/mine; everybody can see it."]
    assert not served.repositories["models/team/mine"].private


def test_what_was_sent_before_a_break_is_not_sent_again(run, served, export):
    """The first file arrives, the second one breaks again and again; nothing is visible, and the next try sends it."""
    hashes = [hashlib.sha256(content).hexdigest() for content in WEIGHTS.values()]
    work = push(export, NAME)
    while not served.stored:
        next(work)
    work.close()
    served.hang_up_after = 2 * PIECE
    error = refused(run, export, NAME)
    assert "the Hub cannot be reached" in error
    assert f"complete. To continue: sparsezo push '{export}' {NAME}" in error
    assert list(served.stored) == hashes[:1] and on_hub(served) == {}
    served.hang_up_after = None
    served.sent.clear()
    assert run("push", export, NAME)[0] == 0
    assert served.sent == hashes[1:] and on_hub(served) == files_of(export)


def test_ctrl_c_says_how_to_continue(run, served, export, monkeypatch):
    def interrupted(*_, **__):
        yield Progress("Uploading", 1, 2, "bytes")
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsezo_gui.engine.export.push._upload", interrupted)
    code, _, error = run("push", export, NAME)
    assert code == 130 and f"To continue: sparsezo push '{export}' {NAME}" in error and on_hub(served) == {}
    monkeypatch.undo()


def test_without_a_token(run, served, export, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert f"create a token with write access at {served.endpoint}/settings/tokens" in refused(run, export, NAME)
    assert served.asked == []


@pytest.mark.parametrize(
    ("token", "name", "sentence"),
    [
        (READER, NAME, "Your token can only read."),
        (STRANGER, NAME, "You are 'stranger' on the Hub and cannot write to 'owner'."),
        (TOKEN, "google/mine", "You are 'owner' on the Hub and cannot write to 'google'."),
        ("hf_" + "X" * 34, NAME, "The Hub does not accept your token (HTTP 401)."),
        (TOKEN, "mine", "'mine' cannot be a name on the Hub. Write OWNER/NAME"),
        (TOKEN, "owner/../x", "cannot be a name on the Hub"),
    ],
    ids=["reader", "stranger", "other owner", "unknown token", "no owner", "no name"],
)
def test_without_a_right(run, served, export, monkeypatch, token, name, sentence):
    monkeypatch.setenv("HF_TOKEN", token)
    error = refused(run, export, name)
    assert sentence in error and "XXXX" not in error
    assert served.repositories == {}


def test_a_name_that_is_taken(run, served, export):
    served.add(f"models/{NAME}", {"README.md": b"mine"})
    assert f"'{NAME}' exists on the Hub already. Choose another name, or delete it at" in refused(run, export, NAME)
    assert on_hub(served) == {"README.md": b"mine"}


def test_an_empty_public_repository_needs_public(run, served, export):
    served.add(f"models/{NAME}", {".gitattributes": b""})
    assert "is public. Choose another name, or add --public." in refused(run, export, NAME)
    assert run("push", export, NAME, "--public")[0] == 0 and on_hub(served) == files_of(export)


def test_no_network(run, served, export, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    error = refused(run, export, NAME)
    assert "the Hub cannot be reached ([Errno" in error and "is complete. To continue: sparsezo push" in error
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "The program is offline (HF_HUB_OFFLINE)" in refused(run, export, NAME)


def test_a_card_that_the_hub_refuses(run, served, export):
    served.refuses = '"license" must be one of'
    error = refused(run, export, NAME)
    assert f"The Hub refuses '{NAME}': Invalid metadata in README.md. - \"license\" must be one of" in error


def test_a_file_that_cannot_be_read(run, served, export, monkeypatch):
    opened = io.FileIO

    def denied(path, *more):
        if Path(path).name == "config.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *more)

    monkeypatch.setattr(io, "FileIO", denied)
    assert f"{export / 'config.json'}: cannot be read (Permission denied)." in refused(run, export, NAME)
    assert on_hub(served) == {}


def test_what_is_no_export(run, served, export, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"x")
    (export / "README.md").unlink()
    assert "is no exported model: it has no README.md" in refused(run, export, NAME)
    assert "There is no file or folder" in refused(run, tmp_path / "nothing", NAME)
    assert "the name of such a file ends in .safetensors" in refused(run, tmp_path / "x.bin", NAME)
    assert served.asked == []


def test_a_file_whose_name_does_not_say_what_it_is_is_told_before_the_work(run, served, trained, tmp_path):
    code, _, error = run("export", trained, "--format", "overlay", "--out", tmp_path / "mine", "--push", NAME)
    assert code == 2 and f"Set --out {tmp_path / 'mine.safetensors'}." in error
    assert not (tmp_path / "mine").exists() and served.repositories == {}


def test_what_is_hidden_stays_here(run, served, export):
    (export / ".git").mkdir()
    (export / ".git" / "config").write_text("secret")
    (export / ".env").write_text("TOKEN=secret")
    assert run("push", export, NAME)[0] == 0
    assert not [name for name in on_hub(served) if name.startswith((".git/", ".env"))]


SPACE = SPACES[Recipe(mask={"rule": "random"}).mask.space]


@pytest.mark.parametrize("form", [name for name, form in export_formats().items() if not form.refusal(SPACE)])
def test_every_format_is_exported_and_uploaded_with_its_card(run, served, trained, tmp_path, form, monkeypatch):
    out = tmp_path / f"out{export_formats()[form].suffix}"
    code, lines, _ = run("export", trained, "--format", form, "--out", out, "--push", NAME, "--json")
    assert code == 0 and json.loads(lines[-1])["pushed"]["private"]
    found = on_hub(served)
    card = ModelCard(found["README.md"].decode())
    assert "sparsezo" in card.data.tags and "sparsezo train recipe.toml" in card.text
    assert {result.metric_type for result in card.data.eval_results} >= {"accuracy"}
    assert found[out.name] == out.read_bytes() if out.is_file() else found == files_of(out)


def test_an_export_asks_the_hub_before_it_begins(run, served, trained, tmp_path, monkeypatch):
    served.add(f"models/{NAME}", {"README.md": b"mine"})
    code, _, error = run("export", trained, "--out", tmp_path / "out", "--push", NAME)
    assert code == 2 and "exists on the Hub already" in error and not (tmp_path / "out").exists()
    code, _, error = run("export", trained, "--out", tmp_path / "out", "--public")
    assert code == 2 and "--public needs --push OWNER/NAME." in error


def test_a_download_of_what_was_uploaded_is_the_same(served, tmp_path):
    """There and back, also as a base model for tuning."""
    from sparsezo_gui.engine.hub.cache import find
    from sparsezo_gui.recipe.recipe import ModelTable

    folder = tiny("llama", tmp_path / "llama")
    (folder / "README.md").write_text("# tiny\n")
    finish(push(folder, NAME))
    found = finish(find(ModelTable(id=NAME))).folder
    assert files_of(found) == files_of(folder)


def test_an_upload_shows_its_bytes_and_can_be_closed(hub, export, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.slow = 0.02
    shown = []
    work = push(export, NAME)
    for event in work:
        shown.append(event.done)
        if event.done > 5 * PIECE:
            break
    work.close()
    hub.slow = 0.0
    assert len(set(shown)) > 2 and not hub.stored and on_hub(hub) == {}
    with pytest.raises(UserError):
        finish(push(export / "nothing", NAME))
