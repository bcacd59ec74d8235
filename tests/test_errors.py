"""Sentences for people: one line each, whatever a file makes them quote."""

from sparsezo_gui.errors import UserError, quoted


def test_what_could_steer_a_terminal_is_shown_escaped():
    found = str(UserError("the column 'a\nb\x1b[2J\u202e\ud800é😀' is empty."))
    assert found == r"the column 'a\nb\x1b[2J\u202e\ud800é😀' is empty."


def test_a_long_quotation_is_cut():
    assert len(str(UserError("\0" * 10_000_000))) == 2000


def test_several_sentences_are_several_lines():
    assert str(UserError("one.", "two.")) == "one.\ntwo."


def test_values_that_python_does_not_write():
    endless = []
    for _ in range(100_000):
        endless = [endless]
    assert (quoted("a"), quoted(16**5000), quoted(endless)) == ("'a'", "a very long int", "a very long list")
    while endless:  # or the interpreter takes it apart by recursion
        endless = endless.pop()
