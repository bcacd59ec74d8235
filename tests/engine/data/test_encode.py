"""Token rows against sequences tokenised in another way, and properties over texts of all kinds."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.data import tokenise as tokenising
from sparsezo_gui.engine.data.chat import render
from sparsezo_gui.engine.data.conversations import conversation
from sparsezo_gui.engine.data.encode import encode, encode_text, encode_text_blocks
from sparsezo_gui.engine.data.examples import Example
from sparsezo_gui.engine.data.tokenise import beginning, prompt_tokens, tokenise_all, tokenise_choices
from sparsezo_gui.errors import UserError
from tests.engine.data.conftest import metaspace

QUICK = settings(max_examples=60)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<>\x03\r"), min_size=1, max_size=40)

FILM = Example((("the cat It was", False),), (" terrible", " great"), 1, ("great",))


def spelled(row, choice=0):
    """Scored tokens of a candidate."""
    return [target for target, own in zip(row.targets, row.choices, strict=True) if own == choice]


def known(tokenizer, text):
    """The tokens that it has for ``text``."""
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def test_a_choice_of_single_tokens_is_one_row(made):
    tokenizer = made("words")
    encoded = encode(FILM, tokenizer, 64)
    (row,) = encoded.rows
    assert row.tokens == (1, 7, 8, 3, 4)  # <s> the cat It was
    assert row.positions == (4, 4)
    assert row.targets == (6, 5)  # terrible, great
    assert row.choices == (0, 1)
    assert (encoded.choices, encoded.label, encoded.prompt, encoded.cut) == (2, 1, (1, 7, 8, 3, 4), 0)


def test_a_choice_of_several_tokens_has_a_row_each(made):
    encoded = encode(Example((("the cat", False),), (" sat", " was so great"), 0), made("words"), 64)
    short, long = encoded.rows
    assert (short.tokens, short.positions, short.targets, short.choices) == ((1, 7, 8), (2,), (9,), (0,))
    assert (long.tokens, long.positions, long.targets) == ((1, 7, 8, 4, 10), (2, 3, 4), (4, 10, 5))
    assert long.choices == (1, 1, 1)


def test_candidates_that_differ_in_their_last_token_share_a_row(made):
    encoded = encode(Example((("the", False),), (" cat sat", " cat was"), 0), made("words"), 64)
    (row,) = encoded.rows
    assert row.tokens == (1, 7, 8)
    assert row.positions == (1, 2, 1, 2)  # all tokens of each candidate count in its mean
    assert row.targets == (8, 9, 8, 4)
    assert row.choices == (0, 0, 1, 1)


def test_a_completion_learns_the_answer_and_the_end(made):
    encoded = encode(Example((("the cat", False), (" sat", True)), references=("sat",)), made("words"), 64)
    (row,) = encoded.rows
    assert (row.tokens, row.positions, row.targets) == ((1, 7, 8, 9), (2, 3), (9, 2))
    assert (encoded.choices, encoded.prompt, encoded.references) == (0, (1, 7, 8), ("sat",))


def test_a_token_across_the_seam_belongs_to_the_answer(made):
    """SentencePiece joins the line's end and the answer."""
    tokenizer = made("metaspace")
    encoded = encode(Example((("the cat\n", False),), ("Yes", "No"), 0), tokenizer, 64)
    (row,) = encoded.rows
    assert tokenizer.convert_ids_to_tokens(list(row.targets)) == ["\nYes", "\nNo"]
    assert tokenizer.convert_ids_to_tokens(list(row.tokens)) == ["<s>", "▁the", "▁cat"]


def test_the_beginning_of_the_prompt_is_cut(made):
    encoded = encode(Example((("so very very very the cat", False), (" sat", True))), made("words"), 5)
    assert encoded.rows[0].tokens == (1, 7, 8, 9)
    assert encoded.rows[0].targets == (9, 2)
    assert encoded.cut == 4


def test_an_answer_that_is_too_long_loses_its_end(made):
    encoded = encode(Example((("so very", False), (" the cat sat so very great", True))), made("words"), 5)
    assert encoded.rows[0].tokens == (1, 7, 8, 9)
    assert encoded.rows[0].targets == (7, 8, 9, 10)
    assert encoded.cut == 5  # two of the prompt, two of the answer, the end


def test_a_choice_is_cut_alike_for_all_candidates(made):
    encoded = encode(Example((("so very the cat", False),), (" sat", " was great"), 0), made("words"), 4)
    assert [row.tokens for row in encoded.rows] == [(1, 8), (1, 8, 4)]
    assert encoded.cut == 3
    assert encoded.prompt == (1, 8)


def test_the_beginning_is_not_written_twice(made):
    """Chat templates write <s> as text."""
    encoded = encode(Example((("<s>the", False), (" cat", True))), made("words"), 64)
    assert encoded.rows[0].tokens == (1, 7, 8)


def test_no_end_is_added_after_a_special_token(made):
    tokenizer = made("byte_pairs")
    encoded = encode(Example((("Yes", False), (" No<|im_end|>", True))), tokenizer, 64)
    assert tokenizer.decode([encoded.rows[0].targets[-1]]) == "<|im_end|>"


def test_nothing_to_learn_is_said(made):
    with pytest.raises(UserError, match="no token to learn"):
        encode(Example((("", True),)), made("byte_pairs"), 64)
    with pytest.raises(UserError, match="no token of a candidate"):
        encode(Example((("Yes", False),), ("", "")), made("byte_pairs"), 64)


@QUICK
@given(prompt=TEXT, answers=st.lists(TEXT, min_size=1, max_size=3), trained=TEXT, size=st.integers(8, 40))
def test_completions(tokenizer, prompt, answers, trained, size):
    segments = ((prompt, False), (answers[0], True), (prompt, False), (trained, True))
    try:
        encoded = encode(Example(segments), tokenizer, size)
    except UserError as error:  # a tokenizer may have no token for such letters
        assert "no token to learn" in str(error) and not known(tokenizer, answers[0] + trained)
        return
    (row,) = encoded.rows
    assert len(row.tokens) <= size
    assert len(row.positions) == len(row.targets) == len(row.choices) > 0
    full = (*row.tokens, row.targets[-1])
    for position, target in zip(row.positions, row.targets, strict=True):
        assert full[position + 1] == target
    whole = tokenizer(prompt + answers[0] + prompt + trained, verbose=False)["input_ids"]
    assert len(full) + encoded.cut >= len(whole)
    if not encoded.cut:
        assert list(full[: len(whole)]) == whole
        assert tuple(full[: len(encoded.prompt)]) == encoded.prompt


@QUICK
@given(prompt=TEXT, candidates=st.lists(TEXT, min_size=2, max_size=4, unique=True), size=st.integers(8, 40))
def test_choices(tokenizer, prompt, candidates, size):
    try:
        encoded = encode(Example(((prompt, False),), tuple(candidates), 0), tokenizer, size)
    except UserError as error:
        assert "no token of a candidate" in str(error)
        # A candidate can also become part of the prompt's last token.
        asked = len(known(tokenizer, prompt))
        assert not asked or any(len(known(tokenizer, prompt + candidate)) <= asked for candidate in candidates)
        return
    assert encoded.choices == len(candidates)
    assert all(len(row.tokens) < size for row in encoded.rows)
    assert len(encoded.rows) in (1, len(candidates))
    wholes = [tokenizer(prompt + candidate, verbose=False)["input_ids"] for candidate in candidates]
    if encoded.cut:
        return
    same = len({(len(whole), *whole[:-1]) for whole in wholes}) == 1
    assert (len(encoded.rows) == 1) == same
    for index, whole in enumerate(wholes):
        row = encoded.rows[0 if same else index]
        scored = spelled(row, index)
        assert list(row.tokens) == whole[:-1]
        assert whole[len(whole) - len(scored) :] == scored
        assert len(scored) >= len(whole) - len(tokenizer(prompt, verbose=False)["input_ids"]) or prompt.isspace()


@pytest.mark.parametrize("name", ["byte_pairs", "metaspace"])
@pytest.mark.parametrize("answer", [" great", " terrible", "\nYes", " No 😀 billing"])
def test_the_answer_is_spelled_by_its_tokens(made, name, answer):
    tokenizer = made(name)
    row = encode(Example((("the cat It was", False), (answer, True))), tokenizer, 64).rows[0]
    assert row.targets[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(row.targets[:-1]).strip() == answer.strip()


def test_an_unknown_word_is_no_end(made):
    assert encode(Example((("the", False), (" dog", True))), made("words"), 64).rows[0].targets == (0, 2)


def test_a_tokenizer_without_offsets_finds_the_same_seam(made):
    row = encode(Example((("ab", False), ("cd", True))), made("letters"), 64).rows[0]
    assert row.tokens == tuple(map(ord, "abcd"))
    assert row.targets == (ord("c"), ord("d"), 3)


@pytest.mark.parametrize("name", ["words", "byte_pairs"])
def test_long_text_is_split_and_every_token_learned_once(made, name):
    tokenizer = made(name)
    text = " ".join(["the cat sat so very great"] * 10)
    encoded = encode_text(text, tokenizer, 16)
    assert all(len(one.rows[0].tokens) < 16 and one.cut == 0 for one in encoded)
    learned = [target for one in encoded for target in one.rows[0].targets]
    whole = tokenizer(text)["input_ids"]
    assert learned == [*whole[1:], tokenizer.eos_token_id]


def test_blocks_join_texts_with_the_end(made):
    blocks = encode_text_blocks(["the cat", "sat so", "very great"] * 9, made("words"), 6, 3)
    assert blocks == [(1, 7, 8, 2, 9, 10), (1, 2, 11, 5, 2, 7), (1, 8, 2, 9, 10, 2)]
    assert encode_text_blocks(["the cat"], made("words"), 6, 3) == [(1, 7, 8, 2)]
    assert encode_text_blocks([], made("words"), 6, 3) == []


def test_what_a_text_begins_with(made):
    assert [beginning(made(name)) for name in ("words", "byte_pairs", "metaspace", "letters")] == [(1,), (), (1,), ()]


@QUICK
@given(
    words=st.lists(st.one_of(TEXT, st.sampled_from(["the cat", " ", "\n", "aaaa", "😀"])), min_size=40, max_size=80),
    choices=st.lists(TEXT, min_size=2, max_size=4),
)
def test_a_long_prompt_is_tokenised_once_for_all_candidates(tokenizer, words, choices):
    """The same tokens, of the same pieces, as if each text was tokenised whole."""
    prompt, prefix = "".join(words), beginning(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenising, "SEAM", 48)
        head, tails = tokenise_choices(prompt, tuple(choices), tokenizer, prefix)
    wholes = tokenise_all([[prompt, choice] for choice in choices], tokenizer, prefix)
    assert [head.then(tail) for tail in tails] == [whole.window(0, len(whole.tokens)) for whole in wholes]


@pytest.mark.parametrize("text", ["the cat sat on the mat . ", "a", "😀", "\n", "中文"])
def test_the_time_for_a_long_prompt_does_not_grow_with_the_candidates(made, monkeypatch, text):
    sizes = []
    whole = tokenising.tokenise_all
    monkeypatch.setattr(tokenising, "tokenise_all", lambda texts, *rest: sizes.append(
        sum(len(piece) for pieces in texts for piece in pieces)) or whole(texts, *rest))  # fmt: skip
    prompt = (text * 60_000)[:60_000]
    example = Example(((prompt, False),), tuple(f" {number}" for number in range(30)))
    encoded = encode(example, made("byte_pairs"), 64)
    assert sum(sizes) < 60_000 + 31 * 5000
    assert encoded.cut > 10_000 and encoded.length < 64


def test_a_row_that_takes_too_long_is_refused(made):
    """A tokenizer that tells no offsets reads a conversation anew for each of its turns."""
    turns = tuple(("word " * 20, bool(turn % 2)) for turn in range(1000))
    with pytest.raises(UserError, match=r"tokenising it takes 50,050,000 characters, .* Split it into several rows"):
        encode(Example(turns), made("letters"), 64)
    assert encode(Example(turns), made("byte_pairs"), 64).length <= 64


@pytest.mark.parametrize("begins", [True, False])
def test_a_chat_template_begins_a_text_as_it_is_written(begins):
    """A tokenizer adds <s> to every text, which a template writes itself or leaves out: as `transformers` encodes."""
    tokenizer = copy.deepcopy(metaspace())
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    talk = [{"role": "user", "content": "Is it"}, {"role": "assistant", "content": "It was"}]
    found = render(conversation(talk, "row 1"), tokenizer, "row 1")
    example = Example(found.segments, templated=True, prompt=found.prompt)
    encoded = encode(example, tokenizer, 64)
    assert [*encoded.rows[0].tokens, tokenizer.eos_token_id] == tokenizer.apply_chat_template(talk, return_dict=False)
    assert list(prompt_tokens(found.prompt, tokenizer, templated=True)) == tokenizer.apply_chat_template(
        talk[:1], add_generation_prompt=True, return_dict=False
    )
    assert (encoded.prompt[0] == tokenizer.bos_token_id) == begins


def test_a_prompt_that_the_text_does_not_begin_with_is_kept_and_cut(made):
    """As that of a template which asks for thoughts, and drops them from the text."""
    tokenizer = made("byte_pairs")
    example = Example((("user: Hi", False), ("Yes", True)), templated=True, prompt="user: Hi<think>")
    assert encode(example, tokenizer, 64).prompt == prompt_tokens("user: Hi<think>", tokenizer)
    assert encode(example, tokenizer, 8).prompt == prompt_tokens("user: Hi<think>", tokenizer)[-7:]
