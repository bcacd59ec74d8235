"""Key frames: exact round trips, frames that cannot be used, and thinning."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsezo_gui.engine.runs import checkpoints
from sparsezo_gui.engine.runs.journal import Header, read
from sparsezo_gui.engine.runs.journal_writer import JournalWriter

MASK, RECORDS = "cd" * 32, "ef" * 32
NOTHING = (None, None)  # states of an estimator and an update that remember nothing
HEADER = Header(1, 0, "ab" * 32, MASK, "philox")


def values(size=500, seed=0, start=None):
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return 0.05 * drawn if start is None else start + 1e-4 * drawn


@settings(max_examples=50)
@given(st.binary(min_size=4, max_size=400), st.binary(min_size=400, max_size=400))
def test_any_bits_come_back(tmp_path_factory, bits, start):
    """Not only numbers: also NaNs with their payload, infinities and denormals."""
    folder = tmp_path_factory.mktemp("run")
    size = len(bits) // 4
    content = torch.frombuffer(bytearray(bits[: 4 * size]), dtype=torch.float32)
    began = torch.frombuffer(bytearray(start[: 4 * size]), dtype=torch.float32)
    path = checkpoints.write(folder, 7, 9, began, content, (None, (0.25, 3)), MASK, RECORDS)
    (frame,) = checkpoints.listed(folder)
    assert (frame.path, frame.step, frame.records) == (path, 7, 9)
    found = torch.empty(size)
    state = checkpoints.read(frame, began, found, MASK, RECORDS)
    assert found.numpy().tobytes() == content.numpy().tobytes()
    assert state == (None, (0.25, 3))


def test_states_of_tensors_come_back(tmp_path):
    start = values()
    momentum = values(seed=3)
    checkpoints.write(tmp_path, 1, 1, start, values(seed=1), ((momentum,), (0.1, momentum.view(50, 10))), MASK, RECORDS)
    estimator, update = checkpoints.read(checkpoints.listed(tmp_path)[0], start, torch.empty(500), MASK, RECORDS)
    assert torch.equal(estimator[0], momentum)
    assert update[0] == 0.1 and torch.equal(update[1], momentum.view(50, 10))


def test_a_frame_of_small_changes_is_small(tmp_path):
    start = values(30_000)
    path = checkpoints.write(tmp_path, 1, 1, start, values(30_000, 1, start), NOTHING, MASK, RECORDS)
    assert path.stat().st_size < 0.75 * 4 * 30_000


def test_the_file_is_laid_out_as_specified(tmp_path):
    start, now = values(), values(seed=1)
    path = checkpoints.write(tmp_path, 1, 1, start, now, NOTHING, MASK, RECORDS)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["state"]) == ("sparsezo-frame", "[null, null]")
    assert (metadata["mask_hash"], metadata["journal"]) == (MASK, RECORDS)
    assert metadata["hash"] == hashlib.sha256(now.numpy().tobytes()).hexdigest()
    planes = zlib.decompress(load_file(path)["0"].numpy().tobytes())
    first = bytes(planes[k * 500] for k in range(4))
    bits = int(now[:1].view(torch.int32)) ^ int(start[:1].view(torch.int32))
    assert int.from_bytes(first, "little") == bits & 0xFFFFFFFF


@pytest.mark.parametrize(
    "what", ["truncated", "flipped", "other mask", "other history", "other start", "bomb", "gone", "pickle"]
)
def test_a_frame_that_cannot_be_used_is_left_aside(tmp_path, what):
    start = values()
    path = checkpoints.write(tmp_path, 1, 1, start, values(seed=1), NOTHING, MASK, RECORDS)
    frame, mask, records = checkpoints.listed(tmp_path)[0], MASK, RECORDS
    content = bytearray(path.read_bytes())
    if what == "truncated":
        path.write_bytes(content[:-5])
    elif what == "flipped":
        content[-20] ^= 4
        path.write_bytes(content)
    elif what == "other mask":
        mask = "00" * 32
    elif what == "other history":
        records = "00" * 32
    elif what == "other start":
        start = start + 1
    elif what == "bomb":
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        bomb = torch.frombuffer(bytearray(zlib.compress(bytes(200_000_000), 9)), dtype=torch.uint8)
        save_file({"0": bomb}, path, metadata)
    elif what == "gone":
        path.unlink()
    else:
        path.write_bytes(b"\x80\x04cposix\nsystem\n(S'true'\ntR.")
    assert checkpoints.read(frame, start, torch.empty(500), mask, records) is None


def test_a_state_that_names_one_stream_often_is_left_aside(tmp_path):
    start, one = values(), torch.zeros(500)
    for count, good in ((16, True), (17, False)):
        checkpoints.write(tmp_path, count, 1, start, start, (None, (one,)), MASK, RECORDS)
        frame = checkpoints.listed(tmp_path)[-1]
        with safe_open(frame.path, framework="pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("0", "1")}
        metadata["state"] = json.dumps([None, [{"tensor": [1, [500]]}] * count])
        save_file(tensors, frame.path, metadata)
        assert (checkpoints.read(frame, start, torch.empty(500), MASK, RECORDS) is not None) == good


def journal_of(path, *moves):
    with JournalWriter(path, HEADER) as file:
        at = 0
        for move in moves:
            if move < 0:
                at = -move
                file.go_back(at)
            for _ in range(max(move, 0)):
                at += 1
                file.append(step=at, tokens=1, loss=1.0, rate=1.0, seconds=1.0, memory=1, values=(1.0,))
    return read(path)


def test_frames_off_the_line_are_not_on_it(tmp_path):
    start = values()
    for step, records in ((50, 50), (100, 100), (30, 30)):
        checkpoints.write(tmp_path, step, records, start, start, NOTHING, MASK, RECORDS)
    whole = journal_of(tmp_path / "whole", 100)
    back = journal_of(tmp_path / "back", 100, -60, 60)
    assert [frame.step for frame in checkpoints.listed(tmp_path) if frame.on(whole)] == [30, 50, 100]
    assert [frame.step for frame in checkpoints.listed(tmp_path) if frame.on(back)] == [30, 50]
    checkpoints.thin(tmp_path, back, 10**9)
    assert [frame.step for frame in checkpoints.listed(tmp_path)] == [30, 50]


def test_thinning_keeps_to_the_budget_and_spreads_what_stays(tmp_path):
    start = values()
    for step in range(10, 170, 10):
        path = checkpoints.write(tmp_path, step, step, start, values(seed=step), NOTHING, MASK, RECORDS)
    size = path.stat().st_size
    checkpoints.thin(tmp_path, journal_of(tmp_path / "j", 160), 5 * size + 50)
    kept = [frame.step for frame in checkpoints.listed(tmp_path)]
    assert len(kept) == 5 and kept[-1] == 160
    gaps = [b - a for a, b in zip([0, *kept], kept, strict=False)]
    assert max(gaps) <= 60
    checkpoints.thin(tmp_path, journal_of(tmp_path / "j2", 160), 0)
    assert checkpoints.listed(tmp_path) == []


def test_spacing_keeps_replays_short():
    for size in (100, 30_147, 300_000, 6_500_000):
        seconds = checkpoints.spacing(size) * (checkpoints.STEP_SECONDS + checkpoints.VALUE_SECONDS * size)
        assert seconds <= 12.5 and (size > 100_000 or seconds < 1.2)
    assert checkpoints.spacing(10**9) == checkpoints.FEWEST, "to write that many takes as long as several steps"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frames_are_written_and_read_in_pieces(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(checkpoints, "PIECE", 64)
    start = values().to(dtype)
    now = values(seed=1).to(dtype)
    path = checkpoints.write(tmp_path, 1, 1, start, now, ((values(seed=2),), None), MASK, RECORDS)
    planes = zlib.decompress(load_file(path)["0"].numpy().tobytes())
    first = int.from_bytes(bytes(planes[4 * 64 + k * 64] for k in range(4)), "little")
    assert first == (int(now.float().view(torch.int32)[64]) ^ int(start.float().view(torch.int32)[64])) & 0xFFFFFFFF
    found = torch.empty(500, dtype=dtype)
    (momentum,), nothing = checkpoints.read(checkpoints.listed(tmp_path)[0], start, found, MASK, RECORDS)
    assert torch.equal(found, now) and torch.equal(momentum, values(seed=2)) and nothing is None
    assert checkpoints.usual_bytes(now, 0) == now.nbytes // 2 and checkpoints.usual_bytes(now, 2) == 2.5 * now.nbytes
