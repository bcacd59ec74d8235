"""What one pass of a model takes beside its weights: activations and logits."""

from __future__ import annotations

from dataclasses import dataclass

from sparsezo_gui.answers import Part
from sparsezo_gui.engine.forward import BACKWARD_LOGITS_BYTES, LOGITS_BYTES
from sparsezo_gui.engine.pretrained.spec import ModelSpec


@dataclass(frozen=True)
class Shape:
    """What one forward pass looks like: rows of activations, label places, bytes of a number in them, and whether a
    backward pass follows."""

    points: int
    tokens: int
    longest: int
    scored: int
    width: int
    backwards: bool = False

    @property
    def rows(self) -> int:
        return self.points * self.tokens


def one_pass(spec: ModelSpec, shape: Shape, workspace: Part, device_kind: str) -> tuple[Part, Part]:
    """Activations and logits of one forward pass."""
    active = activations_of(spec, shape)
    # The C library's allocator keeps freed activations, and asks the system for logits, which are large (measured).
    free = 0 if device_kind == "cpu" else active.bytes + workspace.bytes
    return active, _logits(spec, shape, free)


def largest(passes: list[tuple[Part, Part]], device_kind: str) -> tuple[Part, Part]:
    """Of all passes of a run. Activations that the C library keeps of one are still there beside logits of another."""
    if device_kind == "cpu":
        active, logits = zip(*passes, strict=True)
        return max(active, key=_bytes), max(logits, key=_bytes)
    return max(passes, key=lambda parts: sum(map(_bytes, parts)))


def _bytes(part: Part) -> int:
    return part.bytes


def kept_for_backward(spec: ModelSpec) -> int:
    """Numbers that a block keeps of a token for its backward pass (Korthikanti et al., arXiv 2205.05198, with fused
    attention and no recomputation)."""
    query, key = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    return 4 * spec.hidden + 2 * (query + 2 * key) + query + 3 * spec.intermediate


def activations_of(spec: ModelSpec, shape: Shape) -> Part:
    """The larger half of a block (see `ModelSpec.feed`); block input, residual and normed input live through both.

    Attention holds queries, keys and values twice, as made and as turned or sorted by sequence, and its output in both
    orders; capped scores are held in full, with a mask and their softmax, in fp32.
    """
    query, key = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    attention = 2 * (query + 2 * key) + 2 * query
    if spec.capped:
        attention += 3 * 4 // shape.width * spec.heads * shape.longest
    count = shape.rows * (3 * spec.hidden + max(spec.feed, attention)) * shape.width
    why = f"Values in one block for {shape.points} forward passes of {shape.tokens} tokens at once."
    return Part("Activations", count, why)


def _logits(spec: ModelSpec, shape: Shape, free: int) -> Part:
    """A chunk of logits, in fp32 also where they were computed in 16 bits; twice where they are capped, since each step
    of that makes new ones; with their gradient, where a backward pass follows.

    Blocks are done by then, so that the logits begin in the ``free`` bytes that those leave.
    """
    row = shape.points * spec.vocabulary
    room = BACKWARD_LOGITS_BYTES if shape.backwards else LOGITS_BYTES
    places = min(shape.scored, max(1, room // (4 * row)))
    each = (8 if spec.capped else 4) + 4 * shape.backwards + (shape.width if shape.width < 4 else 0)
    return Part(
        "Logits",
        max(0, places * row * each - free),
        f"Scores of every token at {places} trained positions, beyond memory that activations free by then.",
    )
