"""The shape of Llama-2-7B in NF4: its run in 8 GiB, held against the formula, and its step against plain inference."""

from __future__ import annotations

import statistics

import torch

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine import planning
from sparsezo_gui.engine.bench import references, steps
from sparsezo_gui.engine.bench.memory import recipe_of
from sparsezo_gui.engine.bench.timing import medians
from sparsezo_gui.engine.memory import RUNTIME
from sparsezo_gui.engine.training import train
from sparsezo_gui.recipe import events as e
from tests.engine.conftest import finish
from tests.gpu.conftest import GIB, GPU, MIB, session_of

SHAPE, EXAMPLES, TOKENS = "llama-2-7b", 16, 256


def taken():
    """Bytes of the GPU that any program has, by its driver."""
    free, total = torch.cuda.mem_get_info(GPU)
    return total - free


def test_its_run_fits_in_8_gib(shape, tmp_path, figure, at_most):
    settings = ["mask.rule=sensitive", "mask.sequences=16", "loop.guard=false"]
    recipe = recipe_of(tmp_path, shape(SHAPE), EXAMPLES, TOKENS, settings)
    at_most(8 * GIB - RUNTIME["cuda"])
    formula = planning.estimate(recipe)
    before, found = taken(), []
    for event in train(recipe):
        if isinstance(event, e.Notice) and "mask" in event.text:
            figure("7B, NF4: peak while the mask is found", torch.cuda.max_memory_reserved() / MIB, "MiB")
            figure("7B, NF4: finding the mask, 16 x 512 tokens", float(event.text.split()[4]), "s")
        if isinstance(event, e.Started):
            torch.cuda.reset_peak_memory_stats()
            context = before + RUNTIME["cuda"] - taken() + torch.cuda.memory_reserved()
            figure("CUDA context and libraries beyond what the formula takes for them", -context / MIB, "MiB")
        if isinstance(event, e.Step):
            found.append(event.seconds)
    held = torch.cuda.max_memory_reserved()
    figure("7B, NF4, 0.1 %, 16 x 256: peak of the run, reserved", held / MIB, "MiB")
    figure("7B, NF4, 0.1 %, 16 x 256: peak of the run, allocated", torch.cuda.max_memory_allocated() / MIB, "MiB")
    figure("7B, NF4, 0.1 %, 16 x 256: formula without its runtime", (formula.total - RUNTIME["cuda"]) / MIB, "MiB")
    figure("7B, NF4, 0.1 %, 16 x 256: formula / run", (formula.total - RUNTIME["cuda"]) / held, "")
    figure("7B, NF4, 0.1 %, 16 x 256: median step of the run", 1000 * statistics.median(found[2:]), "ms")
    assert held + RUNTIME["cuda"] < 8 * GIB
    assert 0.95 < (formula.total - RUNTIME["cuda"]) / held < 1.25


def test_the_measured_fit_is_no_less_than_the_run(shape, tmp_path, figure):
    recipe = recipe_of(tmp_path, shape(SHAPE), EXAMPLES, TOKENS, ())
    measured = finish(planning.measure(recipe)).total
    devices.give_back_freed()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for event in train(recipe):
        if isinstance(event, e.Started):
            torch.cuda.reset_peak_memory_stats()
    figure("7B, NF4, 0.1 %, 16 x 256: measured fit / run", measured / torch.cuda.max_memory_reserved(), "")
    assert measured >= 0.98 * torch.cuda.max_memory_reserved()


def test_its_step_against_two_plain_passes(shape, figure):
    place = shape(SHAPE)
    session = session_of(place)
    model = session.model
    plain = references.load_plain(place, GPU, model.dtype)
    for count, length in ((1, 64), (16, 64), (16, 256), (4, 512)):
        load = steps.Load(f"{count} x {length}", (length,) * count, ())
        examples = load.examples(model.vocabulary)
        other = references.Plain(plain, examples)
        seconds = finish(medians(
            {"ours": steps.take(session, examples), "plain": lambda other=other: [other.forward(1) for _ in range(2)]},
            GPU, 5, load.title,
        ))  # fmt: skip
        figure(f"7B, NF4, {load.title}: our step", 1000 * seconds["ours"], "ms")
        figure(f"7B, NF4, {load.title}: two plain passes", 1000 * seconds["plain"], "ms")
        figure(f"7B, NF4, {load.title}: ours / plain", seconds["ours"] / seconds["plain"], "")
