"""What is shown on a terminal steers none, however it came into the program."""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsezo_gui import cli, plain
from sparsezo_gui.console import Console
from sparsezo_gui.engine.runs import listing
from sparsezo_gui.plain import printable, quoted_plain, readable
from sparsezo_gui.recipe import Recipe, dump, loads
from sparsezo_gui.recipe import events as e
from tests import hostile
from tests.hostile import NAME, SHOWN, STEERS, TEXT


@given(st.text())
def test_what_is_escaped(text):
    assert printable(text).isprintable()
    assert not STEERS.search(readable(text))
    assert all(unicodedata.category(sign) in ("Cc", "Cf", "Cs") for sign in text if sign not in readable(text))
    assert json.loads(quoted_plain(json.dumps(text, ensure_ascii=False))) == text
    assert not STEERS.search(quoted_plain(json.dumps(text, ensure_ascii=False)))


def test_a_recipe_is_written_without_what_steers():
    recipe = Recipe(run={"name": NAME[:80]}, data={"template": TEXT, "columns": {NAME: TEXT}})
    assert loads(dump(recipe), "recipe") == recipe
    assert not STEERS.search(dump(recipe))


def test_text_of_any_script_is_left_alone():
    text = "two\n\tlines, שלום\u200f!, \u2067עברית\u2069, می\u200cخواهم, 👩\u200d🔬, a\u00a0b"
    assert readable(text) == text
    assert printable("gnp\u202e\u200b.exe\n") == r"gnp\u202e\u200b.exe\n"


def test_an_escape_in_pieces_is_escaped():
    out = io.StringIO()
    for sign in "a\x1b]0;owned\x07\nb":
        plain.PlainStream(out).write(sign)
    assert out.getvalue() == "a\\x1b]0;owned\\x07\nb"


@pytest.fixture
def run(capsys):
    """``run(*arguments)``: what a command writes, output and errors, which must be plain."""

    def call(*arguments, code=0):
        try:
            ended = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            ended = end.code
        out, error = capsys.readouterr()
        assert ended == code, out + error
        assert not STEERS.search(out + error), arguments
        return out + error

    return call


def test_no_command_lets_a_strangers_text_through(run, home, tmp_path):
    path = hostile.recipe(tmp_path)
    folder = hostile.run(home / "runs", path).path
    assert "<b>bold<i><img" in run("runs") and SHOWN in run("runs", "--json").replace('\\"', '"')
    assert "שלום\u200f, می\u200cخواهم" in run("note", folder), "a text keeps the marks that its letters need"
    assert SHOWN in run("generate", folder, "--prompt", "a", "--tokens", 3)
    assert SHOWN in json.loads(run("generate", folder, "--prompt", "a", "--tokens", 3, "--json"))["text"]
    assert SHOWN in run("share", folder, "--out", tmp_path / f"{NAME}.zip")
    assert SHOWN in run("branch", folder, "--step", 1, "--name", NAME)
    for arguments in (
        ("train", path, "--run", folder), ("evaluate", path, "--set", f"data.source={NAME}"),
        ("estimate", tmp_path / NAME / "none.toml"), ("estimate", path, "--set", f"update.rule={NAME}"),
        ("estimate", path, "--set", f"{NAME}=1"), ("verify", NAME), ("resume", folder, "--step", NAME), ("runs", NAME),
        ("evaluate", folder, "--split", NAME), (NAME,), ("receive", tmp_path / f"{NAME}.jsonl"),
        ("bench", "--shape", NAME), ("bench", "quality", "--tasks", NAME), ("estimate", "x" * 300 + NAME),
    ):  # fmt: skip
        assert "bold" in run(*arguments, code=2), arguments


def test_a_defect_with_a_strangers_text_in_it(run, monkeypatch):
    def fail(*_):
        raise ValueError(TEXT)

    monkeypatch.setattr(listing, "list_runs", fail)
    assert SHOWN in run("runs", code=1)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals of this kind")
@pytest.mark.parametrize("as_json", [False, True])
def test_no_event_steers_a_terminal(monkeypatch, as_json):
    """With a terminal there are bars and tables, which may move the cursor: no more comes through than they need."""

    def written(name, text):
        kept, other = os.openpty()
        with open(other, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            for stream in ("stdout", "stderr"):
                patch.setattr(sys, stream, terminal)
            patch.setenv("TERM", "xterm")
            with plain.streams():
                console = Console(as_json)
                for event in (
                    e.Progress(name, 1, 2, name), e.Notice(text), e.Step(1, 1.0, 1.0, 1.0, 1.0, 1, 1), e.Notice(text),
                    e.Evaluation(1, name, {name: 1.0}), e.Started(name, name, 1, 1, 1, 1, 1, name),
                    e.Finished(1, name, ""),
                ):  # fmt: skip
                    console.event(event)
                console.table([{"name": name}], ["name"], "")
                console.result({"name": name}, text)
                print(text, file=sys.stderr)
                console.end_progress()
        content = b""
        while True:
            try:
                if not (block := os.read(kept, 65536)):
                    break
            except OSError:  # Linux says so when the other side is closed
                break
            content += block
        os.close(kept)
        return content.decode()

    ours = written("name", "text")
    strangers = written("name \x1b]0;owned\x07\x1b[2J\x9b31m [bold]x[/bold] :fire:", f"text {TEXT}")
    assert set(STEERS.findall(strangers)) == set(STEERS.findall(ours)), "rich moves the cursor, and no one else"
    assert not any(sign in strangers for sign in ("\x1b]0;", "\x1b[2J", "\x9b", "\x07", "\u202e"))
    assert "🔥" not in strangers
    if not as_json:
        assert "[bold]x[/bold] :fire:" in strangers
