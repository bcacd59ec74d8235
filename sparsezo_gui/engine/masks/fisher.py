"""Squared gradients of frozen weights, block by block, with memory independent of the model's depth.

All sequences go through one block after the other, and the inputs of each block are saved to disk. Then, from the last
block to the first, each block runs again for all sequences, now with gradients: the gradient of one linear layer at a
time is computed from its output gradient and its input, squared, added and dropped. So a mask costs two forward passes
and a backward pass, with any amount of memory; gradients, sums and dense weights exist only for one block; and no
weight needs a gradient itself, so the weights stay in 4 bits. An interrupted search resumes after its last complete
block.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.data import Passage
from sparsezo_gui.engine.forward import scores
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.layers.blocks import Blocks, Call, grad_of
from sparsezo_gui.engine.layers.linear import FrozenLinear, Recorder, loss_scale, recorded
from sparsezo_gui.engine.layers.weights import DenseWeight
from sparsezo_gui.engine.masks.resumable import Unfinished, unfinished
from sparsezo_gui.engine.masks.rule import MaskRule
from sparsezo_gui.engine.masks.select import Selection
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress

STAGE = "Finding the sensitive weights"
MEMORY_SHARE = 0.5  # share of the free memory for the sums
TINY = torch.finfo(torch.float32).tiny


def kept_gradients(
    rule: MaskRule, model: FrozenModel, texts: Sequence[Sequence[Passage]], selection: Selection, by_row: bool = False
) -> Iterator[Progress | tuple[str, Tensor]]:
    """`squared_gradients` on ``texts`` in a search that may be interrupted; ``by_row`` gives each text equal weight."""
    passages = [passage for text in texts for passage in text]
    counts = [len(text) for text in texts]
    held = {
        f"{type(layer).__name__} {type(layer.frozen).__name__} {layer.frozen.tensors[-1].dtype}"
        for layer in model.layers.values()
    }
    parts = (rule.model_dump_json(), model.fingerprint, model.device.type, model.dtype, sorted(held), counts, passages)
    # Identifies the search: rule, weights, their format and compute type, and text.
    with unfinished(hashlib.sha256(repr(parts).encode()).hexdigest()[:32]) as work:
        yield from squared_gradients(model, passages, work, selection, tasks=counts if by_row else ())


def squared_gradients(
    model: FrozenModel,
    passages: Sequence[Passage],
    work: Unfinished,
    selection: Selection,
    budget: int | None = None,
    tasks: Sequence[int] = (),
) -> Iterator[Progress | tuple[str, Tensor]]:
    """Name and summed squared gradients, fp32 (out, in), of each layer: Σ over passages of (∂ mean loss / ∂W)².

    The last block's layers come first. ``selection`` is the caller's state: it is saved in ``work`` with each finished
    block, and restored from there. ``budget`` limits the bytes of the sums; None asks the device. With ``tasks``, the
    number of passages per task, each task's sum is divided by its sum over each row (a row of zeros stays zero), and
    the results are added.
    """
    search, lowest = _Search(model, passages, work), model.spec.tunable_blocks[0]
    count, total = len(passages), (3 * len(search.blocks) - 2 * lowest + 1) * len(passages)
    ends = set(itertools.accumulate(tasks))
    budget = budget or int(MEMORY_SHARE * devices.memory_free(model.device))
    for boundary in range(work.hidden, len(search.blocks) + 1):
        for done in search.forward(boundary):
            yield Progress(STAGE, boundary * count + done, total, "passes")
        work.finish("hidden")
    if not work.gradients:
        search.losses()
        work.finish("gradient")
    selection.load(work.selection)
    for number in reversed(range(lowest, len(search.blocks) + 1 - work.gradients)):
        # A pass with gradients counts as two.
        before = (3 * len(search.blocks) - 2 * number - 1) * count
        groups = _groups(search.blocks.layers[number], budget // 2 if tasks else budget)
        for part, group in enumerate(groups):
            sums = {layer.name: torch.zeros(layer.frozen.shape, device=model.device) for layer in group}
            shares = {name: torch.zeros_like(each) for name, each in sums.items()} if tasks else sums
            for done in search.backward(number, group, sums):
                if done in ends:
                    for name, each in sums.items():
                        shares[name] += each.div_(each.sum(dim=1, keepdim=True).clamp_min(TINY))
                        each.zero_()
                yield Progress(STAGE, before + 2 * (part * count + done) // len(groups), total, "passes")
            del sums
            for name in list(shares):
                yield name, shares.pop(name)
        selection.save(work.next_selection)
        work.finish("gradient")
    yield Progress(STAGE, total, total, "passes")


def _groups(layers: list[FrozenLinear], budget: int) -> list[list[FrozenLinear]]:
    """Layers of a block grouped so that the sums of a group fit into ``budget`` bytes: mostly a single group."""
    groups: list[list[FrozenLinear]] = []
    room = 0
    for layer in layers:
        size = 4 * layer.frozen.shape[0] * layer.frozen.shape[1]
        if not groups or size > room:
            groups.append([])
            room = budget
        groups[-1].append(layer)
        room -= size
    return groups


class _Search:
    """Hidden states of sequences, and their gradients, at the boundaries of blocks; both are stored in ``work``.

    Boundary ``b`` is the input of block ``b``; the last one is the output of the last block.
    """

    def __init__(self, model: FrozenModel, passages: Sequence[Passage], work: Unfinished) -> None:
        self.model, self.work = model, work
        self.ids = [torch.tensor([passage.tokens], device=model.device) for passage in passages]
        self.places = [torch.tensor(passage.places, device=model.device) for passage in passages]
        self.blocks = Blocks(model)
        self.scale = loss_scale(model.dtype)
        self._calls: dict[int, list[Call]] = {}
        work.plan([each.shape[1] for each in self.ids], model.spec.hidden, model.dtype, len(self.blocks) + 1)

    @torch.no_grad()
    def forward(self, boundary: int) -> Iterator[int]:
        """Computes hidden states at ``boundary``; yields the number of finished sequences."""
        with self.work.writing("hidden", boundary) as write:
            for index, ids in enumerate(self.ids):
                if boundary == 0:
                    write(self.blocks.enter(input_ids=ids)[0])
                else:
                    hidden = self._read("hidden", boundary - 1, index)
                    write(self.blocks.run(boundary - 1, hidden, self._call(index, boundary - 1)))
                yield index + 1

    def losses(self) -> None:
        """Computes gradients at the last boundary. Raises `UserError` if the loss is not finite."""
        last = len(self.blocks)
        with self.work.writing("gradient", last) as write:
            for index, (ids, places) in enumerate(zip(self.ids, self.places, strict=True)):
                hidden = self._read("hidden", last, index).requires_grad_()
                states, head = self.blocks.leave(hidden, input_ids=ids)
                inverse = torch.arange(len(places), device=places.device)
                picked = scores(head, states[:, places], inverse, ids[0, places + 1], self.model.vocabulary)
                loss = -picked.mean()
                if not loss.isfinite():
                    raise UserError("The model's loss on the mask's text is not finite. Use more bits or another text.")
                (loss * self.scale).backward()
                write(grad_of(hidden))

    def backward(self, number: int, group: list[FrozenLinear], sums: dict[str, Tensor]) -> Iterator[int]:
        """Adds the squared gradients of block ``number`` to ``sums``; yields the number of finished sequences."""
        with self.work.writing("gradient", number) as write, _dense(self.blocks.layers[number], self.model.device):
            for index in range(len(self.ids)):
                hidden, gradient = self._read("hidden", number, index), self._read("gradient", number + 1, index)
                with recorded(group, self._recorder(sums)):
                    run = partial(self._run, index, number)
                    write(self.blocks.backward(number, hidden, gradient, run))
                yield index + 1

    def _run(self, index: int, number: int, hidden: Tensor) -> Tensor:
        return self.blocks.run(number, hidden, self._call(index, number))

    def _recorder(self, sums: dict[str, Tensor]) -> Callable[[FrozenLinear], Recorder]:
        def of(layer: FrozenLinear) -> Callable[[Tensor, Tensor], None]:
            def record(gradient: Tensor, x: Tensor) -> None:
                grad = gradient.t().float() @ x.float() / self.scale
                sums[layer.name].addcmul_(grad, grad)

            return record

        return of

    def _read(self, kind: str, boundary: int, index: int) -> Tensor:
        return self.work.read(kind, boundary, index).to(self.model.device)

    def _call(self, index: int, number: int) -> Call:
        """The arguments of block ``number``, which depend on the number of tokens, not on the tokens."""
        ids = self.ids[index]
        if ids.shape[1] not in self._calls:
            self._calls[ids.shape[1]] = self.blocks.enter(input_ids=ids)[1]
        return self._calls[ids.shape[1]][number]


@contextmanager
def _dense(layers: list[FrozenLinear], device: torch.device) -> Iterator[None]:
    """Inside, the layers' weights are dense on ``device``: all sequences pass through them twice."""
    stores = [layer.frozen for layer in layers]
    try:
        for layer in layers:
            layer.hold(DenseWeight(layer.frozen.to(device).dense(layer.dtype)))
        yield
    finally:
        for layer, frozen in zip(layers, stores, strict=True):
            layer.hold(frozen)
