"""Damaged files of every format: each is read, or refused in sentences; none crashes, hangs or eats the memory.

``pytest tests/fuzz --fuzz 10000`` is the long run, ``--fuzz 57:58 -k mask`` repeats one input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

from sparsezo_gui.errors import UserError
from tests.fuzz.formats import FORMATS, Format
from tests.fuzz.limits import Hang, limited_memory, limited_time
from tests.fuzz.mutate import mutate

QUICK = 60  # inputs that are tried of each format in the quick tests


@pytest.fixture
def numbers(request):
    """Numbers of the inputs to try."""
    first, _, end = request.config.getoption("--fuzz").rpartition(":")
    return range(int(first or 0), int(end))


@pytest.mark.filterwarnings("ignore")  # of libraries, as the program does
@pytest.mark.parametrize("part", [slice(QUICK), pytest.param(slice(QUICK, None), marks=pytest.mark.slow)],
                         ids=["first", "rest"])  # fmt: skip
@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_is_read_or_told(name, part, numbers, tmp_path):
    form, numbers = FORMATS[name], numbers[part]
    seeds = form.seeds(tmp_path)
    path = tmp_path / form.file
    every = max(1, min(form.every, len(numbers)))
    for number in [-1, *numbers[::every]]:  # the first is sound, and warms up what is loaded late
        content = seeds[0] if number < 0 else damaged(form, seeds, Random(f"{name} {number}"))
        path.write_bytes(content)
        try:
            with limited_memory(), limited_time(5 if number >= 0 else 60):
                sentences = told(form, path)
        except (Exception, Hang) as error:
            raise AssertionError(f"{name} {number} ({path}): {type(error).__name__}: {str(error)[:300]}") from error
        assert number >= 0 or not sentences, sentences
        wrong = [sentence for sentence in sentences if not sound(sentence, path, form)]
        assert not wrong, f"{name} {number} ({path}) is told as {wrong[0]!r}"


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_the_limits_hold():
    with limited_memory(2**28), pytest.raises(MemoryError):
        bytes(2**29)
    with pytest.raises(Hang), limited_time(0.05):
        while True:
            pass


def test_an_input_is_the_same_each_time():
    form, seed = FORMATS["json"], FORMATS["json"].seeds(Path())
    assert damaged(form, seed, Random("json 7")) == damaged(form, seed, Random("json 7")) != seed[0]


def damaged(form: Format, seeds: list[bytes], random: Random) -> bytes:
    """A seed with damage: half the time inside of what packs it."""
    seed = random.choice(seeds)
    inner, pack = form.open(seed) if random.random() < 0.5 else (seed, bytes)
    return pack(mutate(inner, random, seeds, form.words))


def told(form: Format, path: Path) -> list[str]:
    """What the program says of the file; nothing when it reads it."""
    try:
        form.read(path)
    except UserError as error:
        return str(error).split("\n")
    return []


def sound(sentence: str, path: Path, form: Format) -> bool:
    """Whether it is a sentence for people that names the file, and no error of the memory in disguise."""
    named = any(name in sentence for name in (path.name, *form.named))
    whole = 20 < len(sentence) < 2100 and sentence.isprintable()
    return named and whole and "MemoryError" not in sentence and "allocate" not in sentence
