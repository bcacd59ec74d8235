"""How long a step takes, compared with the alternatives. See `sparsezo_gui.engine.bench`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsezo_gui.engine import frozen
from sparsezo_gui.engine.bench import references, shapes
from sparsezo_gui.engine.bench.timing import medians
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.masks.random import Random
from sparsezo_gui.engine.masks.rule import Search
from sparsezo_gui.engine.runs.journal import Header
from sparsezo_gui.engine.runs.journal_writer import JournalWriter
from sparsezo_gui.engine.session import Session
from sparsezo_gui.engine.spaces.values import tuned_values
from sparsezo_gui.recipe import Recipe, with_settings
from sparsezo_gui.recipe.events import Event, Notice
from sparsezo_gui.recipe.registry import ESTIMATORS

ROW = 64  # tokens per example if all lengths are equal
DENSITY = 0.001
RATE = 1e-6


@dataclass(frozen=True)
class Load:
    """One batch to compare on: examples of these lengths, each with two one-token answers."""

    title: str
    lengths: tuple[int, ...]
    against: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        return sum(self.lengths)

    def examples(self, vocabulary: int) -> list[Encoded]:
        """The examples; the token ids do not matter."""
        generator = torch.Generator().manual_seed(0)
        rows = (torch.randint(4, vocabulary, (length,), generator=generator) for length in self.lengths)
        return [references.example(number, row.tolist()) for number, row in enumerate(rows)]


LOADS = (
    *(Load(f"{count} tokens", (min(count, ROW),) * (count // min(count, ROW)), ("plain",))
      for count in (64, 256, 512, 1024)),
    Load("16 short rows (16 to 64 tokens)", tuple(range(16, 65, 3))[:16], ("mezo", "qlora")),
    Load("4 long rows (128 to 512 tokens)", (128, 256, 384, 512), ("mezo", "qlora")),
)  # fmt: skip

CONTESTANTS = ("plain", "mezo", "qlora")


def steps(
    folder: Path,
    shape: str,
    repeats: int,
    settings: Sequence[str] = (),
    against: Sequence[str] = CONTESTANTS,
    loads: Sequence[Load] = LOADS,
) -> Generator[Event, None, list[dict[str, Any]]]:
    """Milliseconds and ratios for a model of ``shape``, created in ``folder``: one row per load and contestant.

    ``settings`` change the recipe, such as 'model.bits=8'; ``against`` names the contestants. Raises `UserError`.
    """
    place = yield from shapes.make(shape, folder / shape)
    recipe = with_settings(Recipe(), [f"model.id={place}", "mask.rule=random", f"mask.density={DENSITY}", *settings])
    model = yield from frozen.load(recipe.model)
    tuned = tuned_values(model, (yield from Random(density=DENSITY).find(model, Search(0, recipe.data))))

    def session(load: Load) -> Session:
        made = Session(with_settings(recipe, [f"loop.batch_size={len(load.lengths)}"]), model, tuned)
        made.begin()
        return made

    found: list[dict[str, Any]] = []
    if recipe.estimator.rule == ESTIMATORS.default:
        found += yield from _beside_passes(session(LOADS[0]), folder / "journal.bin", repeats)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = references.load_plain(place, model.device, model.dtype)
        if "qlora" in against and find_spec("peft") is None:
            yield Notice("QLoRA is skipped, because peft is not installed: pip install 'sparsezo-gui[bench]'")
            against = [name for name in against if name != "qlora"]
        for name in against:
            other = plain
            if name != "plain":  # QLoRA adds adapters to its model, and MeZO needs dense weights
                bits = 16 if name == "mezo" else 4
                other = references.load_plain(place, model.device, model.dtype, bits, trained=True)
            for load in loads:
                if name in load.against:
                    found += yield from COMPARED[name](session(load), other, load, repeats)
    return [{"shape": shape, **row} for row in found]


def take(session: Session, examples: Sequence[Encoded]) -> Callable[[], None]:
    """A full step of the loop, except the journal."""

    def step() -> None:
        directions = session.directions()
        found = session.estimate(examples, directions, RATE)
        session.take(directions, found.recorded, RATE, found.exact)

    return step


Rows = Generator[Event, None, list[dict[str, Any]]]


def _compare(session: Session, load: Load, others: dict[str, Callable[[], object]], repeats: int) -> Rows:
    contestants = {"ours": take(session, load.examples(session.model.vocabulary)), **others}
    stage = f"{load.title}: ours against {' and '.join(others)}"
    seconds = yield from medians(contestants, session.model.device, repeats, stage)
    rows = [
        {"load": load.title, "against": name, "ours_ms": round(1000 * seconds["ours"], 1),
         "theirs_ms": round(1000 * seconds[name], 1), "ratio": round(seconds["ours"] / seconds[name], 3)}
        for name in others
    ]  # fmt: skip
    for row in rows:
        yield Notice(", ".join(f"{column} {value}" for column, value in row.items()))
    return rows


def _beside_passes(session: Session, journal: Path, repeats: int) -> Rows:
    """Cost of a step of central differences apart from its forward passes: drawing, perturbing, updating and
    recording."""
    take_step = take(session, LOADS[0].examples(session.model.vocabulary))
    with JournalWriter(journal, Header(session.recipe.recorded)) as writer:

        def beside() -> None:
            directions = session.directions()
            offsets = 1e-3 * torch.eye(len(directions))
            with session.tuned.probed(directions, torch.cat((offsets, -offsets))):
                recorded = (0.1,) * len(directions)
            session.take(directions, recorded, RATE)
            writer.append(step=session.step, tokens=1, loss=1.0, rate=RATE, seconds=1.0, memory=1, values=recorded)

        seconds = yield from medians({"whole": take_step, "beside": beside}, session.model.device, 4 * repeats, "Parts")
    share = seconds["beside"] / seconds["whole"]
    yield Notice(f"Drawing, perturbing, updating and recording: {100 * share:.1f} % of a step with {LOADS[0].title}")
    return [{"load": LOADS[0].title, "against": "(drawing, update and journal alone)",
             "ours_ms": round(1000 * seconds["beside"], 2), "theirs_ms": round(1000 * seconds["whole"], 1),
             "ratio": round(share, 4)}]  # fmt: skip


def _against_plain(session: Session, model: PreTrainedModel, load: Load, repeats: int) -> Rows:
    plain = references.Plain(model, load.examples(session.model.vocabulary))
    return (yield from _compare(session, load, {
        "two plain forwards": lambda: (plain.forward(), plain.forward()),
        "two plain forwards, last logits only": lambda: (plain.forward(1), plain.forward(1)),
    }, repeats))  # fmt: skip


def _against_mezo(session: Session, model: PreTrainedModel, load: Load, repeats: int) -> Rows:
    mezo = references.MeZO(model, load.examples(session.model.vocabulary), padding=1)
    return (yield from _compare(session, load, {"MeZO": mezo.step}, repeats))


def _against_qlora(session: Session, model: PreTrainedModel, load: Load, repeats: int) -> Rows:
    qlora = references.QLoRA(model, load.examples(session.model.vocabulary), checkpointing=False)
    return (yield from _compare(session, load, {"QLoRA": qlora.step}, repeats))


COMPARED = {"plain": _against_plain, "mezo": _against_mezo, "qlora": _against_qlora}
