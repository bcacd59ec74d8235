"""Before the start: memory by formula or from two real steps, and what the model will see of the data."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice

import torch

from sparsezo_gui.answers import TIGHT, DataPreview, MemoryEstimate, ModelSummary, Part
from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import known, memory, objective, prefix
from sparsezo_gui.engine.data import Split, TaskData, load_task, previewing, rendering
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.evaluate import BATCH
from sparsezo_gui.engine.forward import PACK_ROWS, SMALL_ROWS
from sparsezo_gui.engine.frozen import FrozenModel
from sparsezo_gui.engine.general import general_text
from sparsezo_gui.engine.generate import ROOM
from sparsezo_gui.engine.gradient import gradient
from sparsezo_gui.engine.hub import library
from sparsezo_gui.engine.hub.cache import tokenizer_folder
from sparsezo_gui.engine.hub.library import spec_of, usable_code
from sparsezo_gui.engine.layers.streamed import needed
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.objective import count_scored, count_tokens, packs_of, points_at_once
from sparsezo_gui.engine.objectives.likelihood import Likelihood
from sparsezo_gui.engine.pretrained.source import refuse_other_kinds
from sparsezo_gui.engine.pretrained.spec import ModelSpec
from sparsezo_gui.engine.pretrained.tokenizer import load_tokenizer
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.session.loading import load_data, load_model
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.engine.zo.batches import shuffled_batch
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe import Recipe, ways
from sparsezo_gui.recipe.events import Event, Notice, Progress
from sparsezo_gui.recipe.events import Example as ExampleEvent
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.recipe.registry import SPACES
from sparsezo_gui.sizes import size
from sparsezo_gui.work import finish

STEPS_LOOKED_AT = 1000  # steps whose batches are searched for the largest
FORWARD, IN_SUBSPACE = "forward passes only", "forward passes in a gradient subspace"
SPREAD = {"cpu": 0.17, "cuda": 0.0}  # relative difference in peak memory between processes, from the allocator


def estimate(recipe: Recipe) -> MemoryEstimate:
    """Memory of ``recipe`` by formula, from the model's config alone; nothing is downloaded but that.

    The data is read if it and the tokenizer are on this computer; otherwise every example is assumed to have
    ``max_tokens``. Raises `UserError`.
    """
    return finish(estimating(recipe))


def estimating(recipe: Recipe) -> Generator[Event, None, MemoryEstimate]:
    """`estimate`, yielding progress on the data. Close the generator to cancel."""
    recipe, chosen = yield from concrete(recipe)
    data = yield from known.data(recipe.data, recipe.model)
    return replace(formula(recipe, spec_of(recipe.model), data), chosen=chosen)


def concrete(recipe: Recipe) -> Generator[Event, None, tuple[Recipe, str]]:
    """``recipe`` with concrete rules instead of [estimator] rule = 'auto', and what was chosen and why, in a sentence
    that it also yields as a notice; the same recipe and '' if nothing is to be chosen. Raises `UserError`."""
    if recipe.estimator.rule != ways.AUTO:
        return recipe, ""
    data = yield from known.data(recipe.data, recipe.model)
    made, chosen = choose(recipe, spec_of(recipe.model), data)
    yield Notice(chosen)
    return made, chosen


def choose(recipe: Recipe, spec: ModelSpec, data: TaskData | None) -> tuple[Recipe, str]:
    """See `concrete`: exact gradients in the largest part of the blocks that fits, otherwise forward passes; if nothing
    fits, what needs the least memory."""
    said, least, needed = "Chosen automatically:", recipe, math.inf
    for blocks in (*ways.suffixes(recipe), ""):
        title = f"exact gradients in {ways.SUFFIXES.get(blocks, f'the last {blocks} blocks')}"
        try:
            made = ways.resolved(recipe, blocks)
        except UserError as error:
            made = ways.resolved(recipe)
            return made, f"{said} {_forward(made)}. {ways.reason(error)}"
        if not blocks:
            title = _forward(made)
        found = formula(made, spec, data)
        memory = f"{size(found.most)} of the {size(found.available)} that are free"
        if found.verdict == "fits":
            more = f"; exact gradients{' in more blocks' if blocks else ''} do not fit in {100 * TIGHT:.0f} % of that"
            return made, f"{said} {title}, which need {memory}{'' if math.isinf(needed) else more}."
        if found.most < needed:
            least, needed, words = made, found.most, f"{said} {title}, which need the least: {memory}."
    return least, words


def _forward(recipe: Recipe) -> str:
    return IN_SUBSPACE if recipe.mask.rule == "gradient-subspace" else FORWARD


def formula(recipe: Recipe, spec: ModelSpec, data: TaskData | None) -> MemoryEstimate:
    """Memory of ``recipe`` on ``data`` (None: unknown), with fewer rows at once if memory is short, unless it says how
    many."""
    device = devices.choose(recipe.model.device).type
    if recipe.loop.pass_rows:
        return _formula(recipe, spec, device, data, recipe.loop.pass_rows, None)
    small = _formula(recipe, spec, device, data, SMALL_ROWS[device], None)
    rows = PACK_ROWS[device] * SPACES[recipe.mask.space].packs
    usual = _formula(recipe, spec, device, data, rows, small.total)
    return usual if usual.verdict == "fits" else small


def _formula(
    recipe: Recipe, spec: ModelSpec, device: str, data: TaskData | None, rows: int, small: int | None
) -> MemoryEstimate:
    longest, tokens, scored = recipe.data.max_tokens, recipe.data.max_tokens * recipe.loop.batch_size, None
    written = 0
    evaluated = (min(rows, BATCH * longest), min(rows, BATCH * longest)) if recipe.data.validation else None
    if data and data.train.encoded:
        examples, others = data.train.encoded, [*data.validation.encoded, *data.test.encoded]
        pack = max(_largest_batch(recipe, examples, rows), key=_tokens)
        longest, tokens, scored = max(map(count_tokens, examples)), *_sizes(pack)
        evaluated = _sizes(_largest_evaluated(others, rows)) if others else None
        longest = max(longest, *map(count_tokens, others), 0)
        written = _written(others)
    estimated = partial(
        memory.estimate, recipe, spec, device, longest, tokens, scored_tokens=scored, evaluated=evaluated,
        written=written, program=devices.program_bytes() if device == "cpu" else 0, rows=rows, small=small,
    )  # fmt: skip
    found = estimated()
    if device == "cpu" and (kept := _kept(recipe, spec, data, found)):
        return estimated(kept=kept)
    width = devices.compute_dtype(torch.device(device), recipe.model).itemsize
    if device != "cuda" or SPACES[recipe.mask.space].in_place:
        return found
    return estimated(streamed=True) if needed(spec, recipe.model.bits, width, found.available) else found


def _kept(recipe: Recipe, spec: ModelSpec, data: TaskData | None, without: MemoryEstimate) -> int:
    """Bytes of the activations that enter the first tuned block, of all examples, as far as they are held in memory:
    none that would make a run tight that is not ``without`` them."""
    if not recipe.mask.tunable(spec).tunable_blocks[0]:
        return 0
    splits = (data.train, data.validation, data.test) if data else ()
    tokens = sum(count_tokens(example) for split in splits for example in split.encoded)
    tokens = tokens or recipe.data.max_tokens * recipe.data.train
    room = min(prefix.SHARE * devices.memory_free(torch.device("cpu")), TIGHT * without.available - without.most)
    return max(0, min(prefix.nbytes(tokens, spec.hidden), int(room)))


def _written(examples: Sequence[Encoded]) -> int:
    """Tokens of the longest prompt and the longest answer generated in an evaluation."""
    asked = [each for each in examples if each.references and not each.choices]
    if not asked:
        return 0
    answer = max(len(row.targets) for each in asked for row in each.rows)
    return max(len(each.prompt) for each in asked) + answer + ROOM


def measure(recipe: Recipe) -> Generator[Event, None, MemoryEstimate]:
    """Memory of ``recipe`` by two real steps' forward passes on the largest batch of the run. Raises `UserError`."""
    recipe, chosen = yield from concrete(recipe)
    model = yield from load_model(recipe)
    data = yield from load_data(recipe, model)
    session = yield from stand_in(recipe, model)
    return replace((yield from measured(session, data)), chosen=chosen)


def stand_in(recipe: Recipe, model: FrozenModel) -> Generator[Event, None, Session]:
    """``recipe`` on ``model``, with a mask that takes no search and as much memory as its own."""
    rule = SPACES[recipe.mask.space].stand_in(recipe.mask, model.spec)
    mask = yield from rule.find(model, Search(0, recipe.data))
    session = Session(recipe, model, tuned_values(model, mask))
    session.begin()
    return session


def measured(session: Session, data: TaskData) -> Generator[Event, None, MemoryEstimate]:
    """`measure` of a recipe in memory."""
    recipe, model = session.recipe, session.model
    device = model.device
    with devices.watched(device) as peak:
        devices.give_back_freed()  # as the loop does
        held = devices.memory_used(device)
        formed = formula(recipe, model.source.spec, data)
        model.pack_rows = formed.rows
        batch = list(chain.from_iterable(_largest_batch(recipe, data.train.encoded, formed.rows)))
        evaluated = _largest_evaluated([*data.validation.encoded, *data.test.encoded], formed.rows)
        others = [each for each in (evaluated, _longest_general(model, recipe.data.max_tokens)) if each]
        peak.start()
        for done in range(2):
            yield Progress("Measuring", done, 2, "steps")
            session.estimate(batch, session.directions())
        with torch.no_grad(), session.tuned.applied():
            for pack in others:
                objective.measure(model, pack)
        if recipe.mask.refreshed:  # with one backward pass, as large as any of those for its directions
            with session.tuned.applied():
                gradient(model, session.tuned, Likelihood(), batch)
    search = memory.search_bytes(recipe, model.source.spec, model.dtype.itemsize)
    parts = (
        Part("Model and program", held, "Measured: the loaded model, its tuned values, Python and its libraries."),
        Part("Forward passes", max(0, peak.bytes - held), "Measured: the peak of a step on the largest batch."),
        Part("Reserve", round(SPREAD[device.type] * peak.bytes), "Variation of the allocator between runs."),
    )
    return replace(formed, parts=parts, measured=True, search=max(0, held + search - peak.bytes))


def preview_data(recipe: Recipe, page: int = 0) -> Generator[Progress, None, DataPreview]:
    """A page of the data, and examples as the model will see them if its tokenizer is on this computer and valid."""
    tokenizer, problem = known.tokenizer(recipe.model)
    found = yield from previewing(recipe.data, tokenizer, page, limits=known.limits(recipe.model))
    return replace(found, tokenizer_problem=problem)


def preview_examples(recipe: Recipe, split: str, count: int) -> Generator[Event, None, TaskData]:
    """The first ``count`` examples of ``split``, in the order of a run, and all findings about the data. Needs only the
    tokenizer, which it downloads if necessary. Raises `UserError`."""
    folder = yield from tokenizer_folder(recipe.model)
    refuse_other_kinds(folder)
    code = usable_code(recipe.model, folder) if (folder / "config.json").is_file() else None
    tokenizer = load_tokenizer(folder, code)
    data = yield from load_task(recipe.data, tokenizer, known.limits(recipe.model))
    made: Split = getattr(data, split)
    if not made:
        raise UserError(f"There are no {split} examples. Add more rows, or raise [data] {split}.")
    for number, (example, encoded) in enumerate(islice(zip(made.examples, made.encoded, strict=True), count), 1):
        shown = rendering.pieces(example, encoded, tokenizer)
        tokens, answer = len(rendering.trained_sequence(encoded)[0]), next(iter(example.references), "")
        yield ExampleEvent(number, split, tokens, rendering.merged(shown), answer)
    yield from data.notices
    return data


def summary(table: ModelTable) -> ModelSummary:
    """A summary of the model; its tokenizer is tried too if it is on this computer."""
    found = library.summary(table)
    return found if found.problem else replace(found, problem=known.tokenizer(table)[1])


def _largest_batch(recipe: Recipe, examples: Sequence[Encoded], rows: int) -> list[list[Encoded]]:
    """The packs of the batch, among the run's first steps, with the largest pack by tokens."""
    loop, found = recipe.loop, []
    for step in range(1, min(loop.steps, STEPS_LOOKED_AT) + 1):
        batch = shuffled_batch(loop, step, examples)
        longest = max(map(count_tokens, batch))
        passes = 1 if recipe.estimator.backwards else recipe.forward_passes  # a pack of one point is the largest
        points = points_at_once(passes, longest, rows, recipe.model.compute)
        found.append(list(packs_of(batch, rows, points)))
    return max(found, key=lambda packs: max(map(_tokens, packs)))


def _largest_evaluated(examples: Sequence[Encoded], rows: int) -> list[Encoded]:
    """The evaluation pack with the most tokens; its forward passes are unperturbed."""
    parts = (examples[first : first + BATCH] for first in range(0, len(examples), BATCH))
    return max(chain.from_iterable(packs_of(part, rows, 1) for part in parts), key=_tokens, default=[])


def _longest_general(model: FrozenModel, max_tokens: int) -> list[Encoded]:
    """The longest passage of the general text, which goes through at the end with logits at every token."""
    try:
        return [max(general_text(model, max_tokens), key=count_tokens)]
    except UserError:
        return []  # a run says why it is not measured


def _sizes(pack: Sequence[Encoded]) -> tuple[int, int]:
    """Tokens of a pack, and positions at which logits are needed."""
    return _tokens(pack), sum(map(count_scored, pack))


def _tokens(pack: Sequence[Encoded]) -> int:
    return sum(map(count_tokens, pack))
