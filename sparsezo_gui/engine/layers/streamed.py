"""Frozen blocks that stay in the host's memory and come to the device one ahead of the computation.

For models larger than the device (ZO2, arXiv 2503.12668): while a block computes, the stores of the next one are copied
in a stream of their own, from pinned memory; two blocks at most are on the device. Forward passes need each block once
and all points of a step go through it together, so that a step moves every frozen byte once per pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.weights import FrozenWeight
from sparsezo_gui.engine.pretrained.spec import ModelSpec

ROOM = 3 * 2**29  # bytes of a GPU that must remain beside the weights: activations, logits, tuned values, context
KEPT = 2  # blocks on the device at once


def needed(spec: ModelSpec, bits: int, width: int, available: int) -> bool:
    """Whether blocks must be streamed into a GPU of ``available`` bytes, which takes ``width`` for a whole weight."""
    whole = spec.parameters - spec.eligible
    return spec.eligible * bits // 8 + whole * width + ROOM > available


class Streamed:
    """Makes ``blocks`` take their stores from the host. ``device`` is where they compute."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device = device
        self.layers = [[layer for layer in block.modules() if isinstance(layer, FrozenLinear)] for block in blocks]
        self.hosted = [[layer.frozen.pinned() if _on_gpu(device) else layer.frozen for layer in layers]
                       for layers in self.layers]  # fmt: skip
        self.here: dict[int, tuple[list[FrozenWeight], Any]] = {}
        """Stores on the device by number of block, and the event after which they are whole."""
        self._stream = torch.cuda.Stream(device) if _on_gpu(device) else None
        self._resting = False
        self._held: int | None = None
        for number, block in enumerate(blocks):
            for layer, frozen in zip(self.layers[number], self.hosted[number], strict=True):
                layer.frozen = frozen
            block.register_forward_pre_hook(lambda _block, _args, number=number: self._enter(number))
            block.register_forward_hook(lambda *_, number=number: self._leave(number), always_call=True)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Inside, blocks are called that do not compute, and nothing is fetched for them."""
        before, self._resting = self._resting, True
        try:
            yield
        finally:
            self._resting = before

    @contextmanager
    def holding(self, number: int) -> Iterator[None]:
        """Inside, the stores of block ``number`` are on the device, also for its backward pass; those of the block
        before it set out."""
        if self._held == number:
            yield
            return
        resting, self._resting = self._resting, False
        try:
            self._enter(number, following=max(0, number - 1))
            self._held = number
            yield
        finally:
            self._held = None
            self._leave(number)
            self._resting = resting

    def _enter(self, number: int, following: int | None = None) -> None:
        """Block ``number`` is about to compute: its stores are awaited, and those of the next one set out."""
        if self._resting or self._held == number:
            return
        following = (number + 1) % len(self.layers) if following is None else following
        for other in self.here.keys() - {number, following}:  # a mask is found from the last block to the first
            del self.here[other]
        self._fetch(number)
        stores, ready = self.here[number]
        if ready is not None:
            torch.cuda.current_stream(self.device).wait_event(ready)
        for layer, host, frozen in zip(self.layers[number], self.hosted[number], stores, strict=True):
            if layer.frozen is host:  # finding a mask puts dense weights in their place
                layer.hold(frozen)
        self._fetch(following)

    def _fetch(self, number: int) -> None:
        if number in self.here:
            return
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            stores = [frozen.to(self.device) for frozen in self.hosted[number]]
            ready = None if self._stream is None else self._stream.record_event()
        self.here[number] = (stores, ready)

    def _leave(self, number: int) -> None:
        """Block ``number`` has computed, or failed, maybe before its stores were there."""
        if self._resting or self._held == number or number not in self.here:
            return
        stores, _ = self.here.pop(number)
        for layer, host, frozen in zip(self.layers[number], self.hosted[number], stores, strict=True):
            if layer.frozen is frozen:
                layer.hold(host)
            if self._stream is not None:
                # The memory was taken in the copying stream; it is free again once the computation has used it.
                frozen.used_by(torch.cuda.current_stream(self.device))


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
