"""No secret in a text that may be pasted somewhere."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui import cli
from sparsezo_gui.engine.runs import listing
from sparsezo_gui.errors import UserError
from sparsezo_gui.gui import problems
from sparsezo_gui.redaction import redacted

LETTERS = string.ascii_letters + string.digits
TOKENS = st.text(LETTERS, min_size=10).map("hf_{}".format)
WORDS = st.text(LETTERS + "._~+-", min_size=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token=hf_abcdefghij1234567890", "token=•••"),
        ("hf_oauth_eyJh.J9-x_y.z0 and more", "••• and more"),
        ("{'authorization': 'Bearer abc.def=='}", "{'authorization': 'Bearer •••'}"),
        ("BEARER  abc", "BEARER •••"),
        ("https://me:pa:ss@host/path", "https://•••@host/path"),
        ("'https:/me:pa:ss@host/a'", "'https:/•••@host/a'"),  # as a path
        (r"'https:\me:pa:ss@host\a'", r"'https:\•••@host\a'"),
        ("https://ghp_secret@host:80/x?mail=a@b", "https://•••@host:80/x?mail=a@b"),
        ("hf_hub_download in hf_api.py at https://huggingface.co/a/b", None),
        ("File 'x.py', line 3, in hf_raise_for_status", None),
        ("", None),
    ],
)
def test_what_is_masked(text, expected):
    assert redacted(text) == (text if expected is None else expected)


@pytest.mark.parametrize("command", ["train {}", "resume {}", "receive {}", "estimate starter --set=model.id={}"])
def test_an_address_in_the_place_of_a_path_is_masked(command, capsys):
    assert cli.main([*command.format("https://me:s3cr3t@host/a").split(), "--json"]) == 2
    assert "s3cr3t" not in "".join(capsys.readouterr())


def test_every_sentence_is_masked():
    assert str(UserError("There is no 'https://me:pa:ss@host/a'.")) == "There is no 'https://•••@host/a'."


@given(st.text(), TOKENS, st.text())
def test_no_token_is_left(before, secret, after):
    assert secret not in redacted(before + secret + after)


@given(st.text(), WORDS, WORDS, st.text())
def test_no_credentials_of_an_address_are_left(before, user, password, after):
    found = redacted(f"{before} https://{user}:{password}@host {after}")
    assert f"{user}:{password}@" not in found and "https://•••@host" in found


@given(WORDS)
def test_no_bearer_is_left(secret):
    assert redacted(f"Authorization: Bearer {secret}\nnext") == "Authorization: Bearer •••\nnext"


@given(st.text())
def test_masking_twice_changes_no_more(text):
    assert redacted(redacted(text)) == redacted(text)


def test_details_of_an_error_hold_no_secret(monkeypatch, capsys, home):
    secret = "hf_" + "S" * 34

    def fail(*_):
        raise RuntimeError(f"GET https://me:word@host with {secret}")

    monkeypatch.setattr(listing, "list_runs", fail)
    assert cli.main(["runs"]) == 1
    [details] = home.rglob("error-*.txt")
    said = capsys.readouterr().err + details.read_text(encoding="utf-8")
    assert secret not in said and "word" not in said and "Traceback" in said
    try:
        fail()
    except RuntimeError as error:
        problem = problems.explain(error, "testing")
    assert secret not in problem.message + problem.details and "word" not in problem.message + problem.details
