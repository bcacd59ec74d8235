"""Recorded gradients: how they are rounded, round trips, torn tails, damage, budgets, and hostile bytes."""

from __future__ import annotations

import errno
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsezo_gui.engine.runs import gradients, journal
from sparsezo_gui.engine.runs.gradients import GradientWriter, Rounded, header, read, rounded
from sparsezo_gui.errors import DiskFull, UserError

MASK, SIZE = "cd" * 32, 50
HEADER, RECORD = 52, 40
FINITE = arrays(np.float32, SIZE, elements=st.floats(-(2.0**126), 2.0**126, width=32))


def record(step, at=None):
    """A step's record in the journal."""
    found = np.zeros(1, journal.record_dtype(1))
    found["step"], found["time"], found["values"] = step, step / 3 if at is None else at, 1.0
    return found[0]


def gradient(step, size=SIZE):
    return rounded(torch.randn(size, generator=torch.Generator().manual_seed(step)))


def write(path, *steps, budget=1 << 20):
    writer = GradientWriter(path, SIZE, MASK, budget)
    for step in steps:
        writer.append(step, step / 3, gradient(step))
    return writer


def same(mine, theirs):
    return (mine.first, mine.exponent, mine.numbers.tobytes()) == (
        theirs.first, theirs.exponent, theirs.numbers.tobytes(),
    )  # fmt: skip


@given(FINITE)
def test_rounding_is_to_the_nearest_and_happens_once(numbers):
    found = rounded(torch.from_numpy(numbers))
    values = found.unpacked(torch.empty(SIZE)).numpy().astype(np.float64)
    smallest = 2.0 ** (found.exponent - 25)  # half of the last bit of the smallest numbers
    exact = numbers.astype(np.float64)
    assert (np.abs(values - exact) <= np.maximum(2.0**-11 / (1 + 2.0**-11) * np.abs(exact), smallest)).all()
    again = rounded(torch.from_numpy(values.astype(np.float32))).unpacked(torch.empty(SIZE))
    assert (again.numpy() == values).all()


def test_a_number_is_halved_by_a_power_of_two_exactly():
    """So that the size of a loss, or of a batch, does not matter for what rounding costs."""
    numbers = torch.randn(SIZE)
    one, other = (rounded(each).unpacked(numbers) for each in (numbers, numbers * 2.0**-60))
    assert torch.equal(one * 2.0**-60, other)


def test_no_gradient_is_something_else_than_one_of_zeros():
    """An update with momentum moves for one of zeros."""
    assert rounded(None).unpacked(torch.ones(3)) is None
    assert torch.equal(rounded(torch.zeros(3)).unpacked(torch.ones(3)), torch.zeros(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3.4028e38])
def test_what_is_not_finite_stays_so(bad):
    numbers = torch.ones(5)
    numbers[2] = bad
    assert not rounded(numbers).unpacked(numbers).isfinite().all()


@settings(max_examples=50)
@given(FINITE, st.integers(0, SIZE), st.integers(0, SIZE))
def test_what_is_written_is_read(tmp_path_factory, numbers, first, last):
    """And of zeros around the numbers, none is stored."""
    path = tmp_path_factory.mktemp("run") / "g"
    numbers[:first], numbers[last:] = 0, 0
    kept = rounded(torch.from_numpy(numbers))
    GradientWriter(path, SIZE, MASK, 1 << 20).append(7, 0.5, kept)
    assert path.stat().st_size == HEADER + RECORD + 2 * len(kept.numbers) and len(kept.numbers) <= max(last - first, 1)
    found = read(path, SIZE, MASK)
    assert not found.fault and same(found.of(record(7, 0.5)), kept)
    assert found.of(record(7, 0.6)) is found.of(record(8, 0.5)) is None


def test_the_file_is_laid_out_as_specified(tmp_path):
    GradientWriter(tmp_path / "g", 5, MASK, 1000).append(3, 9.5, rounded(torch.tensor([0, 0, 1.0, -0.5, 0])))
    content = (tmp_path / "g").read_bytes()
    begin, fields, numbers = content[:HEADER], content[HEADER : HEADER + RECORD], content[HEADER + RECORD :]
    assert begin[:48] == struct.pack("<4sHHQ", b"SZOG", 1, 0, 5) + b"\xcd" * 32
    assert begin[48:] == struct.pack("<I", zlib.crc32(begin[:48]))
    assert fields[:36] == struct.pack("<IidQQI", 3, -14, 9.5, 2, 2, zlib.crc32(numbers))
    assert fields[36:] == struct.pack("<I", zlib.crc32(fields[:36]))
    assert np.frombuffer(numbers, "<f2").tolist() == [2.0**14, -(2.0**13)]
    assert header(5, MASK) == begin


def test_of_several_of_a_step_the_last_counts(tmp_path):
    """A process that was killed before it wrote the step took it again."""
    writer = write(tmp_path / "g", 1, 2)
    writer.append(2, 2 / 3, gradient(9))
    assert same(read(tmp_path / "g", SIZE, MASK).of(record(2)), gradient(9))


@pytest.mark.parametrize("cut", [1, 2 * SIZE - 1, 2 * SIZE, 2 * SIZE + 1, 2 * SIZE + RECORD - 1])
def test_a_torn_tail_is_told_and_cut_off(tmp_path, cut):
    path = tmp_path / "g"
    write(path, 1, 2, 3)
    os.truncate(path, path.stat().st_size - cut)
    found = read(path, SIZE, MASK)
    assert "incomplete after 2 gradients" in found.fault and "computed again" in found.fault
    assert found.of(record(3)) is None and found.of(record(2)) is not None
    write(path, 3)
    found = read(path, SIZE, MASK)
    assert not found.fault and all(same(found.of(record(step)), gradient(step)) for step in (1, 2, 3))


@given(st.data())
def test_any_flipped_byte_costs_gradients_and_changes_none(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run") / "g"
    write(path, 1, 2, 3)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = read(path, SIZE, MASK)
    lost = [step for step in (1, 2, 3) if found.of(record(step)) is None]
    assert lost and all(same(found.of(record(step)), gradient(step)) for step in {1, 2, 3} - set(lost))
    write(path, 4)
    assert same(read(path, SIZE, MASK).of(record(4)), gradient(4))


@given(st.binary(max_size=300))
def test_any_bytes_give_gradients_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run") / "g"
    path.write_bytes(header(SIZE, MASK) + content)
    found = read(path, SIZE, MASK)
    assert bool(found.fault) == (found.end < HEADER + len(content))
    path.write_bytes(content)
    assert read(path, SIZE, MASK).fault


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [((1, 0, 1.0, 0, 2**63, 0), b""), ((1, 0, 1.0, 2**64 - 1, 2, 0), bytes(4)), ((1, 0, 1.0, 49, 2, 0), bytes(4)),
     ((1, 999, 1.0, 0, 2, 0), bytes(4)), ((1, 0, 1.0, 0, 2, 0), b"\x00\x7e" * 2)],
    ids=["longer than the file", "far away", "past the end", "a huge exponent", "not numbers"],
)  # fmt: skip
def test_what_a_sound_checksum_says_is_checked_too(tmp_path, fields, numbers):
    begin = struct.pack("<IidQQI", *fields[:5], zlib.crc32(numbers))
    content = header(SIZE, MASK) + begin + struct.pack("<I", zlib.crc32(begin)) + numbers
    (tmp_path / "g").write_bytes(content)
    assert read(tmp_path / "g", SIZE, MASK).of(record(1, 1.0)) is None


def test_there_are_not_more_records_than_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "MOST", 2)
    writer = write(tmp_path / "g", 1, 2)
    assert not writer.has_space(gradient(3))
    writer.append(3, 1.0, gradient(3))
    found = read(tmp_path / "g", SIZE, MASK)
    assert found.fault and len(found.places) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda old: header(SIZE, "ab" * 32) + old[HEADER:], "belongs to another mask"),
     (lambda old: header(SIZE + 1, MASK) + old[HEADER:], "belongs to another mask"),
     (lambda old: old[:4] + b"\x02" + old[5:], "Update SparseZO"), (lambda old: b"", "header is damaged"),
     (lambda old: b"x" + old[1:], "not a file of gradients")],
)  # fmt: skip
def test_another_file_is_told_and_put_aside(tmp_path, change, told):
    path = tmp_path / "gradients.bin"
    write(path, 1)
    old = change(path.read_bytes())
    path.write_bytes(old)
    found = read(path, SIZE, MASK)
    assert told in found.fault and not found.places
    write(path, 2)
    assert (tmp_path / "gradients.damaged").read_bytes() == old
    assert read(path, SIZE, MASK).of(record(2)) is not None


def test_no_file_holds_nothing_and_what_cannot_be_read_is_told(tmp_path):
    assert read(tmp_path / "g", SIZE, MASK).fault == ""
    (tmp_path / "g").mkdir()
    assert "cannot be read" in read(tmp_path / "g", SIZE, MASK).fault


def test_a_budget_is_kept(tmp_path):
    writer = write(tmp_path / "g", 1, budget=HEADER + 2 * (RECORD + 2 * SIZE))
    assert writer.has_space(gradient(2))
    writer.append(2, 2 / 3, gradient(2))
    assert not writer.has_space(gradient(3)) and not writer.has_space(rounded(None))
    assert not GradientWriter(tmp_path / "g", SIZE, MASK, 1).has_space(gradient(3))
    assert (tmp_path / "g").stat().st_size == writer.budget


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, UserError)])
def test_a_disk_that_takes_a_part_of_it_is_told_and_nothing_is_left(tmp_path, monkeypatch, number, kind):
    writer = write(tmp_path / "g", 1)
    before = (tmp_path / "g").read_bytes()

    def full(file, content):
        file.write(content[:60])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(gradients, "write_all", full)
        with pytest.raises(kind):
            writer.append(2, 2 / 3, gradient(2))
    assert (tmp_path / "g").read_bytes() == before
    writer.append(2, 2 / 3, gradient(2))
    assert same(read(tmp_path / "g", SIZE, MASK).of(record(2)), gradient(2))


def test_some_of_them_make_a_file(tmp_path):
    write(tmp_path / "g", 1, 2, 3)
    found = read(tmp_path / "g", SIZE, MASK)
    records = np.array([record(2), record(3), record(9)])
    (tmp_path / "h").write_bytes(found.packed(records))
    part = read(tmp_path / "h", SIZE, MASK)
    assert not part.fault and part.places.keys() == {(2, 2 / 3), (3, 1.0)} and same(part.of(record(3)), gradient(3))
    assert found.missing(records) == 1 and found.missing(records[:2]) == 0
    assert found.packed(records[2:]) == b""


def test_numbers_are_kept_as_they_are():
    numbers = np.array([1.5, -2.0], "<f2")
    assert Rounded(1, 1, numbers).unpacked(torch.ones(4)).tolist() == [0.0, 3.0, -4.0, 0.0]
