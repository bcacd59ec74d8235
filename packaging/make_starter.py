"""Make the starter: a small language model and a task, so that the program can be tried in a minute without a download.

    python packaging/make_starter.py [--out resources/starter] [--steps N] [--seed 0]

The text comes from the grammar in ``starter_language.py``. The base model learns customer messages and the shop's
replies. It never sees a message together with the team that handles it: that is left to fine-tuning. The result depends
only on the arguments, the processor and the versions of the libraries.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import time
from pathlib import Path

import torch
from starter_language import (
    ISSUES,
    SPLIT_PHRASINGS,
    TEAMS,
    draw_message,
    write_conversation,
    write_team_note,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
VOCAB_SIZE = 1536
CONTEXT = 512
#: A pre-training batch: many short steps teach more per second than few long ones.
ROWS, LENGTH = 4, 256
#: Examples per team in each split.
SPLIT_SIZES = {"train": 167, "validation": 50, "test": 100}
TEXT_DOCUMENTS = 1500
#: The share of notes about the teams, which give the answer words a meaning. They are short and easily learnt.
TEAM_NOTE_SHARE = 0.08

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Customer: ' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Shop: ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Shop:' }}{% endif %}"
)


def make_splits(seed: int) -> dict[str, list[dict[str, str]]]:
    """Draw the task. The splits share no message and no phrasing of an issue."""
    seen: set[str] = set()
    splits = {}
    for split, phrasings in SPLIT_PHRASINGS.items():
        rng = random.Random(f"{seed}-{split}")
        rows = []
        for team in TEAMS:
            issues = [issue for issue in ISSUES if issue.team == team]
            for index in range(SPLIT_SIZES[split]):
                text = draw_message(rng, issues[index % len(issues)], phrasings).text
                while text in seen:
                    text = draw_message(rng, issues[index % len(issues)], phrasings).text
                seen.add(text)
                rows.append({"text": text, "label": team})
        rng.shuffle(rows)
        splits[split] = rows
    return splits


class Corpus:
    """An endless stream of documents without the messages in ``held_out``."""

    def __init__(self, seed: str, held_out: set[str], team_notes: float, turn_end: str = "") -> None:
        self.rng = random.Random(seed)
        self.held_out = held_out
        self.team_notes = team_notes
        self.turn_end = turn_end

    def document(self) -> str:
        """The next document."""
        if self.rng.random() < self.team_notes:
            return write_team_note(self.rng) + self.turn_end
        message = draw_message(self.rng)
        while message.text in self.held_out:
            message = draw_message(self.rng)
        return write_conversation(message, self.rng, self.turn_end)


def train_tokenizer(seed: int, held_out: set[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE whose every answer is one token."""
    corpus = Corpus(f"{seed}-tokenizer", held_out, TEAM_NOTE_SHARE)
    documents = [corpus.document() for _ in range(8000)]
    documents += [f" {team}" for team in TEAMS for _ in range(1000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    for team in TEAMS:
        if len(tokenizer.encode(f" {team}", add_special_tokens=False).ids) != 1:
            raise ValueError(f"the answer {team!r} is not one token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A fresh model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, rows: int, length: int):
    """Pack documents back to back into rows of tokens; every document is new."""
    buffer: list[int] = []
    while True:
        while len(buffer) < rows * length:
            buffer += tokenizer(corpus.document()).input_ids
        yield torch.tensor(buffer[: rows * length]).view(rows, length)
        del buffer[: rows * length]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 5 % of the steps, then a cosine down to a twentieth."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


def train(model: LlamaForCausalLM, stream, steps: int, peak: float = 3e-3) -> None:
    """Pre-train with AdamW on the stream of batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.05)
    start = time.perf_counter()
    for step in range(steps):
        tokens = next(stream)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.perf_counter() - start:.0f} s", flush=True)


MODEL_CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: transformers
---

# SparseZO starter model

A Llama of {parameters:,} parameters, small enough to be tuned on a laptop in a minute. It exists so that SparseZO can
be tried, tested and taught without a download. It writes short English messages to a web shop, and the shop's replies.

- **Made by** `packaging/make_starter.py`: {layers} layers of width {width}, a byte-level BPE vocabulary of {vocab}
  tokens, a context of {context} tokens, {steps:,} steps of AdamW on {tokens:,} tokens, stored as float16.
- **Text**: only the grammar in `packaging/starter_language.py`, written for this project. Nothing is third-party.
- **Documents** are conversations (`Customer: … / Shop: …`), often with the shop's notes (`Mood:`, `Name:`, `Item:`,
  a summary under names such as `Summary:` or `Reason:`, a keyword under names such as `Topic:`), and sentences about
  the shop's six teams: which keywords each looks after ("Questions about refunds go to the billing team.").
- **What it has not seen**: which team handles a message. That is the task in `../data`, left to fine-tuning. It has
  seen all phrasings of the language, but no message of the task.
- **Chat**: the template writes `Customer: …` and `Shop:`; a reply ends with `{eos}`.
- **Licence**: Apache-2.0, like the program.

## Limits

It knows {issues} reasons to write to a shop and nothing else of the world. It makes up prices and days. It is no
assistant, and no measure of how a method fares on a real language model.
"""

DATA_CARD = """---
license: apache-2.0
language: en
task_categories: [text-classification]
---

# Which team handles the message?

Messages to a web shop, each with the team that handles it: {teams}.
Every answer is one token of the starter's tokenizer when written with a leading space.

| split | messages |
|---|---|
{sizes}

All teams are equally frequent. Each of the {issues} issues behind the messages has seven phrasings: four occur in the
training split only, one in validation only, two in test only. No message occurs in two splits. Greetings, small talk
and side remarks are shared. Many messages mention another team's business in passing ("The parcel came on time."), so
that single words mislead.

Lines are `{{"text": message, "label": team}}`. The prompt that fits the base is `Customer: {{text}}\\nTeam:`.

All text comes from the grammar in `packaging/starter_language.py`, written for this project; licence Apache-2.0.
`../text.jsonl` holds further text of the same language, without the task's answers, for finding the sensitive weights.
"""


def write_cards(out: Path, model: LlamaForCausalLM, steps: int) -> None:
    """Write the model card and the data card."""
    config = model.config
    card = MODEL_CARD.format(
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocab=config.vocab_size,
        context=CONTEXT,
        steps=steps,
        tokens=steps * ROWS * LENGTH,
        issues=len(ISSUES),
        eos=EOS,
    )
    (out / "model" / "README.md").write_text(card, encoding="utf-8")
    sizes = "\n".join(f"| {split} | {size * len(TEAMS)} |" for split, size in SPLIT_SIZES.items())
    card = DATA_CARD.format(teams=", ".join(TEAMS), sizes=sizes, issues=len(ISSUES))
    (out / "data" / "README.md").write_text(card, encoding="utf-8")


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    """Write one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def calibration_text(seed: int, held_out: set[str]) -> list[dict[str, str]]:
    """Text in the base's language that names no team, for finding the sensitive weights."""
    corpus = Corpus(f"{seed}-text", held_out, team_notes=0.0)
    rows = [{"text": corpus.document()} for _ in range(TEXT_DOCUMENTS)]
    answers = re.compile(rf"\b({'|'.join(TEAMS)})\b", re.IGNORECASE)
    if any(answers.search(row["text"]) for row in rows):
        raise ValueError("the text for the mask contains an answer")
    return rows


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model in half precision, and the tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.7,
        max_new_tokens=96,
    )
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Name the class that every version of Transformers knows.
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.pop("backend", None)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("resources/starter"))
    parser.add_argument("--steps", type=int, default=2600, help="pre-training steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads for the training")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    splits = make_splits(args.seed)
    held_out = {row["text"] for rows in splits.values() for row in rows}
    for split, rows in splits.items():
        write_jsonl(args.out / "data" / f"{split}.jsonl", rows)
    text = calibration_text(args.seed, held_out)
    write_jsonl(args.out / "text.jsonl", text)

    tokenizer = train_tokenizer(args.seed, held_out)
    model = make_model(tokenizer, args.seed)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    corpus = Corpus(f"{args.seed}-corpus", held_out, TEAM_NOTE_SHARE, turn_end=EOS)
    train(model, batches(corpus, tokenizer, ROWS, LENGTH), args.steps)
    save_model(model, tokenizer, args.out / "model")
    write_cards(args.out, model, args.steps)


if __name__ == "__main__":
    main()
