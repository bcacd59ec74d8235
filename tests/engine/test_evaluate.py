"""Metrics against known answers, and evaluation against the plain model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine import generate, metrics
from sparsezo_gui.engine.data.encode import Encoded, Row, encode
from sparsezo_gui.engine.data.examples import maker
from sparsezo_gui.engine.data.prompts import EncodedPrompt, encode_prompt
from sparsezo_gui.engine.data.readers import Record
from sparsezo_gui.engine.data.splits import Rows
from sparsezo_gui.engine.data.tokenise import prompt_tokens
from sparsezo_gui.engine.evaluate import evaluate
from sparsezo_gui.engine.generate import continuation, stream
from sparsezo_gui.engine.objective import measure
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.recipe import DataTable
from tests.engine import plain as reference
from tests.engine.conftest import finish
from tests.engine.data.conftest import metaspace, words
from tests.models import EOS, FAMILIES, tokenizer

TOKENIZER = tokenizer()


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("in the big city", ["big city"], 0.0, 0.8),
        ("blue", ["red", "dark blue"], 0.0, 2 / 3),
        ("", ["x"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("cat cat", ["cat"], 0.0, 2 / 3),
    ],
)
def test_answer_scores(answer, references, exact, f1):
    assert metrics.exact_match(answer, references) == exact
    assert metrics.f1(answer, references) == pytest.approx(f1)


def test_macro_f1_is_the_mean_over_classes():
    # Class 0: precision 2/3, recall 1; class 1: precision 1, recall 1/2.
    assert metrics.macro_f1([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((0.8 + 2 / 3) / 2)
    assert metrics.macro_f1([0, 1, 2], [0, 1, 2]) == 1.0


def choice(tokens, candidates, label, accepted=()):
    places = (len(tokens) - 1,) * len(candidates)
    row = Row(tuple(tokens), places, tuple(candidates), tuple(range(len(candidates))))
    return Encoded((row,), len(candidates), label, tuple(tokens), (), 0, accepted)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_accuracy_and_loss_equal_the_plain_models(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    examples = [choice([5, 9, 20 + i], [30, 40, 50], i % 3) for i in range(40)]
    found = finish(evaluate(model, examples, "test")).metrics
    plain = reference.plain_model(model)
    with torch.no_grad():
        logits = torch.stack([plain(torch.tensor([[5, 9, 20 + i]])).logits[0, -1, [30, 40, 50]] for i in range(40)])
    labels = torch.tensor([i % 3 for i in range(40)])
    assert found["accuracy"] == float((logits.argmax(1) == labels).float().mean().double().round(decimals=6))
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert found["examples"] == 40


def test_any_accepted_answer_counts(frozen_tiny):
    model = frozen_tiny("llama", 4)
    one = choice([5, 9, 20], [30, 40, 50], 0)
    best = int(finish(evaluate(model, [one], "test")).metrics["accuracy"])  # 1 when 0 is the model's choice
    every = choice([5, 9, 20], [30, 40, 50], 0, (1, 2))
    assert finish(evaluate(model, [every], "test")).metrics["accuracy"] == 1.0
    assert best in (0, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_plain_generate(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    plain = reference.plain_model(model)
    ids = torch.tensor([[0, 7, 19, 88, 45, 23]])
    expected = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, 6:]
    found = list(stream(model, ids, 12))
    assert found == expected.tolist()[: len(found)]
    assert len(found) == 12 or expected[len(found)] == model.tokenizer.eos_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_written_together_are_those_written_alone(frozen_tiny, family, monkeypatch):
    model = frozen_tiny(family, 4)
    draw = torch.Generator().manual_seed(3)
    lengths = (9, 3, 20, 3, 1, 14, 41)
    prompts = [torch.randint(3, 288, (length,), generator=draw).tolist() for length in lengths]
    alone = {index: [list(stream(model, torch.tensor([prompt]), 8))] for index, prompt in enumerate(prompts)}
    sizes, original = [], type(model.module).generate
    monkeypatch.setattr(type(model.module), "generate",
                        lambda self, input_ids, **rest: sizes.append(len(input_ids)) or
                        original(self, input_ids=input_ids, **rest))  # fmt: skip
    assert dict(generate.complete(model, prompts, 8)) == alone
    assert sizes == [7]
    monkeypatch.setattr(generate, "CACHE_BYTES", 80 * 2 * 2 * model.spec.kv_heads * 16 * 4)  # 80 tokens
    assert dict(generate.complete(model, prompts, 8)) == alone
    assert sizes[1:] == [4, 2, 1]  # up to 9 + 8, 20 + 8 and 41 + 8 tokens each


def test_streamed_pieces_join_to_the_whole_text(frozen_tiny):
    model = frozen_tiny("llama", 4)
    tokens = list(stream(model, model.tokenizer("the cat", return_tensors="pt").input_ids, 30))
    whole = model.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(continuation(model, EncodedPrompt(prompt_tokens("the cat", model.tokenizer)), 30)) == whole


def test_perplexity_and_generated_answers_of_completions(frozen_tiny):
    model = frozen_tiny("llama", 4)
    prompt = (0, 7, 19, 88)
    answer = list(stream(model, torch.tensor([prompt]), 3))
    text = model.tokenizer.decode(answer, skip_special_tokens=True).strip().split("\n")[0]
    row = Row((*prompt, *answer[:-1]), (3, 4, 5)[: len(answer)], tuple(answer), (0,) * len(answer))
    found = finish(evaluate(model, [Encoded((row,), 0, 0, prompt, (text + " and more",), 0)], "test")).metrics
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert 0 <= found["exact_match"] <= found["f1"] <= 1


def test_scores_of_examples_are_in_their_order(frozen_tiny):
    model = frozen_tiny("llama", 4)
    prompts = [(0, 7, 19, 88, 5, 6, 9), (0, 7), (0, 30, 31, 32)]  # answered the shortest first
    rows = [Row((*prompt, 40), (len(prompt) - 1, len(prompt)), (40, 41), (0, 0)) for prompt in prompts]
    told = [model.tokenizer.decode(list(stream(model, torch.tensor([prompt]), 10))) for prompt in prompts]
    right = [text.strip().split("\n")[0] for text in told]
    answers = [(right[0],), ("nothing of the kind",), (right[2],)]
    examples = [
        Encoded((row,), 0, 0, *each, 0) for row, each in zip(rows, zip(prompts, answers, strict=True), strict=True)
    ]
    whole = finish(evaluate(model, examples, "test"))
    assert whole.scores["exact_match"] == [1.0, 0.0, 1.0] and whole.metrics["exact_match"] == pytest.approx(2 / 3)
    alone = [finish(evaluate(model, [each], "test")) for each in examples]
    assert whole.scores["loss"] == pytest.approx([each.metrics["loss"] for each in alone], rel=1e-4)
    assert whole.scores["f1"] == [each.metrics["f1"] for each in alone]


def test_examples_whose_answer_changed_are_told_the_wrong_ones_first(frozen_tiny):
    model = frozen_tiny("llama", 4)
    prompts = [(0, 7), (0, 19), (0, 30)]
    rows = [Row((*prompt, 40), (1, 2), (40, 41), (0, 0)) for prompt in prompts]
    examples = [Encoded((row,), 0, 0, prompt, ("?",), 0) for row, prompt in zip(rows, prompts, strict=True)]
    first = finish(evaluate(model, examples, "test"))
    assert len(first.answers) == 3 and first.changed == []
    right = dataclasses.replace(examples[0], references=(first.answers[0],))
    again = [right, *examples[1:]]
    found = finish(evaluate(model, again, "test", before=["other", first.answers[1], "another"]))
    assert [(each["number"], each["before"]) for each in found.changed] == [(3, "another"), (1, "other")]


def question(model, **more):
    """A choice with candidates of one and of several tokens, and the example of an evaluation."""
    table = DataTable(task="choice", template="{{ text }} is it?", answers=("yes", "no it is not", "a"), **more)
    row = Record({"text": "the cat", "answer": "yes"}, "a.jsonl", 1)
    example = maker(table, {"train": Rows((row,), 1)}).example(row)
    return encode_prompt(table, model.tokenizer, "the cat"), encode(example, model.tokenizer, 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_have_the_probabilities_of_an_evaluation(frozen_tiny, family):
    model = frozen_tiny(family, 4)
    ask, example = question(model)
    found = generate.rank_candidates(model, ask)
    scores = measure(model, [example]).scores[0][0].softmax(0).tolist()
    assert dict(found) == dict(zip(("yes", "no it is not", "a"), scores, strict=True))
    assert [probability for _, probability in found] == sorted(scores, reverse=True)
    assert math.exp(-finish(evaluate(model, [example], "test")).metrics["loss"]) == pytest.approx(dict(found)["yes"])
    lines = "".join(generate.reply(model, ask, 5)).split("\n")
    assert lines == [f"{text} {100 * probability:.0f} %" for text, probability in found]


def test_of_many_candidates_the_likeliest_are_told(frozen_tiny, monkeypatch):
    monkeypatch.setattr(generate, "LISTED", 2)
    model = frozen_tiny("llama", 4)
    lines = "".join(generate.reply(model, question(model)[0], 5)).split("\n")
    assert len(lines) == 3 and lines[-1] == "and 1 more"


def test_a_question_too_long_for_the_model_is_a_sentence(frozen_tiny):
    model = frozen_tiny("llama", 4)
    table = DataTable(task="choice", answers=("yes", "no"))
    long = encode_prompt(table, model.tokenizer, "x " * 1100)
    with pytest.raises(UserError, match=r"The prompt has \d+ tokens, but this model takes fewer than 1024. Shorten it"):
        generate.rank_candidates(model, long)
    with pytest.raises(UserError, match=r"The prompt has \d+ tokens"):
        list(continuation(model, EncodedPrompt(long.prompt), 3))


def test_writing_stops_where_the_run_learned_to_end(frozen_tiny, monkeypatch):
    model = frozen_tiny("llama", 4)
    prompt = prompt_tokens("the cat", model.tokenizer)
    whole = list(stream(model, torch.tensor([prompt]), 8))
    assert model.stops == {EOS} and len(whole) == 8
    monkeypatch.setattr(model, "learned_end", whole[3])
    assert model.stops == {EOS, whole[3]}
    until = whole[: whole.index(whole[3])]
    assert list(stream(model, torch.tensor([prompt]), 8)) == until
    assert dict(generate.complete(model, [prompt], 8)) == {0: [until]}
    assert "".join(continuation(model, EncodedPrompt(prompt), 8)) == model.tokenizer.decode(until)


@pytest.mark.parametrize(
    ("text", "references", "answer"),
    [
        (" Yes\nand no", ["Yes"], "Yes"),
        (" Yes\nand no", ["Yes\nand no"], "Yes\nand no"),
        ("Yes\nand no", ["Yes\n"], "Yes"),
        ("<think>\nIs it?\n</think>\n\nYes", ["Yes"], "Yes"),
        ("Is it?</think>Yes\nno", ["<think>\na\n</think>\n\nYes"], "Yes"),
        ("<think>\n\n</think>\n\nYes\nno", ["<think>a</think>Yes\nno"], "Yes\nno"),
        ("", ["Yes"], ""),
    ],
)
def test_what_of_a_text_is_compared(text, references, answer):
    assert generate.answer_in(text, references) == answer
    assert metrics.exact_match(answer, references) == (answer != "")


@pytest.mark.parametrize("make", [tokenizer, words, metaspace])
@given(draws=st.lists(st.integers(0, 10_000), max_size=150))
@settings(max_examples=60)
def test_pieces_are_the_text_whatever_the_tokens(make, draws):
    made = make()
    tokens = [draw % len(made) for draw in draws]
    assert "".join(generate.pieces(tokens, made)) == made.decode(tokens, skip_special_tokens=True)


def test_pieces_decode_a_few_tokens_at_a_time(monkeypatch):
    sizes, text_of = [], generate.text_of
    monkeypatch.setattr(generate, "text_of", lambda tokens, of: sizes.append(len(tokens)) or text_of(tokens, of))
    tokens = TOKENIZER("the cat sat on the mat. " * 100).input_ids
    assert "".join(generate.pieces(tokens, TOKENIZER)) == "the cat sat on the mat. " * 100
    assert max(sizes) <= 2 * generate.WINDOW + 1
