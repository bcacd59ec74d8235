"""The journal: round trips, returns, torn tails, damaged middles, versions, and hostile bytes."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.runs import journal, journal_writer
from sparsezo_gui.engine.runs.journal import Header, read
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.errors import UserError

SIZE = 128  # of the header
HEADER = Header(1, 0, "ab" * 32, "cd" * 32, "philox")


def write(path, steps, values=1, first=1, header=HEADER):
    with JournalWriter(path, Header(values, *list(vars(header).values())[1:])) as file:
        for step in range(first, first + steps):
            file.append(
                step=step, tokens=7, loss=0.5 * step, rate=1e-3, seconds=0.25, memory=123, values=(1.5 * step,) * values
            )


def write_version_1(path, steps):
    start = struct.pack("<4sHHI", b"SZOJ", 1, 1, 0)
    content = start + struct.pack("<I", zlib.crc32(start))
    for step in range(1, steps + 1):
        record = struct.pack("<IIdddfIQd", step, 7, 0.5 * step, 1e-3, 1e9, 0.25, 0, 123, 1.5 * step)
        content += record + struct.pack("<I", zlib.crc32(record))
    path.write_bytes(content)


@pytest.mark.parametrize("values", [1, 3])
def test_what_is_written_is_read(tmp_path, values):
    write(tmp_path / "j", 5, values)
    found = read(tmp_path / "j")
    assert (found.step, found.header, found.fault) == (5, Header(values, 0, "ab" * 32, "cd" * 32, "philox"), "")
    assert found.records["step"].tolist() == found.steps["step"].tolist() == [1, 2, 3, 4, 5]
    assert found.records["loss"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert found.records["values"].tolist() == [[1.5 * step] * values for step in range(1, 6)]


def test_bytes_are_as_promised_and_laid_out_as_specified(tmp_path):
    write(tmp_path / "j", 1, header=Header(1, 0, "ab" * 32, "cd" * 32, "philox"))
    content = (tmp_path / "j").read_bytes()
    assert len(content) == SIZE + 60
    header, record = content[:SIZE], content[SIZE:]
    assert header[:12] == b"SZOJ" + struct.pack("<HHI", 2, 1, 0)
    assert header[12:76] == b"\xab" * 32 + b"\xcd" * 32
    assert header[76:124] == b"philox" + bytes(42)
    assert header[124:] == struct.pack("<I", zlib.crc32(header[:124]))
    step, tokens, loss, rate, _time, seconds, kind, memory, slope, crc = struct.unpack("<IIdddfIQdI", record)
    assert (step, tokens, loss, rate, seconds, kind, memory, slope) == (1, 7, 0.5, 1e-3, 0.25, 0, 123, 1.5)
    assert crc == zlib.crc32(record[:-4])


def test_going_back_keeps_everything_and_tells_the_line(tmp_path):
    write(tmp_path / "j", 5)
    with JournalWriter(tmp_path / "j", HEADER) as file:
        file.go_back(2)
    assert read(tmp_path / "j").steps["step"].tolist() == [1, 2]
    more = {"tokens": 1, "rate": 1.0, "seconds": 1.0, "memory": 1, "values": (9.0,)}
    with JournalWriter(tmp_path / "j", HEADER) as file:
        for step in (3, 4):
            file.append(step=step, loss=100.0 + step, **more)
        file.go_back(3)
        file.append(step=4, loss=204.0, **more)
    found = read(tmp_path / "j")
    assert (found.step, len(found.records), found.fault) == (4, 10, "")
    assert found.steps["loss"].tolist() == [0.5, 1.0, 103.0, 204.0]
    # What it was then is told by as many records as there were.
    assert read(tmp_path / "j", 5).steps["loss"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert read(tmp_path / "j", 7).steps["loss"].tolist() == [0.5, 1.0, 103.0]
    assert found.returns == [(5, 2), (8, 3)]


def test_a_branch_begins_at_its_step(tmp_path):
    header = Header(1, 40, "ab" * 32, "cd" * 32, "philox")
    write(tmp_path / "j", 3, first=41, header=header)
    found = read(tmp_path / "j")
    assert (found.header.start, found.step, found.steps["step"].tolist()) == (40, 43, [41, 42, 43])
    with JournalWriter(tmp_path / "j", header) as file:
        file.go_back(40)
    assert (read(tmp_path / "j").step, len(read(tmp_path / "j").steps)) == (40, 0)


@settings(max_examples=100)
@given(st.lists(st.one_of(st.just(None), st.integers(0, 12)), max_size=40))
def test_the_line_is_what_a_list_would_hold(tmp_path_factory, moves):
    """None takes a step, a number goes back to that step where it can; a plain list does the same."""
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    line, count = [], 0
    with JournalWriter(path, HEADER) as file:
        for move in moves:
            if move is None:
                count += 1
                line.append(float(count))
                file.append(step=len(line), tokens=1, loss=line[-1], rate=1.0, seconds=1.0, memory=1, values=(1.0,))
            elif move <= len(line):
                del line[move:]
                file.go_back(move)
    found = read(path)
    assert found.steps["loss"].tolist() == line
    assert (found.step, found.fault) == (len(line), "")


@pytest.mark.parametrize("cut", [1, 30, 59])
def test_a_torn_tail_is_dropped_and_told_and_writing_goes_on(tmp_path, cut):
    write(tmp_path / "j", 5)
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[:-cut])
    found = read(tmp_path / "j")
    assert found.step == 4
    assert "incomplete" in found.fault
    write(tmp_path / "j", 2, first=5)
    assert read(tmp_path / "j").records["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "j.damaged").exists()


def test_a_damaged_middle_is_named_what_is_before_it_used_and_the_rest_kept(tmp_path):
    write(tmp_path / "j.bin", 5)
    content = bytearray((tmp_path / "j.bin").read_bytes())
    content[SIZE + 60 * 2 + 10] ^= 1
    (tmp_path / "j.bin").write_bytes(content)
    found = read(tmp_path / "j.bin")
    assert found.step == 2
    assert found.fault == "The journal is damaged after step 2; later steps cannot be used."
    write(tmp_path / "j.bin", 1, first=3)
    assert read(tmp_path / "j.bin").fault == ""
    assert (tmp_path / "j.damaged").read_bytes() == bytes(content)


def test_a_repeated_record_is_out_of_sequence(tmp_path):
    write(tmp_path / "j", 2)
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content + content[-60:])
    assert read(tmp_path / "j").step == 2


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_give_records_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    path.write_bytes(content)
    try:
        assert read(path).step >= 0
    except UserError as error:
        assert str(path) in str(error)


@settings(max_examples=100)
@given(st.data())
def test_any_flipped_byte_costs_only_what_comes_after_it(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    write(path, 6)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(SIZE, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = read(path)
    assert found.step == (at - SIZE) // 60
    assert found.fault


@settings(max_examples=60)
@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_any_flipped_byte_of_the_header_is_seen(tmp_path_factory, at, flip):
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    write(path, 1)
    content = bytearray(path.read_bytes())
    content[at] ^= flip
    path.write_bytes(content)
    with pytest.raises(UserError):
        read(path)


def test_version_1_is_read_and_brought_up_when_it_is_written(tmp_path):
    write_version_1(tmp_path / "j", 4)
    assert (read(tmp_path / "j").header, read(tmp_path / "j").step) == (Header(1), 4)
    write(tmp_path / "j", 2, first=5)
    found = read(tmp_path / "j")
    assert (found.header, found.fault) == (HEADER, "")
    assert found.steps["loss"].tolist() == [0.5 * step for step in range(1, 7)]


def test_another_version_other_probes_and_another_model_are_refused(tmp_path):
    start = struct.pack("<4sHHI", b"SZOJ", 3, 1, 0)
    (tmp_path / "j").write_bytes(start + struct.pack("<I", zlib.crc32(start)))
    with pytest.raises(UserError, match="unknown journal version 3"):
        read(tmp_path / "j")
    write(tmp_path / "k", 1)
    with pytest.raises(UserError, match="1 values per step"):
        JournalWriter(tmp_path / "k", Header(2))
    with pytest.raises(UserError, match="another model"):
        JournalWriter(tmp_path / "k", Header(1, 0, "00" * 32, "cd" * 32, "philox"))
    with pytest.raises(UserError, match=r"starts after 2 records, but only 1 are usable"):
        read(tmp_path / "k", 2)


def test_record_layout_matches_the_specification():
    assert journal.record_dtype(1).itemsize == 60
    assert journal.record_dtype(4).itemsize == 52 + 32
    assert journal.record_dtype(1).fields["values"][1] == 48
    assert isinstance(np.zeros(1, journal.record_dtype(2))["values"][0], np.ndarray)


def test_the_clock_may_go_backwards(tmp_path, monkeypatch):
    times = iter((2e9, 1e9, 0.0))
    monkeypatch.setattr(journal_writer.time, "time", lambda: next(times))
    write(tmp_path / "j", 3)
    found = read(tmp_path / "j")
    assert (found.steps["time"].tolist(), found.fault) == ([2e9, 1e9, 0.0], "")
