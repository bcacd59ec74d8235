"""What tuning costs on general text: the numbers against plain transformers, and when a run tells them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparsezo_gui import cli, resources
from sparsezo_gui.engine import training
from sparsezo_gui.engine.general import compared, general_text, perplexity
from sparsezo_gui.engine.loop import evaluation
from sparsezo_gui.engine.runs.folder import open_run
from sparsezo_gui.engine.session.loading import load_model
from sparsezo_gui.engine.session.opening import open_session
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import events as e
from sparsezo_gui.recipe import outcome
from tests.engine.conftest import finish, of


@pytest.fixture(autouse=True)
def _short_check():
    """Here it is the whole text, as bundled."""


def texts(path):
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def broken(*_):
    raise UserError("no such token")


def begin_texts(folder):
    """Gives the model a tokenizer that begins every text with a token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=special)
    tokenizer.save_pretrained(folder)


def by_hand(folder, size):
    """Perplexity and number of tokens of the text, in pieces of ``size`` tokens, with nothing but transformers."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for text in texts(resources.CHECK_TEXT):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        first = tokenizer("a")["input_ids"][: len(tokenizer("a")["input_ids"]) - 1]  # what begins every text
        new, start = size - len(first), 0
        while start < len(tokens) - (not first):
            piece = torch.tensor([[*first, *tokens[start : start + new]]])
            with torch.no_grad():
                total += model(piece, labels=piece).loss.item() * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
            start += new - (not first)
    return math.exp(total / count), count


@pytest.mark.parametrize("size", [48, 512])
@pytest.mark.parametrize("begins", [False, True])
def test_the_perplexity_is_that_of_plain_transformers(make, tmp_path, begins, size):
    recipe = make(model={"bits": 32})
    if begins:
        begin_texts(tmp_path / "llama")
    model = finish(load_model(recipe))
    text = general_text(model, size)
    expected, count = by_hand(tmp_path / "llama", size)
    assert finish(perplexity(model, text)) == pytest.approx(expected, rel=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llama")
    tokens = sum(len(tokenizer(each)["input_ids"]) for each in texts(resources.CHECK_TEXT))
    assert sum(len(row.targets) for part in text for row in part.rows) == count == tokens - 8
    assert max(len(row.tokens) for part in text for row in part.rows) < size


def test_the_text_is_not_that_of_a_mask():
    assert resources.CHECK_TEXT not in resources.BUNDLED_TEXT.values()
    check, general = texts(resources.CHECK_TEXT), " ".join(texts(resources.BUNDLED_TEXT["general"])).split()
    known = {tuple(general[place : place + 6]) for place in range(len(general))}
    words = [word for text in check for word in text.split()]
    assert not known.intersection(tuple(words[place : place + 6]) for place in range(len(words)))


def test_a_run_measures_it_once_at_its_end(make, tmp_path):
    told = list(training.train(make(update={"learning_rate": 0.02}), folder=tmp_path / "run"))
    (found,) = of(e.GeneralText, told)
    run = open_run(tmp_path / "run")
    assert outcome.general_text(run.events(), 6) == found and outcome.general_text(run.events(), 4) is None
    assert told.index(found) > told.index(of(e.Step, told)[-1])
    again = list(training.resume(run.path))
    assert not of(e.GeneralText, again) and again[-1].hash == told[-1].hash
    # The same numbers from the run's file, and those of the base model from the start.
    session = finish(open_session(run))
    assert finish(compared(session)) == found and found.base != found.tuned
    with session.tuned.base():
        assert finish(perplexity(session.model, general_text(session.model, 512))) == found.base


def test_evaluate_tells_it(make, tmp_path, capsys, trained):
    run = trained("general text", update={"learning_rate": 0.02})
    (event,) = of(e.GeneralText, run.events())
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["base"]["general_perplexity"], found["tuned"]["general_perplexity"]) == (event.base, event.tuned)
    assert cli.main(["evaluate", str(run.path / "recipe.toml"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["base"]) == set(found["base"])


def test_evaluate_does_without_it(make, tmp_path, capsys, monkeypatch, trained):
    run = trained("general text", update={"learning_rate": 0.02})
    monkeypatch.setattr("sparsezo_gui.engine.general.general_text", broken)
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.path), "--json"]) == 0
    out, error = capsys.readouterr()
    assert "accuracy" in out and "general" not in out and "was not measured: no such token" in error


@pytest.mark.parametrize(
    ("tuned", "warns"), [(10.9, False), (11.1, True), (math.nan, True), (math.inf, True), (9, False)]
)
def test_a_warning_from_a_tenth_on(make, tmp_path, monkeypatch, tuned, warns):
    def measured(session):
        yield e.Progress("Measuring")
        return e.GeneralText(session.step, 1500, 10.0, tuned)

    monkeypatch.setattr(evaluation, "compared", measured)
    told = list(training.train(make(loop={"steps": 2}), folder=tmp_path / "run"))
    warnings = [event.text for event in of(e.Notice, told) if event.level == "warning" and "general" in event.text]
    assert len(warnings) == warns
    if tuned == 11.1:
        assert "10 before, 11.1 after (+11.0 %)" in warnings[0]


def test_a_tokenizer_that_fails_on_it_does_not_end_a_run(make, tmp_path, monkeypatch):
    monkeypatch.setattr("sparsezo_gui.engine.general.general_text", broken)
    told = list(training.train(make(loop={"steps": 2}), folder=tmp_path / "run"))
    assert told[-1].reason == "done" and not of(e.GeneralText, told)
    assert [event.text for event in of(e.Notice, told) if "was not measured: no such token" in event.text]


def test_the_event_survives_the_journal():
    event = e.GeneralText(6, 1500, 20.0, math.inf)
    assert outcome.event_of(json.dumps(event.as_json(), allow_nan=False)).base == 20.0
    assert str(e.GeneralText(6, 1500, 20.0, 25.0)) == "20 before, 25 after (+25.0 %)"
    assert str(e.GeneralText(6, 1500, 43.35, 759_977.0)) == "43.35 before, 759,977 after (17,531 times as high)"
