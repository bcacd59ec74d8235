"""Checks of the examples before training, shared by runs, `sparsezo preview` and the Data page.

Counted while the rows are prepared, in a few bytes per example, and reported in sentences.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property

from sparsezo_gui.engine.data import columns, faults, labels
from sparsezo_gui.engine.data.duplicates import content, same
from sparsezo_gui.engine.data.encode import Encoded
from sparsezo_gui.engine.data.examples import Example, Maker
from sparsezo_gui.engine.data.record import Record
from sparsezo_gui.engine.data.splits import ALL_REPEAT, Rows
from sparsezo_gui.engine.pretrained.limits import BeyondModel, Limits
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Notice
from sparsezo_gui.recipe.recipe import SPLITS, DataTable

MANY = 0.01  # share of identical training examples from which it is reported
FEW = 8  # examples that may all have the same prompt: too few to judge
NAMED = 5  # labels in a sentence


class Findings:
    """Counts of the examples added; ``rows`` are the rows they are made of."""

    def __init__(self, make: Maker, table: DataTable, rows: dict[str, Rows], limits: Limits | None = None) -> None:
        self._make, self._table, self._rows, self._limits = make, table, rows, limits
        self.counts, self.labels = Counter[str](), Counter[str]()
        self.truncated = self.tokens_cut = self._clipped = 0
        self.lengths = {name: array("I") for name in SPLITS}  # tokens of each example
        self._unique = set[int]() if table.duplicates == "remove" else None
        self._repeats = sum(part.repeats for part in rows.values())  # removed
        # Hashes, eight bytes each.
        self._contents = {name: array("q") for name in SPLITS}
        self._prompts, self._answers, self._references = array("q"), array("q"), array("q")
        self._empty: list[Record] = []
        self._empties, self._beyond, self._largest = 0, 0, 0
        self._left_out = Counter[str]()

    @property
    def longest(self) -> int:
        """Length of the longest example in tokens; 0 without a tokenizer."""
        return max(map(max, filter(None, self.lengths.values())), default=0)

    def leave_out(self, gap: str) -> None:
        """Counts a row left out because of its ``gap``."""
        self._left_out[gap] += 1

    def add(self, split: str, row: Record, example: Example, encoded: Encoded | None) -> bool:
        """Counts an example of ``split`` made of ``row``; ``encoded`` if there is a tokenizer. False if it is to be
        removed, as a duplicate."""
        known = content(example, encoded)
        if self._unique is not None:
            if known in self._unique:
                self._repeats += 1
                return False
            self._unique.add(known)
        self.counts[split] += 1
        if encoded is not None:
            self._measure(split, encoded)
        self._contents[split].append(known)
        if split == "train":
            self._of_training(row, example, known)
        return True

    def _of_training(self, row: Record, example: Example, known: int) -> None:
        """Keeps hashes of the example's prompt and answer, and counts its label; an empty answer is kept."""
        prompt = [text for text, trained in example.segments if not trained]
        self._prompts.append(same(*prompt) if prompt else known)
        self._answers.append(same(example.text, str(example.label)))
        self._references.append(same(*example.references))
        if self._make.answers:
            self.labels[example.choices[example.label].strip()] += 1
        if self.is_empty(example):
            self._empties += 1
            self._empty = sorted([*self._empty, row], key=lambda row: (row.source, row.number))[: faults.NAMED]

    def _measure(self, split: str, encoded: Encoded) -> None:
        self.truncated += encoded.cut > 0
        self.tokens_cut += encoded.cut
        self._clipped += encoded.clipped
        self.lengths[split].append(encoded.length)
        if self._limits:
            self._beyond += encoded.length > (self._limits.positions or encoded.length)
            self._largest = max(self._largest, *(max(*row.tokens, *row.targets) for row in encoded.rows))

    def is_empty(self, example: Example) -> bool:
        """Whether an answer is empty, or only an end-of-sequence token."""
        if self._make.task.kind in ("choice", "text"):
            return False
        if example.templated:  # what the chat template writes around an answer does not count
            return example.empty
        trained = example.choices or (text for text, trained in example.segments if trained)
        return not all(text.strip() for text in trained)

    def check(self) -> None:
        """Raises `UserError` for examples that teach nothing, or that the model cannot compute."""
        limits, table, train = self._limits, self._table, self.counts["train"]
        if not train:
            raise UserError(ALL_REPEAT if self._repeats else "The data yields no training examples. Add more rows.")
        if limits and self._largest >= limits.tokens:
            raise limits.unknown(self._largest, self._make.tokenizer, table.source)
        if limits and limits.fixed and self._beyond:
            raise BeyondModel(
                f"{_examples(self._beyond, 'is', 'are')} longer than the {limits.positions:,} tokens that the model "
                f"has positions for (the longest: {self.longest:,}). Set [data] max_tokens = {limits.positions}."
            )
        if self._make.answers and train > FEW and _different(self._prompts) == 1:
            raise UserError(
                f"All {train:,} training examples have the same prompt, so the model cannot tell which answer to give. "
                "Put a column that differs into [data] template, or map another one in [data] columns."
            )

    def notices(self) -> tuple[Notice, ...]:
        """All findings, in sentences."""
        parts = (
            self._of_source(), self._of_conversations(), self._of_template(), self._of_labels(), self._of_answers(),
            self._of_prompts(), self._of_splits(), self._of_duplicates(), self._of_lengths(),
        )  # fmt: skip
        return tuple(itertools.chain.from_iterable(parts))

    def _of_source(self) -> Iterator[Notice]:
        yield from (Notice(part.note) for part in self._rows.values() if part.note)
        yield from self._rows["train"].left_out.notices()
        if count := self._left_out.total():
            rows = "1 row with gaps was" if count == 1 else f"{count:,} rows with gaps were"
            yield Notice(f"{rows} left out: {faults.reasons(self._left_out)}.")

    def _of_conversations(self) -> Iterator[Notice]:
        yield from (Notice(sentence, "warning") for sentence in self._make.notices)

    def _of_template(self) -> Iterator[Notice]:
        make, prompt = self._make, self._make.prompt
        known = {*columns.names(self._rows["train"]), *make.task.columns} if self._table.template else ()
        for written, name in prompt.mistaken(known).items():
            yield Notice(
                f"[data] template: '{written}' is plain text, the same in all prompts. "
                f"Did you mean '{{{{ {name} }}}}'?",
                "warning",
            )
        read = {make.parts.get(name, name) for name in prompt.used}
        answers = {make.parts[part] for part in ("answer", "chosen", "rejected") if part in make.parts}
        for column in sorted(answers & read):
            yield Notice(
                f"The prompt contains the answer column '{column}', so the model reads the answer before it gives it. "
                "Remove that column from [data] template or columns.", "warning",
            )  # fmt: skip

    @property
    def offer(self) -> str:
        """The setting that would mend what was found, '' if there is none."""
        return "merge_labels" if self._mergeable else "duplicates" if self.repeated else ""

    @property
    def _mergeable(self) -> bool:
        """Whether there are labels that `DataTable.merge_labels` would merge."""
        return bool(self._spelled) and not self._table.merge_labels

    @cached_property
    def _spelled(self) -> list[list[str]]:
        """Labels that differ only in spelling, each with its count."""
        make = self._make
        if not make.answers or make.task.answers or self._table.answers:
            return []
        found = labels.count(self._rows, make.parts["answer"])
        groups = (group for group in labels.spellings(found) if len(group) > 1)
        return [[f"'{word}' ({found[word]:,})" for word in group] for group in groups]

    def _of_labels(self) -> Iterator[Notice]:
        if spelled := self._spelled:
            named = "; ".join(", ".join(group[:NAMED]) for group in spelled[:NAMED])
            named += f"; and {len(spelled) - NAMED} more" if len(spelled) > NAMED else ""
            which = "Labels that differ only in case, in spaces, or as 1 and 1.0"
            if self._mergeable:
                yield Notice(
                    f"{which} are different answers: {named}. To merge each group into one, set [data] merge_labels = "
                    "true (in the terminal: --set data.merge_labels=true).", "warning",
                )  # fmt: skip
            else:
                yield Notice(f"{which} were merged: {named}. Each group takes the spelling of its first label.")
        lacking = [answer.text for answer in self._make.answers if not self.labels[answer.text.strip()]]
        if not lacking or any("{{" in text for text in lacking):
            return
        if len(self.labels) == 1:
            only, count = next(iter(self.labels.items()))
            yield Notice(
                f"All {count:,} training examples have the answer '{only}', so the model learns to always give it. "
                "Add examples of other answers.", "warning",
            )  # fmt: skip
        else:
            named = ", ".join(f"'{text}'" for text in lacking[:NAMED]) + (", …" if len(lacking) > NAMED else "")
            have = "has" if len(lacking) == 1 else "have"
            yield Notice(f"{len(lacking)} of {len(self._make.answers)} answers {have} no training example: {named}.")

    def _of_answers(self) -> Iterator[Notice]:
        train = self.counts["train"]
        if self._empties:
            yield Notice(
                f"{self._empties:,} of {_examples(train, kind='training ')} {'has' if self._empties == 1 else 'have'} "
                f"an empty answer, which trains the model to say nothing: {faults.places(self._empty)}. Fill them in, "
                f"or {faults.LEAVE_OUT}.",
                "warning",
            )
        if self._make.task.kind in ("completion", "chat") and train > FEW and _different(self._references) == 1:
            yield Notice(
                f"All {train:,} training examples have the same answer, so the model learns to always give it.",
                "warning",
            )

    def _of_prompts(self) -> Iterator[Notice]:
        train, different = self.counts["train"], _different(self._prompts)
        repeat, others = train - different, _different(self._answers) - different
        if repeat < max(2, MANY * train):
            return
        if self._make.task.kind == "text":  # all of which are duplicates
            return
        which = f", {others:,} of them with a different answer" if others else " with the same answer"
        cure = " Check that the template uses the columns that distinguish the rows."
        yield Notice(
            f"{repeat:,} of {train:,} training prompts repeat another one{which}; {different:,} "
            f"{'is' if different == 1 else 'are'} distinct.{cure if self._make.task.kind != 'chat' else ''}",
            "warning" if repeat > train / 10 else "info",
        )

    def _of_splits(self) -> Iterator[Notice]:
        for earlier, split in itertools.combinations(SPLITS, 2):
            if shared := sum(map(set(self._contents[earlier]).__contains__, self._contents[split])):
                what = "training" if earlier == "train" else earlier
                yield Notice(
                    f"{shared:,} of {self.counts[split]:,} {split} examples {'is' if shared == 1 else 'are'} also in "
                    f"the {what} split, so results on the {split} split say less about unseen examples.", "warning",
                )  # fmt: skip

    @cached_property
    def repeated(self) -> int:
        """How many examples `DataTable.duplicates` = 'remove' would remove; 0 if they are too few to speak of."""
        every, distinct = sum(self.counts.values()), _different(itertools.chain(*self._contents.values()))
        each = sum(map(_different, self._contents.values()))
        return every - distinct if each > distinct or every - each >= max(2, MANY * every) else 0

    def _of_duplicates(self) -> Iterator[Notice]:
        if self.repeated:
            every = _examples(sum(self.counts.values()), "is a duplicate", "are duplicates")
            yield Notice(
                f"{self.repeated:,} of {every}. To remove them, set [data] duplicates = 'remove' (in the terminal: "
                "--set data.duplicates=remove)."
            )
        if self._repeats:
            were = "1 duplicate was" if self._repeats == 1 else f"{self._repeats:,} duplicates were"
            yield Notice(f"{were} removed: one of each stays, in test if it is there, else in validation or training.")

    def _of_lengths(self) -> Iterator[Notice]:
        if self.truncated:
            longer = f"{_examples(self.truncated, 'was', 'were')} longer than {self._table.max_tokens:,} tokens"
            too = f" {_examples(self._clipped, 'loses', 'lose')} tokens of the answer, too." if self._clipped else ""
            yield Notice(
                f"{longer}; {self.tokens_cut:,} tokens were cut from the start of the prompts.{too} Raise [data] "
                "max_tokens to keep them.", "warning",
            )  # fmt: skip
        if self._beyond and self._limits:
            yield Notice(
                f"{_examples(self._beyond, 'is', 'are')} longer than the {self._limits.positions:,} tokens that the "
                f"model was made for (the longest: {self.longest:,}), which degrades its output. Set [data] max_tokens "
                f"= {self._limits.positions} to cut them.", "warning",
            )  # fmt: skip


def _different(hashes: Iterable[int]) -> int:
    return len(set(hashes))


def _examples(count: int, one: str = "", many: str = "", kind: str = "") -> str:
    """'1 example is', '1,234 examples are'."""
    return f"{count:,} {kind}{'example' if count == 1 else 'examples'} {one if count == 1 else many}".rstrip()
