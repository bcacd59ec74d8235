"""Our own counter-based random numbers: a pure function of (seed, stream, step, probe, index), alike on every device.

Specification (version 2; a change of any rule below is a new version and a new ``GENERATOR`` id):

- Words come from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the
  64-bit seed (low word, high word). The counter's words are (block, step, probe, number of the stream), each 32 bits;
  block ``b`` yields the four 32-bit words 4b … 4b+3 of that (stream, step, probe).
- Whatever random numbers are drawn for has a stream of its own (`Stream`): a number, a range of steps and a range of
  probes, of which no two streams share all three. So no two uses ever see the same words, and drawing more in one never
  moves another. A new use gets the next number.
- Normal value ``i`` of a direction is entry ``h`` of a table of 65 536 normal quantiles, where ``h`` is the i-th 16-bit
  half-word, the low half of each word first. Entry ``h`` is Φ⁻¹((h + ½) / 65536) scaled so that the table's variance is
  exactly one, rounded to fp32. The values are bounded (|z| < 4.4), symmetric, of mean zero and unit variance, which is
  all that the estimators ask of z; and a table look-up gives the same bits on CPU and GPU, which log and cos do not.
- Sign ``i`` of a direction of signs is +1 where bit ``i`` of the same words (low bits first) is set, else −1.
- Uniform number ``i`` is the upper 24 bits of word ``i``, times 2⁻²⁴, in [0, 1).
- A permutation of n things sorts them by 64-bit keys, each of two consecutive words (low word first), ties by index.
- Which k of n things a step takes: the first k of their permutation.
- Value ``i`` is rounded in a step by the i-th 16-bit half-word, low half of each word first.

Version 1 differs in this only: what belongs to streams 6 and 7 came from stream 5, and what states begin with was drawn
with seed 0 (so that LOREN's state began with the words of SubZero's first basis in a run of seed 0). Runs that began
with version 1 keep to it; see `Stream.of` and `Source.state`.

No global seed is read or set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, unique
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

FIRST, GENERATOR = "philox4x32-10/normal16/1", "philox4x32-10/normal16/2"
KNOWN = (FIRST, GENERATOR)
_EVERY, _LAST = range(2**32), 2**32 - 1


@unique
class Stream(Enum):
    """What random numbers are drawn for: the stream's number, its steps and its probes."""

    DIRECTIONS = 0, _EVERY, range(2**31)
    """Directions of a step; along those of step 0 rounding is looked for."""
    FEATURES = 0, _EVERY, range(2**31, 2**32)
    """Directions along which a core set is chosen."""
    ORDER = 1, range(_LAST), _EVERY
    """Order of the training examples; the steps are epochs."""
    APART = 1, range(_LAST, 2**32), _EVERY
    """Which examples learning rates are judged by."""
    MASK = 2, _EVERY, _EVERY
    """Random masks; the steps are numbers of weights."""
    SAMPLES = 3, _EVERY, range(_LAST)
    """Which values a step perturbs."""
    CHOICE = 3, _EVERY, range(_LAST, 2**32)
    """Which blocks a step tunes."""
    ROUNDING = 4, _EVERY, _EVERY
    """Rounding of values in 16 bits."""
    BASES = 5, _EVERY, _EVERY
    """Bases of random subspaces; the steps are numbers of subspaces, the probes of weights' sides."""
    STATES = 6, _EVERY, _EVERY
    """What the states of estimators begin with."""
    SEARCHES = 7, _EVERY, _EVERY
    """Bases that a search for better ones begins with; the probes are numbers of weights."""
    ADAPTERS = 8, _EVERY, _EVERY
    """LoRA weights that a benchmark begins with; the probes are their numbers."""

    def at(self, step: int, probe: int) -> tuple[int, int, int]:
        """The counter's last three words. Raises IndexError for a place outside of the stream."""
        number, steps, probes = self.value
        return steps[step], probes[probe], number

    def of(self, generator: str | None) -> Stream:
        """The stream that is this one in runs of ``generator`` (None: of the newest)."""
        return Stream.BASES if generator == FIRST and self in (Stream.STATES, Stream.SEARCHES) else self


_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF
BLOCKS_AT_ONCE = 8192  # of four words on a CPU


def words(
    seed: int, stream: Stream, step: int, probe: int, count: int, device: torch.device | str = "cpu", first: int = 0
) -> Tensor:
    """``count`` 32-bit words of ``stream`` from the ``first`` (a multiple of 4) on, int64 (count,), each 0 … 2³²−1."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(_cpu_words(seed, stream, step, probe, count, first).astype(np.int64))
    c0 = torch.arange(first // 4, first // 4 - (-count // 4), dtype=torch.int64, device=device)
    rest = (torch.full_like(c0, word) for word in stream.at(step, probe))
    return torch.stack(_philox(seed, c0, *rest), dim=1).view(-1)[:count]


def _cpu_words(seed: int, stream: Stream, step: int, probe: int, count: int, start: int = 0) -> np.ndarray:
    """`words` as little endian uint32: NumPy's unsigned numbers are two to three times as fast here, in pieces that
    stay in the cache twice as fast again, and in place half as fast again."""
    found, place = np.empty((-(-count // 4), 4), "<u4"), stream.at(step, probe)
    room = np.empty((6, min(BLOCKS_AT_ONCE, len(found))), np.uint64)
    for first in range(0, len(found), BLOCKS_AT_ONCE):
        c0, c1, c2, c3, p0, p1 = room[:, : len(found) - first]
        c0[:] = np.arange(first, first + len(c0), dtype=np.uint64)
        c0 += np.uint64(start // 4)
        for counter, word in zip((c1, c2, c3), place, strict=True):
            counter.fill(word)
        for k0, k1 in _keys(seed):
            np.multiply(c0, np.uint64(_MULTIPLIERS[0]), out=p0)
            np.multiply(c2, np.uint64(_MULTIPLIERS[1]), out=p1)
            np.right_shift(p1, np.uint64(32), out=c0)
            c0 ^= c1
            c0 ^= np.uint64(k0)
            np.right_shift(p0, np.uint64(32), out=c2)
            c2 ^= c3
            c2 ^= np.uint64(k1)
            np.bitwise_and(p1, np.uint64(_WORD), out=c1)
            np.bitwise_and(p0, np.uint64(_WORD), out=c3)
        for column, counter in enumerate((c0, c1, c2, c3)):
            found[first : first + len(c0), column] = counter
    return found.reshape(-1)[:count]


def _keys(seed: int) -> Iterator[tuple[int, int]]:
    """The two words of the key in each of the ten rounds."""
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        yield k0, k1
        k0, k1 = k0 + _WEYL[0] & _WORD, k1 + _WEYL[1] & _WORD


def _philox(seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds on counters 0 … 2³²−1 in 64 bits, signed.

    Products wrap around, but their low 64 bits are right; masking after the shift makes it a logical one.
    """
    for k0, k1 in _keys(seed):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
    return c0, c1, c2, c3


@cache
def _quantiles(device: torch.device) -> Tensor:
    upper = [NormalDist().inv_cdf((32768 + h + 0.5) / 65536) for h in range(32768)]
    table = np.array([-x for x in reversed(upper)] + upper)
    return torch.from_numpy((table / np.sqrt(np.mean(table**2))).astype(np.float32)).to(device)


def normal(
    seed: int, step: int, probe: int, count: int, device: torch.device | str = "cpu", first: int = 0,
    stream: Stream = Stream.DIRECTIONS,
) -> Tensor:  # fmt: skip
    """A direction: ``count`` independent standard normal values, fp32 (count,), of one probe of one step, from the
    ``first`` (a multiple of 8) on."""
    if torch.device(device).type == "cpu":
        halves = _cpu_words(seed, stream, step, probe, -(-count // 2), first // 2).view("<u2")[:count]
        # All are in the table; the way that does not look is twice as fast.
        return torch.from_numpy(np.take(_quantiles(torch.device("cpu")).numpy(), halves, mode="wrap"))
    drawn = _halves(seed, stream, step, probe, count, device, first)
    return _quantiles(drawn.device)[drawn]


def rounding(seed: int, step: int, count: int, device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """By what ``count`` values are rounded from the ``first`` (a multiple of 8) on, int32 (count,), each 0 … 2¹⁶−1."""
    if torch.device(device).type == "cpu":
        halves = _cpu_words(seed, Stream.ROUNDING, step, 0, -(-count // 2), first // 2).view("<u2")[:count]
        return torch.from_numpy(halves.astype(np.int32))
    return _halves(seed, Stream.ROUNDING, step, 0, count, device, first).int()


def _halves(
    seed: int, stream: Stream, step: int, probe: int, count: int, device: torch.device | str, first: int
) -> Tensor:
    drawn = words(seed, stream, step, probe, -(-count // 2), device, first // 2)
    return torch.stack((drawn & 0xFFFF, drawn >> 16), dim=1).view(-1)[:count]


def signs(
    seed: int, step: int, probe: int, count: int, device: torch.device | str = "cpu", first: int = 0
) -> Tensor:
    """A direction of ``count`` independent signs, each +1 or −1, fp32 (count,), from the ``first`` (a multiple of 128)
    on."""
    drawn = words(seed, Stream.DIRECTIONS, step, probe, -(-count // 32), device, first // 32)
    bits = drawn[:, None] >> torch.arange(32, device=drawn.device) & 1
    return (2.0 * bits - 1.0).view(-1)[:count].float()


def uniform(seed: int, step: int, probe: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """``count`` numbers to sample values by, fp32 (count,), in [0, 1)."""
    return (words(seed, Stream.SAMPLES, step, probe, count, device) >> 8).float() / 2**24


@dataclass(frozen=True)
class Source:
    """The random numbers of one step for ``size`` tuned values, as ``generator`` has them."""

    seed: int
    step: int
    size: int
    device: torch.device | str = "cpu"
    generator: str = GENERATOR

    def normal(self, probes: int) -> Tensor:
        """Directions of normal values, fp32 (probes, size)."""
        return self._stacked(normal, probes)

    def signs(self, probes: int) -> Tensor:
        """Directions of signs, fp32 (probes, size)."""
        return self._stacked(signs, probes)

    def uniform(self, probes: int) -> Tensor:
        """Numbers in [0, 1), fp32 (probes, size)."""
        return self._stacked(uniform, probes)

    def state(self) -> Tensor:
        """Normal values that a state begins with, fp32 (size,)."""
        seed = 0 if self.generator == FIRST else self.seed
        return normal(seed, self.step, 0, self.size, self.device, stream=Stream.STATES.of(self.generator))

    def _stacked(self, draw: Callable[..., Tensor], probes: int) -> Tensor:
        drawn = [draw(self.seed, self.step, probe, self.size, self.device) for probe in range(probes)]
        return torch.stack(drawn) if drawn else torch.empty(0, self.size, device=self.device)


def permutation(seed: int, epoch: int, count: int, stream: Stream = Stream.ORDER) -> np.ndarray:
    """Order of ``count`` examples in ``epoch``, int64 (count,)."""
    return _permuted(words(seed, stream, epoch, 0, 2 * count))


def choice(seed: int, step: int, chosen: int, count: int) -> list[int]:
    """Which ``chosen`` of ``count`` things a step takes, ascending."""
    return sorted(_permuted(words(seed, Stream.CHOICE, step, 0, 2 * count))[:chosen].tolist())


def _permuted(drawn: Tensor) -> np.ndarray:
    keys = drawn.numpy().astype(np.uint64)
    return np.argsort(keys[0::2] | keys[1::2] << np.uint64(32), kind="stable")
