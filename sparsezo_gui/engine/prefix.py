"""What enters the first tuned block, computed once per example: no step of a run changes the blocks below it.

Suffix tuning puts tuned values into the last blocks only ([mask] blocks). The hidden states that enter these depend on
the frozen model and an example's tokens alone, so that they are kept for all steps, points, epochs, evaluations and
runs: in memory, and in a file of the program's folder from which other runs read them too.

They are kept in 16 bits, as fp16 with a power of two for each token, so that the largest number of a token keeps 11
bits and one 2⁻¹⁴ of it still does. What is used is always what would be kept, and each sequence is computed on its own:
losses depend neither on what happens to be kept nor on which examples share a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.forward import packs, running, scores
from sparsezo_gui.engine.layers.blocks import Blocks
from sparsezo_gui.engine.pack import Pack
from sparsezo_gui.engine.route import route
from sparsezo_gui.engine.store import Store
from sparsezo_gui.sizes import size

if TYPE_CHECKING:
    from sparsezo_gui.engine.frozen import FrozenModel

VERSION = 1
SHARE = 0.25  # of the free memory that kept states may take
TOP = 15  # exponent below which the largest number of a token is scaled: fp16 reaches 2^16


class Prefix:
    """The blocks of ``model`` before its first tunable one, and the states that they give."""

    def __init__(self, model: FrozenModel) -> None:
        self.model, self.blocks = model, Blocks(model)
        self.first = model.spec.tunable_blocks[0]
        self.room = int(SHARE * devices.memory_free(torch.device("cpu")))
        self._held: dict[bytes, bytes] = {}
        self._store = Store(self._key())

    def notice(self, *splits: Iterable[Encoded]) -> str:
        """What will be kept, in a sentence."""
        tokens = sum(len(row.tokens) for split in splits for example in split for row in example.joined)
        return (
            f"The first {self.first} of {len(self.blocks)} blocks run once per example; what they give is kept, up to "
            f"{size(nbytes(tokens, self.model.spec.hidden))} in memory and on disk ('sparsezo cache' lists it)."
        )

    def log_probabilities(self, pack: Pack, points: int) -> Tensor:
        """`sparsezo_gui.engine.forward.log_probabilities`, from the first tunable block on."""
        with route(self.model, pack, points) as path:
            hidden = path.enter()
            for number in range(path.first, len(self.blocks)):
                hidden = path.run(number, hidden)
            states, head = path.leave(hidden)
            return scores(head, states, pack.inverse, pack.targets, self.model.vocabulary)

    @torch.no_grad()
    def states(self, pack: Pack, points: int) -> Tensor:
        """Input of the first tunable block, (rows, tokens, hidden), the same for each of ``points`` points."""
        states = [self._states(row) for row in pack.rows]
        if packs(self.model.module):
            hidden = torch.cat(states)[None]
        else:
            hidden = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
        return hidden.to(self.model.device, self.model.dtype).repeat(points, 1, 1)

    def keep(self, examples: Iterable[Encoded]) -> None:
        """Computes the states of ``examples`` that are not kept yet."""
        for row in (row for example in examples for row in example.joined):
            self._states(row)

    @torch.no_grad()
    def _states(self, row: Row) -> Tensor:
        """fp32 (tokens, hidden) of one sequence, on the CPU."""
        key = hashlib.blake2b(repr((row.tokens, row.branches)).encode(), digest_size=16).digest()
        needed = nbytes(len(row.tokens), self.model.spec.hidden)
        found = self._held.get(key) or self._store.get(key, needed)
        if found is None:
            found = _written(self.computed(row))
            self._store.put(key, found)
        if key not in self._held and self.room >= needed:
            self._held[key] = found
            self.room -= needed
        return _read(found, len(row.tokens))

    @torch.no_grad()
    def computed(self, row: Row) -> Tensor:
        """The same, whether it is kept or not."""
        with running(self.model, Pack.of([row], 0, self.model.device), 1) as (inputs, _):
            hidden, calls = self.blocks.enter(**inputs)
            for number in range(self.first):
                hidden = self.blocks.run(number, hidden, calls[number])
        return hidden[0].float().cpu()

    def _key(self) -> str:
        """Identifies the numbers: the weights, how they are held and computed with, and the block."""
        model = self.model
        held = {f"{type(layer.frozen).__name__} {layer.frozen.tensors[-1].dtype}" for layer in model.layers.values()}
        grain = {getattr(getattr(layer.frozen, "state", None), "blocksize", 0) for layer in model.layers.values()}
        kinds = {type(layer).__name__ for layer in model.layers.values()}
        parts: tuple[Any, ...] = (VERSION, model.fingerprint, model.device.type, model.dtype, self.first)
        return hashlib.sha256(repr((*parts, sorted(held), sorted(grain), sorted(kinds))).encode()).hexdigest()[:32]


def nbytes(tokens: int, hidden: int) -> int:
    """Bytes kept for so many tokens."""
    return tokens * (2 * hidden + 2)


def _written(states: Tensor) -> bytes:
    """fp16 (tokens, hidden), then int16 (tokens,): states are fp16 · 2^(int16)."""
    _, exponents = states.abs().amax(dim=1).frexp()
    exponents = exponents - TOP
    return states.ldexp(-exponents[:, None]).half().numpy().tobytes() + exponents.short().numpy().tobytes()


def _read(content: bytes, tokens: int) -> Tensor:
    """The states that `_written` gave."""
    numbers = torch.from_numpy(np.frombuffer(content[: -2 * tokens], np.float16).copy())
    exponents = torch.from_numpy(np.frombuffer(content[-2 * tokens :], np.int16).copy())
    return numbers.view(tokens, -1).float().ldexp(exponents[:, None])
