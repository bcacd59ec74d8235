"""The journal: round trips, torn tails, damaged middles, and hostile bytes."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsezo_gui.engine.runs import journal
from sparsezo_gui.engine.runs.journal import JournalWriter, read
from sparsezo_gui.errors import UserError


def write(path, steps, probes=1, first=1):
    with JournalWriter(path, probes) as file:
        for step in range(first, first + steps):
            file.append(
                step=step, tokens=7, loss=0.5 * step, rate=1e-3, seconds=0.25, memory=123, slopes=(1.5 * step,) * probes
            )


@pytest.mark.parametrize("probes", [1, 3])
def test_what_is_written_is_read(tmp_path, probes):
    write(tmp_path / "j", 5, probes)
    found = read(tmp_path / "j")
    assert (found.steps, found.probes, found.fault) == (5, probes, "")
    assert found.records["step"].tolist() == [1, 2, 3, 4, 5]
    assert found.records["loss"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert found.records["slopes"].tolist() == [[1.5 * step] * probes for step in range(1, 6)]
    assert found.size == (tmp_path / "j").stat().st_size


def test_a_record_of_one_probe_is_as_small_as_promised_and_laid_out_as_specified(tmp_path):
    write(tmp_path / "j", 1)
    content = (tmp_path / "j").read_bytes()
    assert len(content) == 16 + 60
    header, record = content[:16], content[16:]
    assert header[:12] == b"SZOJ" + struct.pack("<HHI", 1, 1, 0)
    assert header[12:] == struct.pack("<I", zlib.crc32(header[:12]))
    step, tokens, loss, rate, _time, seconds, zero, memory, slope, crc = struct.unpack("<IIdddfIQdI", record)
    assert (step, tokens, loss, rate, seconds, zero, memory, slope) == (1, 7, 0.5, 1e-3, 0.25, 0, 123, 1.5)
    assert crc == zlib.crc32(record[:-4])


@pytest.mark.parametrize("cut", [1, 30, 59])
def test_a_torn_tail_is_dropped_and_told_and_writing_goes_on(tmp_path, cut):
    write(tmp_path / "j", 5)
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content[:-cut])
    found = read(tmp_path / "j")
    assert found.steps == 4
    assert "incomplete" in found.fault
    write(tmp_path / "j", 2, first=5)
    assert read(tmp_path / "j").records["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_damaged_middle_is_named_and_what_is_before_it_used(tmp_path):
    write(tmp_path / "j", 5)
    content = bytearray((tmp_path / "j").read_bytes())
    content[16 + 60 * 2 + 10] ^= 1
    (tmp_path / "j").write_bytes(content)
    found = read(tmp_path / "j")
    assert found.steps == 2
    assert found.fault == "The journal is damaged at step 3; the 2 steps before it are used."


def test_a_repeated_record_is_out_of_sequence(tmp_path):
    write(tmp_path / "j", 2)
    content = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(content + content[-60:])
    assert read(tmp_path / "j").steps == 2


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_give_records_or_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    path.write_bytes(content)
    try:
        assert read(path).steps >= 0
    except UserError as error:
        assert str(path) in str(error)


@settings(max_examples=100)
@given(st.data())
def test_any_flipped_byte_costs_only_what_comes_after_it(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "journal.bin"
    write(path, 6)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(16, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = read(path)
    assert found.steps == (at - 16) // 60
    assert found.fault


def test_another_version_and_another_number_of_probes_are_refused(tmp_path):
    start = struct.pack("<4sHHI", b"SZOJ", 2, 1, 0)
    (tmp_path / "j").write_bytes(start + struct.pack("<I", zlib.crc32(start)))
    with pytest.raises(UserError, match="version 2 is not known"):
        read(tmp_path / "j")
    write(tmp_path / "k", 1)
    with pytest.raises(UserError, match="1 slopes a step"):
        JournalWriter(tmp_path / "k", 2)


def test_record_layout_matches_the_specification():
    assert journal.record_dtype(1).itemsize == 60
    assert journal.record_dtype(4).itemsize == 52 + 32
    assert journal.record_dtype(1).fields["slopes"][1] == 48
    assert isinstance(np.zeros(1, journal.record_dtype(2))["slopes"][0], np.ndarray)
