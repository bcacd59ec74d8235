"""Counter-based random numbers: a pure function of (seed, stream, step, probe, index), the same on every device.

Specification (version 2; changing any rule below needs a new version and a new ``GENERATOR`` id):

- Words come from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the
  64-bit seed (low word, high word). The counter's words are (block, step, probe, number of the stream), each 32 bits;
  block ``b`` yields the four 32-bit words 4b … 4b+3 of that (stream, step, probe).
- Each purpose has its own stream (`Stream`): a number, a range of steps and a range of probes, and no two streams share
  all three. So no two uses ever see the same words, and drawing more in one never shifts another. A new purpose gets
  the next number.
- Normal value ``i`` of a direction is entry ``h`` of a table of 65 536 normal quantiles, where ``h`` is the i-th 16-bit
  half-word, the low half of each word first. Entry ``h`` is Φ⁻¹((h + ½) / 65536) scaled so that the table's variance is
  exactly one, rounded to fp32. The values are bounded (|z| < 4.4), symmetric, of mean zero and unit variance, which is
  all the estimators need; and a table look-up gives the same bits on CPU and GPU, which log and cos do not.
- Sign ``i`` of a direction of signs is +1 where bit ``i`` of the same words (low bits first) is set, else −1.
- Uniform number ``i`` is the upper 24 bits of word ``i``, times 2⁻²⁴, in [0, 1).
- A permutation of n things sorts them by 64-bit keys, each of two consecutive words (low word first), ties by index.
- A choice of k out of n things in a step: the first k of their permutation.
- Value ``i`` is rounded in a step by the i-th 16-bit half-word, low half of each word first.

Version 1 differs only in this: streams 6 and 7 were part of stream 5, and initial states were drawn with seed 0 (so
LOREN's state began with the words of SubZero's first basis in a run with seed 0). Runs that started with version 1
keep it; see `Stream.of` and `Source.state`.

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
    """The purposes of random numbers: the stream's number, its steps and its probes."""

    DIRECTIONS = 0, _EVERY, range(2**31)
    """Directions of a step; those of step 0 are used to measure rounding."""
    FEATURES = 0, _EVERY, range(2**31, 2**32)
    """Directions for the features of a core set."""
    ORDER = 1, range(_LAST), _EVERY
    """Order of the training examples; steps are epochs."""
    APART = 1, range(_LAST, 2**32), _EVERY
    """Examples set aside to compare learning rates."""
    MASK = 2, _EVERY, _EVERY
    """Random masks; steps are weight numbers."""
    SAMPLES = 3, _EVERY, range(_LAST)
    """Values perturbed in a step."""
    CHOICE = 3, _EVERY, range(_LAST, 2**32)
    """Blocks tuned in a step."""
    ROUNDING = 4, _EVERY, _EVERY
    """Stochastic rounding of 16-bit values."""
    BASES = 5, _EVERY, _EVERY
    """Bases of random subspaces; steps are subspace numbers, probes number the two bases of each weight."""
    STATES = 6, _EVERY, _EVERY
    """Initial states of estimators."""
    SEARCHES = 7, _EVERY, _EVERY
    """Initial bases of a search for better ones; probes are weight numbers."""
    ADAPTERS = 8, _EVERY, _EVERY
    """Initial LoRA weights of a benchmark; probes are their numbers."""
    LORA = 9, _EVERY, _EVERY
    """Initial LoRA weights of a run; probes are weight numbers."""

    def at(self, step: int, probe: int) -> tuple[int, int, int]:
        """The counter's last three words. Raises IndexError outside the stream's range."""
        number, steps, perturbations = self.value
        return steps[step], perturbations[probe], number

    def of(self, generator: str | None) -> Stream:
        """The stream used in place of this one in runs with ``generator`` (None: the newest)."""
        return Stream.BASES if generator == FIRST and self in (Stream.STATES, Stream.SEARCHES) else self


_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF
BLOCKS_AT_ONCE = 8192  # blocks of four words, on a CPU


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
    """`words` as little-endian uint32: NumPy's unsigned integers are two to three times faster here, pieces that fit
    the cache are twice as fast again, and working in place half as fast again."""
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
    """The two words of the key for each of the ten rounds."""
    k0, k1 = seed & _WORD, (seed >> 32) & _WORD
    for _ in range(10):
        yield k0, k1
        k0, k1 = k0 + _WEYL[0] & _WORD, k1 + _WEYL[1] & _WORD


def _philox(seed: int, c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds on counters 0 … 2³²−1 in 64 bits, signed.

    Products wrap around, but their low 64 bits are correct; masking after the shift makes it a logical shift.
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
        # All indices are in the table; skipping the bounds check is twice as fast.
        return torch.from_numpy(np.take(_quantiles(torch.device("cpu")).numpy(), halves, mode="wrap"))
    drawn = _halves(seed, stream, step, probe, count, device, first)
    return _quantiles(drawn.device)[drawn]


def rounding(seed: int, step: int, count: int, device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """Rounding thresholds of ``count`` values from the ``first`` (a multiple of 8) on, int32 (count,), 0 … 2¹⁶−1."""
    if torch.device(device).type == "cpu":
        halves = _cpu_words(seed, Stream.ROUNDING, step, 0, -(-count // 2), first // 2).view("<u2")[:count]
        return torch.from_numpy(halves.astype(np.int32))
    return _halves(seed, Stream.ROUNDING, step, 0, count, device, first).int()


def _halves(
    seed: int, stream: Stream, step: int, probe: int, count: int, device: torch.device | str, first: int
) -> Tensor:
    drawn = words(seed, stream, step, probe, -(-count // 2), device, first // 2)
    return torch.stack((drawn & 0xFFFF, drawn >> 16), dim=1).view(-1)[:count]


def signs(seed: int, step: int, probe: int, count: int, device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """A direction of ``count`` independent signs, each +1 or −1, fp32 (count,), from the ``first`` (a multiple of 128)
    on."""
    drawn = words(seed, Stream.DIRECTIONS, step, probe, -(-count // 32), device, first // 32)
    bits = drawn[:, None] >> torch.arange(32, device=drawn.device) & 1
    return (2.0 * bits - 1.0).view(-1)[:count].float()


def uniform(seed: int, step: int, probe: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """``count`` uniform numbers, fp32 (count,), in [0, 1)."""
    return (words(seed, Stream.SAMPLES, step, probe, count, device) >> 8).float() / 2**24


@dataclass(frozen=True)
class Source:
    """The random numbers of one step for ``size`` tuned values, as defined by ``generator``."""

    seed: int
    step: int
    size: int
    device: torch.device | str = "cpu"
    generator: str = GENERATOR

    def normal(self, perturbations: int) -> Tensor:
        """Directions of normal values, fp32 (probes, size)."""
        return self._stacked(normal, perturbations)

    def signs(self, perturbations: int) -> Tensor:
        """Directions of signs, fp32 (probes, size)."""
        return self._stacked(signs, perturbations)

    def uniform(self, perturbations: int) -> Tensor:
        """Numbers in [0, 1), fp32 (probes, size)."""
        return self._stacked(uniform, perturbations)

    def state(self) -> Tensor:
        """Normal values for an initial state, fp32 (size,)."""
        seed = 0 if self.generator == FIRST else self.seed
        return normal(seed, self.step, 0, self.size, self.device, stream=Stream.STATES.of(self.generator))

    def _stacked(self, draw: Callable[..., Tensor], perturbations: int) -> Tensor:
        drawn = [draw(self.seed, self.step, probe, self.size, self.device) for probe in range(perturbations)]
        return torch.stack(drawn) if drawn else torch.empty(0, self.size, device=self.device)


def permutation(seed: int, epoch: int, count: int, stream: Stream = Stream.ORDER) -> np.ndarray:
    """Order of ``count`` examples in ``epoch``, int64 (count,)."""
    return _permuted(words(seed, stream, epoch, 0, 2 * count))


def choice(seed: int, step: int, chosen: int, count: int) -> list[int]:
    """The ``chosen`` indices out of ``count`` in a step, ascending."""
    return sorted(_permuted(words(seed, Stream.CHOICE, step, 0, 2 * count))[:chosen].tolist())


def _permuted(drawn: Tensor) -> np.ndarray:
    keys = drawn.numpy().astype(np.uint64)
    return np.argsort(keys[0::2] | keys[1::2] << np.uint64(32), kind="stable")
