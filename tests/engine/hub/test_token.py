"""The Hub token in the keyring, and the command that keeps it there."""

from __future__ import annotations

import io
import json

import keyring
import pytest
from huggingface_hub import constants
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, NoKeyringError, PasswordDeleteError

from sparsezo_gui import cli
from sparsezo_gui.engine.hub import token
from sparsezo_gui.errors import UserError

OURS, THEIRS = "hf_" + "O" * 30 + "ours", "hf_" + "T" * 28 + "theirs"


class Fake(KeyringBackend):
    """A keyring in memory; ``fault`` is raised by each call."""

    priority = 0

    def __init__(self):
        super().__init__()
        self.kept, self.fault = {}, None

    def get_password(self, service, username):
        self._fail()
        return self.kept.get((service, username))

    def set_password(self, service, username, password):
        self._fail()
        self.kept[service, username] = password

    def delete_password(self, service, username):
        self._fail()
        if (service, username) not in self.kept:
            raise PasswordDeleteError("not found")
        del self.kept[service, username]

    def _fail(self):
        if self.fault is not None:
            raise self.fault


@pytest.fixture(autouse=True)
def ring(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    before = keyring.get_keyring()
    fake = Fake()
    keyring.set_keyring(fake)
    yield fake
    keyring.set_keyring(before)


@pytest.fixture
def run(capsys, monkeypatch):
    """``run(*arguments, typed='')``: exit code, standard output, standard error."""

    def call(*arguments, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = cli.main(["token", *arguments])
        return code, *capsys.readouterr()

    return call


def test_ours_goes_before_what_the_client_finds(ring, tmp_path, monkeypatch):
    assert token.token() is None
    (tmp_path / "token").write_text(THEIRS)
    assert token.found() == (THEIRS, "'hf auth login'")
    monkeypatch.setenv("HF_TOKEN", THEIRS)
    assert token.found() == (THEIRS, "the variable HF_TOKEN")
    token.keep(OURS)
    assert token.found() == (OURS, "the system's keyring")
    assert ring.kept == {("sparsezo", "huggingface"): OURS}
    assert token.forget() and not token.forget()
    assert token.token() == THEIRS
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert token.token() is None


@pytest.mark.parametrize("text", ["", "hf_", "secret", "hf_short", "hf_" + "a" * 30 + " b", "hf_" + "ä" * 30,
                                  "Bearer hf_" + "a" * 30, "hf_" + "a" * 30 + "\r\nX: y"])  # fmt: skip
def test_what_is_no_token(text, ring):
    with pytest.raises(UserError, match="starts with 'hf_'") as error:
        token.keep(text)
    assert ring.kept == {} and (not text or text not in str(error.value).replace("'hf_'", ""))


@pytest.mark.parametrize("text", [OURS, "hf_oauth_eyJhbGciOi.J9-x_y.z0", "hf_jwt_abc.def"])
def test_what_is_a_token(text):
    token.keep(text)
    assert token.token() == text


@pytest.mark.parametrize("fault", [NoKeyringError("No recommended backend was available."), KeyringLocked("Locked"),
                                   OSError("no bus"), RuntimeError()])  # fmt: skip
def test_a_keyring_that_fails(fault, ring, monkeypatch):
    ring.fault = fault
    assert token.token() is None
    monkeypatch.setenv("HF_TOKEN", THEIRS)
    assert token.token() == THEIRS
    for call in (lambda: token.keep(OURS), token.forget):
        with pytest.raises(UserError, match=r"keyring of this system cannot be used \(.+\). Unlock it") as error:
            call()
        assert OURS not in str(error.value)


def test_a_keyring_that_keeps_nothing(ring, monkeypatch):
    monkeypatch.setattr(ring, "set_password", lambda *_: None)
    with pytest.raises(UserError, match="it does not keep the token"):
        token.keep(OURS)


def test_the_command(run):
    assert run("show") == (0, "No token. Public models do not need one.\n", "")
    code, out, error = run("keep", typed=f"{OURS}\n")
    assert (code, error) == (0, "") and OURS not in out and token.token() == OURS
    assert run("show") == (0, "The token ends in …ours and comes from the system's keyring.\n", "")
    assert json.loads(run("show", "--json")[1]) == {"token": "…ours", "from": "the system's keyring"}
    assert run("forget")[:2] == (0, "Token removed.\n")
    assert run("forget")[:2] == (0, "The keyring has no token from SparseZO.\n")
    assert json.loads(run("show", "--json")[1]) == {"token": None, "from": None}
    code, out, error = run("keep", typed="")
    assert (code, out) == (2, "") and "starts with 'hf_'" in error


def test_a_terminal_shows_no_token(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    asked = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or f" {OURS} ")
    monkeypatch.setattr("sys.stdin", Terminal())
    assert cli.main(["token", "keep"]) == 0
    assert asked == ["Token (hidden as you type): "] and token.token() == OURS


def test_no_token_on_the_command_line(capsys):
    assert cli.main(["token", "keep", OURS]) == 2
    assert OURS not in capsys.readouterr().err
