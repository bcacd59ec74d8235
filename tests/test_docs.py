"""The documentation: all commands, recipes and programs in it work, generated pages are current, the site is whole.

The pages are followed from top to bottom, in the program, with a tiny model in place of the ones that they name, few
rows and few steps. A fence below a name is that file; `sh` is what a reader types.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keyring
import pytest

from sparsezo_gui import errors, resources
from sparsezo_gui.cli.parser import parser
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.bench import shapes
from sparsezo_gui.engine.hub import download
from sparsezo_gui.recipe import Recipe
from sparsezo_gui.recipe.registry import BY_TABLE
from tests import gguf_files, hub_server
from tests.hub_server import TOKEN, datasets_hub, hub
from tests.models import tiny

__all__ = ["datasets_hub", "hub"]
ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FOR_THE_SOURCE = [ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING")]
PAGES = {path.relative_to(resources.DOCS).as_posix(): path for path in sorted(resources.DOCS.rglob("*.md"))}
FENCE = re.compile(r"(?:^`(\S+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MODEL = "Qwen/Qwen3-0.6B"
ROWS = 40  # of each data file, which the page shows the first of
FEW = ("loop.steps=4", "loop.batch_size=2", "loop.evaluate_every=2", "data.train=16", "data.validation=4",
       "data.test=4", "mask.sequences=2")  # fmt: skip
TINY = (*FEW, f"model.id={MODEL}")
SHORTER = {"--step 200": "--step 2", "my-run@200": "my-run@2", '"loop.steps=100"': ", ".join(map(repr, TINY))}
"""A step that is there in so few."""
TAKE_RECIPE = ("train", "preview", "plan", "estimate", "rates", "noise", "mask")
NOT_OURS = {"pip": "", "ollama": "-f", "llama-server": "-m", "vllm": "serve", "lm_eval": "--model_args",
            "sparsezo-gui": "", "torchrun": "train"}  # fmt: skip
"""Programs that are not run here, and the argument after which each names a file that must be there by then."""
SHORT = {
    "rates": ["--steps", "2"],
    "bench steps": ["--repeats", "1", "--against", "plain"],
    "bench bits": ["--set", f"model.id={MODEL}", "--set", "data.test=4", "--ways", "16 bits"],
}  # fmt: skip
"""What makes other commands short."""
QUICK = ("guides/classify.md",)
NOT_FOLLOWED = ("reference/files.md",)  # tests of the formats run what is in it
FOLLOWED = [name for name in PAGES if name not in NOT_FOLLOWED and FENCE.search(PAGES[name].read_text("utf-8"))]


def slow(pages):
    return [pytest.param(page, marks=() if page in QUICK else pytest.mark.slow) for page in pages]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return tiny("qwen3", tmp_path_factory.mktemp("docs") / "qwen3")


@pytest.fixture
def reader(run, datasets_hub, qwen, tmp_path, monkeypatch):
    """``reader(text)`` follows a page in a folder of its own, with the Hub, a token and a keyring."""
    datasets_hub.add(f"models/{MODEL}", qwen)
    sentences = "".join(json.dumps({"sentence": f"film {i}", "label": i % 2}) + "\n" for i in range(ROWS))
    card = b"---\nconfigs:\n- config_name: sst2\n  data_files: sst2/train.jsonl\n---\n"
    datasets_hub.add("datasets/nyu-mll/glue", {"README.md": card, "sst2/train.jsonl": sentences.encode()})
    monkeypatch.setitem(hub_server.USERS, TOKEN, ("me", "write"))
    monkeypatch.setattr(download, "WAITS", (0.01,) * 5)
    monkeypatch.setattr(sys, "stdin", io.StringIO(TOKEN + "\n"))
    kept = {}
    monkeypatch.setattr(keyring, "get_password", lambda *place: kept.get(place, TOKEN))
    monkeypatch.setattr(keyring, "set_password", lambda *place: kept.__setitem__(place[:2], place[2]))
    monkeypatch.setattr(keyring, "delete_password", lambda *place: kept.clear())
    small = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip
    monkeypatch.setitem(shapes.SHAPES, "llama-135m", small)
    monkeypatch.chdir(tmp_path)
    gguf_files.write(tiny("llama", tmp_path / "chatted"), Path("model.gguf"))

    def follow(text):
        for name, kind, content in FENCE.findall(text):
            for long, short in SHORTER.items():
                content = content.replace(long, short)
            if name:
                Path(name).write_text(content if kind == "toml" else many(content), encoding="utf-8")
            elif kind == "sh":
                for line in content.replace("\\\n", " ").splitlines():
                    for part in line.split(" && "):
                        typed(shlex.split(part, comments=True), run)
            elif kind == "python":
                exec(content, {})

    return follow


def many(rows: str) -> str:
    """A data file of `ROWS` rows that begins with these, all different."""
    header, lines = ("", rows.splitlines()) if rows.startswith("{") else rows.split("\n", 1)
    lines = lines if isinstance(lines, list) else lines.splitlines()
    made = [lines[i % len(lines)].replace(". ", f" {i}. ", 1).replace(".", f" ({i}).", 1) for i in range(ROWS)]
    return "\n".join([*([header] if header else []), *made]) + "\n"


def typed(words: list[str], run) -> None:
    program, *arguments = words
    if program != "sparsezo":
        named = NOT_OURS[program]
        if named and named in arguments:
            assert Path(arguments[arguments.index(named) + 1].removeprefix("pretrained=").split(",")[0]).exists(), words
        return
    name = arguments[0]
    if name in TAKE_RECIPE:
        arguments += [word for each in FEW for word in ("--set", each)]
        if arguments[1] == "starter" and not any(each.startswith("model.id=") for each in arguments):
            arguments += ["--set", f"model.id={MODEL}"]
    arguments += SHORT.get(" ".join(arguments[:2]), SHORT.get(name, []))
    code, lines, error = run(*arguments)
    if "VNNI" in error:  # what a page says of integers is refused where the processor cannot
        assert code == 2 and not devices.has_int8(), (words, error)
        return
    assert code == 0 or (name, code) == ("doctor", 1), (words, error)
    assert lines or error or name == "note", words


@pytest.mark.parametrize("page", slow(FOLLOWED))
def test_whoever_follows_a_page_gets_there(page, reader):
    reader(PAGES[page].read_text(encoding="utf-8"))


def inline(pattern: str) -> list[tuple[str, ...]]:
    """What matches in the code within sentences of all pages, after the page's name."""
    texts = [(path.name, FENCE.sub("", path.read_text(encoding="utf-8"))) for path in (README, *PAGES.values())]
    return [
        (name, *found.groups())
        for name, text in texts
        for code in re.findall(r"`([^`\n]+)`", text)
        if (found := re.match(pattern, code))
    ]


def test_commands_in_sentences_have_these_options():
    (commands,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    found = inline(r"sparsezo ([a-z]+)\b(.*)")
    assert len(found) > 25
    for page, name, rest in found:
        known = commands.choices[name]._option_string_actions
        assert all(option in known for option in re.findall(r"--[a-z-]+", rest)), (page, name, rest)


def test_settings_in_sentences_exist():
    found = inline(r"\[(\w+)\] (\w+)(?: = ([^,]*))?")
    assert len(found) > 25
    for page, table, key, value in found:
        rules = [BY_TABLE[table][rule] for rule in BY_TABLE[table]] if table in BY_TABLE else []
        kinds = rules or [Recipe.model_fields[table].annotation]
        assert any(key in kind.model_fields for kind in kinds), (page, table, key)
        assert key != "rule" or not value or json.loads(value) in BY_TABLE[table], (page, table, value)


def test_messages_that_the_page_on_troubles_explains_are_said():
    """Each quotation of its tables and bold lines, up to every "…", is in the source."""
    parts = [path.read_text(encoding="utf-8") for path in Path(errors.__file__).parent.rglob("*.py")]
    source = re.sub(r"['\"]\s*\n\s*f?['\"]", "", "".join(parts))
    page = PAGES["troubleshooting.md"].read_text(encoding="utf-8")
    quoted = re.findall(r'"([^"\n]+)"', "".join(re.findall(r"^\| .*? \||\*\*.+?\*\*", page, re.MULTILINE)))
    assert len(quoted) > 15
    lost = [part for each in quoted for part in each.split("…") if part.strip(" .") and part.strip(" .") not in source]
    assert not lost


@pytest.fixture(scope="module")
def make_docs():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "packaging" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_what_the_program_says(make_docs):
    for path, text in make_docs.pages():
        assert path.read_text(encoding="utf-8") == text, "write it anew: python packaging/make_docs.py"


def test_links_between_pages_and_to_pictures_lead_somewhere():
    """Whether headings are there, the site tells, and the window's help."""
    for path in (README, *FOR_THE_SOURCE, *PAGES.values()):
        for link in LINK.findall(path.read_text(encoding="utf-8")):
            if "://" not in link and (name := link.split("#")[0]):
                assert (path.parent / name).exists(), (path.name, link)


def test_pictures_are_small():
    pictures = list((resources.DOCS / "screenshots").iterdir())
    assert len(pictures) == 12 and sum(path.stat().st_size for path in pictures) < 600_000


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "guides" / "classify.html").is_file()
