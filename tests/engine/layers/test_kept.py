"""Tensors set aside for the way back: on the device, in the host's memory, in a file that is gone afterwards."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.layers import kept as places
from sparsezo_gui.engine.layers.kept import kept
from sparsezo_gui.errors import DiskFull, UserError
from tests.engine.test_exact import Failing, assert_as_before, found, values_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def room(monkeypatch):
    """``room(cpu=…, cuda=…)``: bytes that seem to be free on each device; none where nothing is said."""

    def of(**free):
        monkeypatch.setattr(devices, "memory_free", lambda device: free.get(device.type, 0))

    return of


def opened(folder):
    """Files of this process in ``folder``, also those without a name."""
    links = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{number}")]  # fmt: skip
    return [link for link in links if link.startswith(str(folder))]


def test_the_nearest_place_with_room_is_taken(room):
    room(cuda=200, cpu=1000)
    for nbytes, place in ((100, "cuda"), (101, "cpu"), (500, "cpu"), (501, "meta")):
        with kept(GPU, nbytes) as stack:
            assert (stack.place.type, stack.file is not None) == (place, place == "meta"), nbytes


@pytest.mark.parametrize("free", [2**40, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_set_aside_last_comes_back_first_to_the_bit(room, dtype, free, home):
    room(cpu=free)
    tensors = [torch.randn(1, size, 5).to(dtype) for size in (3, 7, 2000)]
    tensors += [torch.randn(5, 4).t().to(dtype), torch.full((2, 2), float("nan"), dtype=dtype)]
    with kept(CPU, 1) as stack:
        for tensor in tensors[:3]:
            stack.push(tensor)
        backwards = [stack.pop()]
        for tensor in tensors[3:]:
            stack.push(tensor)
        backwards += [stack.pop() for _ in range(4)]
    for tensor, again in zip([tensors[2], tensors[4], tensors[3], tensors[1], tensors[0]], backwards, strict=True):
        assert again.dtype == dtype and torch.equal(again.nan_to_num(), tensor.nan_to_num())
        again.mul_(2).requires_grad_()  # they can be written to and differentiated


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the open files of the process")
def test_a_step_has_the_same_gradient_by_way_of_a_file_which_is_gone_afterwards(frozen_tiny, room, home, monkeypatch):
    model, seen = frozen_tiny("llama", 4), []
    tuned = values_of(model, "entries")
    expected = found(model, tuned, "mixed")
    home.mkdir(exist_ok=True)
    before = list(home.iterdir())
    room()
    pop = places.Kept.pop
    monkeypatch.setattr(places.Kept, "pop", lambda stack: (seen.append(opened(home)), pop(stack))[1])
    mine = found(model, tuned, "mixed")
    assert torch.equal(mine[0], expected[0]) and mine[1] == expected[1]
    assert len(seen) == model.spec.layers and all(map(len, seen)), "it was in a file"
    assert not opened(home) and list(home.iterdir()) == before
    with Failing() as whole:
        found(model, tuned, "mixed")
    for after in range(0, whole.count, whole.count // 10):
        with pytest.raises(torch.OutOfMemoryError, match="pretended"), Failing(after):
            found(model, tuned, "mixed")
        assert_as_before(model)
        assert not opened(home) and list(home.iterdir()) == before


@pytest.fixture
def limited():
    """``limited(nbytes)``: within, no file can be larger."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextmanager
    def within(nbytes):
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return within


TOO_LARGE = r"home: the file is too large .*limit set by 'ulimit -f'"


@pytest.mark.parametrize("nbytes", [0, 4096, 60_000])
def test_a_full_disk_gets_a_sentence(frozen_tiny, room, limited, nbytes):
    model = frozen_tiny("llama", 4)
    tuned = values_of(model, "entries")
    room()
    with pytest.raises(UserError, match=TOO_LARGE), limited(nbytes):
        found(model, tuned, "mixed")
    assert_as_before(model)
    found(model, tuned, "mixed")


@pytest.mark.parametrize("nbytes", [1, 5000, 9999, 10_001, 19_999])
def test_wherever_in_a_tensor_it_gets_full(room, limited, nbytes):
    """Also in its last bytes, which Python would keep for later."""
    room()
    with pytest.raises(UserError, match=TOO_LARGE), limited(nbytes), kept(CPU, 1) as stack:
        stack.push(torch.zeros(10_000, dtype=torch.uint8))
        assert nbytes >= 10_000
        stack.push(torch.zeros(10_000, dtype=torch.uint8))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_disk_that_is_full_from_the_start_is_told(frozen_tiny, room, monkeypatch):
    model = frozen_tiny("llama", 4)
    room()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(DiskFull, match="home: the disk is full"):
        found(model, values_of(model, "entries"), "mixed")


def test_a_home_that_is_missing_is_made_for_its_owner_alone(room, home):
    room()
    with kept(CPU, 1):
        assert home.stat().st_mode & 0o077 == 0


def test_a_home_that_is_no_folder_gets_a_sentence(room, home):
    room()
    home.write_text("")
    with pytest.raises(UserError, match="cannot be written"), kept(CPU, 1):
        pytest.fail("there is no file")
