"""How much memory a run takes, from the recipe and the model spec alone: no weights, no forward pass.

The parts are what the engine holds at its peak, which is in the forward pass of the largest pack, of a step or of an
evaluation: at most `PACK_ROWS` rows, points × tokens (or one longer example of one point). Forward passes keep nothing,
so that only the layer at work counts; an estimator that back-propagates keeps the inputs of its blocks.
Each formula names the tensors that are alive; the tests hold it against a real run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch

from sparsezo_gui.answers import MemoryEstimate, Part
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.forward import BACKWARD_ROWS, PACK_ROWS
from sparsezo_gui.engine.generate import BATCH as TOGETHER
from sparsezo_gui.engine.generate import CACHE_BYTES
from sparsezo_gui.engine.layers import tables
from sparsezo_gui.engine.layers.integer import PIECE_BYTES
from sparsezo_gui.engine.layers.linear import LARGE_BYTES
from sparsezo_gui.engine.layers.streamed import KEPT as KEPT_BLOCKS
from sparsezo_gui.engine.objective import points_at_once
from sparsezo_gui.engine.passes import Shape, activations_of, kept_for_backward, largest, one_pass
from sparsezo_gui.engine.pretrained.spec import ModelSpec
from sparsezo_gui.engine.spaces.sparse import SAMPLED_BYTES
from sparsezo_gui.recipe.recipe import Recipe
from sparsezo_gui.recipe.registry import SPACES

RUNTIME = {"cpu": 522 * 2**20, "cuda": 500 * 2**20}
"""Bytes before any model. On a CPU 450 MiB that a process holds once it has imported torch 2.13 (CPU build, Linux),
transformers 5.23, bitsandbytes and datasets, and `BUFFERS` from the first forward pass; both were measured. On
a GPU, the usual size of a CUDA context with its libraries (not measured here)."""
KEPT = {"cpu": 0.5, "cuda": 0.0}
"""Part of the activations that the C library's allocator holds on top, as freed pieces (measured: 0.2 to 1)."""
KEPT_STATES = "Kept activations"
BLOCK = 64  # weights to four bytes of scales in NF4: an fp32 one, or a 16-bit one for each 32
COPIES = (
    2  # of what a block keeps for its backward pass: norms, rotations and the order of the rows take some (measured)
)
CANDIDATE_BYTES = 56  # a score, its place, and both again while the highest are chosen (measured)
GENERAL_TOKENS = 216  # of the longest passage of the general text (see `general`), at four characters each
RANK = 16  # of the adapters that the comparison assumes


def estimate(
    recipe: Recipe,
    spec: ModelSpec,
    device_kind: str,
    longest_tokens: int,
    tokens_per_batch: int,
    *,
    scored_tokens: int | None = None,
    evaluated: tuple[int, int] | None = None,
    written: int = 0,
    kept: int = 0,
    program: int = 0,
    rows: int | None = None,
    small: int | None = None,
    streamed: bool = False,
    available: int | None = None,
    capacity: int | None = None,
) -> MemoryEstimate:
    """Memory of a run of ``recipe``.

    ``device_kind`` is 'cpu' or 'cuda'. ``longest_tokens`` is the longest example (all its rows), ``tokens_per_batch``
    those of a whole step, ``scored_tokens`` the places of the largest pack at which logits are needed; unknown, they
    are taken as all of the longest example. ``evaluated`` has tokens and such places of the largest pack of an
    evaluation, and ``written`` those of the longest prompt with its answer, where evaluations write answers.
    ``kept`` are bytes of the activations that enter the tuned blocks, where they are held for the run.
    ``program`` is what this process takes without a model, where that is more than usual. ``rows`` of activations go
    through at once; None takes the device's usual number. ``small`` is the total with fewer of them, if known.
    ``streamed`` blocks stay in the host's memory. ``available`` and ``capacity`` (bytes) are asked of the device
    when left out.
    """
    device = torch.device(device_kind)
    if available is None:
        available = devices.memory_free(device) + devices.memory_used(device)
    if capacity is None:
        capacity = devices.memory_total(device)
    if rows is None:
        rows = PACK_ROWS[device_kind]
    space, tunable = SPACES[recipe.mask.space], recipe.mask.tunable(spec)
    shapes = [*_step(recipe, device_kind, longest_tokens, tokens_per_batch, scored_tokens, rows)]
    shape, width, runtime = shapes[0], shapes[0].width, max(RUNTIME[device_kind], program)
    general = min(GENERAL_TOKENS, recipe.data.max_tokens)
    passes = [*shapes, Shape(1, general, general, general, width)]  # the last at the end, with logits at every token
    if evaluated is not None:
        passes.append(Shape(1, evaluated[0], longest_tokens, evaluated[1], width))
    workspace = max((_workspace(recipe, tunable, each, device_kind) for each in shapes), key=lambda part: part.bytes)
    activations, logits = largest([one_pass(spec, each, workspace, device_kind) for each in passes], device_kind)
    free = activations.bytes + logits.bytes
    parts = (
        *_weights(spec, recipe.model.bits, width, streamed, space.in_place, device_kind),
        *space.memory(recipe, tunable, width),
        *_backwards(recipe, tunable, shapes[-1].tokens, width, free + workspace.bytes),
        activations,
        logits,
        workspace,
        *_writing(spec, written, width, free),
    )
    if kept:
        parts = (*parts, Part(KEPT_STATES, kept, "What enters the tuned blocks, computed once per example."))
    parts = (
        *parts,
        *_search(recipe, spec, width, _sum(parts[4:])),
        Part(
            "Runtime",
            runtime + round(KEPT[device_kind] * activations.bytes),
            "The program, PyTorch and its libraries, and memory kept by the allocator.",
        ),
    )
    total = _sum(parts)
    others = _others(spec, shape, runtime)
    return MemoryEstimate(parts, available, capacity, rows, total if small is None else small, others)


def _step(recipe: Recipe, device_kind: str, longest: int, batch: int, scored: int | None, rows: int) -> Iterator[Shape]:
    """The largest passes of a step, from tokens of the longest example and of the batch: of those without a backward
    pass, and of those with one."""
    bits, compute, estimator = recipe.model.bits, recipe.model.compute, recipe.estimator
    width = 2 if compute == "bfloat16" or (compute == "auto" and device_kind == "cuda" and bits < 32) else 4

    def shape(passes: int, rows: int, backwards: bool = False) -> Shape:
        points = points_at_once(passes, longest, rows, compute)
        tokens = max(longest, min(batch, rows // points))
        return Shape(points, tokens, longest, min(tokens, longest if scored is None else scored), width, backwards)

    if plain := max(estimator.plain_passes, recipe.update.forward_passes, recipe.selection.forward_passes):
        yield shape(plain, rows)
    if recipe.backwards:
        yield shape(1, min(rows, BACKWARD_ROWS[device_kind]), True)


def _writing(spec: ModelSpec, written: int, width: int, free: int) -> Iterator[Part]:
    """Keys and values of as many answers as are written at once, and what goes through a block with their prompts."""
    if written:
        token = 2 * spec.layers * spec.kv_heads * spec.head_dim * width
        tokens = max(written, min(TOGETHER * written, CACHE_BYTES // token))
        needed = tokens * token + activations_of(spec, Shape(1, tokens, written, 1, width)).bytes
        yield Part(
            "Written answers",
            max(0, needed - free),
            "Keys and values while an evaluation generates answers, beyond the memory of a step.",
        )


def _search(recipe: Recipe, spec: ModelSpec, width: int, free: int) -> Iterator[Part]:
    """What the search takes beyond the ``free`` bytes that the run takes later."""
    if needed := search_bytes(recipe, spec, width):
        yield Part(
            "Finding the mask",
            max(0, needed - free),
            "Gradients of one block at a time, before the run, beyond the memory of the run itself.",
        )


def search_bytes(recipe: Recipe, spec: ModelSpec, width: int) -> int:
    """What finding the mask takes besides the model: the candidates among the scores of all weights, and with gradients
    a block's weights made dense, its sums, the gradient of one layer and its square, and what the block keeps of a
    sequence for its backward pass."""
    rule = recipe.mask
    found = CANDIDATE_BYTES * rule.tuned(spec) if getattr(rule, "scope", "") == "global" else 0
    if not rule.sums:
        return found
    kept = COPIES * getattr(rule, "tokens", 0) * kept_for_backward(spec) * width
    return found + (width + 4 * rule.sums) * spec.eligible // spec.layers + 2 * 4 * spec.largest + kept


def _sum(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)


def _weights(
    spec: ModelSpec, bits: int, width: int, streamed: bool, in_place: bool, device_kind: str
) -> tuple[Part, ...]:
    statistics = {4: 4 * spec.eligible // BLOCK, 8: 4 * sum(rows for rows, _ in spec.linears.values())}
    ends = width * (spec.embeddings + spec.head)
    own = tables.narrow(spec, torch.float32 if width == 4 else torch.bfloat16, device_kind)
    if spec.halved:
        ends -= 2 * sum(math.prod(spec.shapes[name]) for name in own)
    share = KEPT_BLOCKS / spec.layers if streamed else 1
    where = f"{KEPT_BLOCKS} blocks at a time, with the others in host memory" if streamed else "all blocks"
    kept = "in the checkpoint's 16 bits" if own and spec.halved else "unquantised"
    name, moved = ("Tuned weights", ", updated in place") if in_place else ("Frozen weights", "")
    return (
        Part(
            name,
            round(share * spec.eligible * bits // 8),
            f"The linear layers of {where}, {bits} bits per weight{moved}.",
        ),
        Part(
            "Quantisation statistics",
            round(share * statistics.get(bits, 0)),
            "Scales that convert quantised numbers to weights.",
        ),
        Part("Embeddings and head", ends, f"The tables of {spec.vocabulary} tokens, {kept}."),
        Part("Other weights", spec.other * width, "Norms and biases, unquantised."),
    )


def _backwards(recipe: Recipe, spec: ModelSpec, tokens: int, width: int, free: int) -> Iterator[Part]:
    """The backward pass of a pack of so many ``tokens``: the inputs of its blocks, what one of them keeps, a whole
    weight, and gradients of the tuned values; less what the forward pass has left ``free`` by then."""
    estimator = recipe.estimator
    if recipe.backwards:
        blocks = min(estimator.suffix or spec.layers, len(spec.tunable_blocks))
        # The gradients of a basis, their copies of length one, and the basis itself.
        vectors = estimator.forward_passes if estimator.backwards else 3 * recipe.mask.refreshed
        inputs = blocks * tokens * spec.hidden * width + 4 * vectors * recipe.mask.tuned(spec)
        block = (COPIES * tokens * kept_for_backward(spec) + spec.largest) * width + SAMPLED_BYTES
        why = f"Inputs of {blocks} blocks for {tokens} tokens, what one block at a time keeps of them, and gradients."
        yield Part("Backpropagation", inputs + max(0, block - free), why)


def _workspace(recipe: Recipe, spec: ModelSpec, shape: Shape, device_kind: str) -> Part:
    """The largest weight made dense, on a CPU a span of it, with what is tuned of it.

    Products in integers need the codes of a layer's input, the input before it, and a piece of the products instead.
    """
    if recipe.model.compute == "int8":
        codes = shape.rows * spec.intermediate * (1 + 4)
        return Part("Workspace", codes + PIECE_BYTES, "Activations rounded to integers, and a part of their products.")
    largest, width = spec.largest, shape.width
    if device_kind == "cpu" and width * largest > LARGE_BYTES:
        largest = LARGE_BYTES // width
    return SPACES[recipe.mask.space].workspace(recipe, spec, shape, largest, device_kind)


def _others(spec: ModelSpec, shape: Shape, runtime: int) -> dict[str, int]:
    """LoRA, QLoRA and full fine-tuning with AdamW in 16-bit mixed precision of a pack of the same tokens, as users run
    them: with gradient checkpointing (Chen et al., arXiv 1604.06174; QLoRA, arXiv 2305.14314, section 2, reckons with
    it), and with logits at the learned places alone.

    A trained weight takes 16 bytes (weight and gradient in 16 bits, fp32 copy, two moments: Rajbhandari et al., arXiv
    1910.02054); adapters of rank `RANK` on every eligible layer are trained in fp32. What goes into each block is kept,
    and what one block keeps for its backward pass (see `_kept`). Logits are in 16 and 32 bits, with their gradient.
    """
    blocks = 2 * shape.tokens * (spec.hidden * spec.layers + kept_for_backward(spec))
    moving = blocks + (2 + 4 + 4) * spec.vocabulary * shape.scored
    adapters = 16 * RANK * sum(rows + columns for rows, columns in spec.linears.values())
    whole = spec.parameters - spec.eligible
    quantised = spec.eligible // 2 + 4 * spec.eligible // BLOCK + 2 * spec.largest
    return {
        "lora": runtime + moving + adapters + 2 * spec.parameters,
        "qlora": runtime + moving + adapters + 2 * whole + quantised,
        "full": runtime + moving + 16 * spec.parameters,
    }
