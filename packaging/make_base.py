"""Make a base for benchmarks: a small language model with some knowledge of real English, which is not shipped.

    python packaging/make_base.py --text FILE=WEIGHT… --out FOLDER [--tokens N] [--layers 8 --width 320 --feed 864]

Texts are .txt files with a document per line, .jsonl files of strings or with a column ``text``, either of them maybe
packed as .xz; a file's share of the documents follows its name. Of a .jsonl file with a column ``rating``, from 1 to
10, a document is a few sentences and a verdict, as pages of reviews have it: "… My verdict: 8 out of 10, good." What
follows the colon counts twenty-fold in the loss: else so few tokens would teach next to nothing of what texts mean.

The run can be stopped at any time and goes on when it is started again with the same arguments, from a file beside the
folder; the last fifth of the tokens is learnt at a falling rate. With more tokens, a finished one goes on too, on other
texts or at another rate.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from make_starter import BOS, EOS, PAD, save_model
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT, ROWS, LENGTH = 512, 16, 256
WARMUP, COOLDOWN = 100, 0.2
VERDICTS = ("awful", "bad", "mixed", "good", "excellent")
VERDICT, VERDICT_WEIGHT = " My verdict:", 20.0
PASSAGE = 300  # characters
KEPT_EVERY = 300.0  # seconds
TOKENIZER_DOCUMENTS = 30_000


def documents(path: Path, seed: str) -> Iterator[str]:
    """The documents of a file without end, shuffled anew each time round."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    if ".jsonl" in path.suffixes:
        rows = [json.loads(line) for line in lines if line]
        rows = [{"text": row} if isinstance(row, str) else row for row in rows]
    else:
        rows = [{"text": line} for line in lines]
    found = [(re.sub(r"\s*<br\s*/?>\s*", " ", row["text"]), row.get("rating", 0)) for row in rows]
    found = [row for row in found if len(row[0]) > 40]
    draw = random.Random(seed)
    while True:
        draw.shuffle(found)
        yield from (rated(text, rating, draw) if rating else text for text, rating in found)


def rated(text: str, rating: int, draw: random.Random) -> str:
    """One to three sentences in a row of a review, and what its writer thought."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    first = draw.randrange(len(sentences))
    passage = " ".join(sentences[first : first + draw.randint(1, 3)])[:PASSAGE]
    return f"{passage}{VERDICT} {rating} out of 10, {VERDICTS[(rating - 1) // 2]}."


def mixed(texts: dict[Path, float], seed: int) -> Iterator[str]:
    """Documents of all files, each as often as its weight asks for."""
    streams = [documents(path, f"{seed}-{path.name}") for path in texts]
    draw = random.Random(seed)
    while True:
        yield next(draw.choices(streams, list(texts.values()))[0])


def train_tokenizer(stream: Iterator[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((next(stream) for _ in range(TOKENIZER_DOCUMENTS)), trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def batches(
    stream: Iterator[str], tokenizer: PreTrainedTokenizerFast, skip: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Documents back to back in rows of tokens, and how much each counts, from the batch after ``skip`` on."""
    buffer: list[int] = []
    weights: list[float] = []
    size, number = ROWS * LENGTH, 0
    while True:
        while len(buffer) < size:
            text, verdict, rest = next(stream).partition(VERDICT)
            tokens = tokenizer(text + verdict).input_ids
            after = tokenizer(rest, add_special_tokens=False).input_ids if rest else []
            buffer += [*tokens, *after, tokenizer.eos_token_id]
            weights += [*[1.0] * len(tokens), *[VERDICT_WEIGHT] * len(after), 1.0]
        if number >= skip:
            yield torch.tensor(buffer[:size]).view(ROWS, LENGTH), torch.tensor(weights[:size]).view(ROWS, LENGTH)
        number += 1
        del buffer[:size], weights[:size]


def rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then constant, then linearly down to zero."""
    return peak * min(1.0, (step + 1) / WARMUP, (steps - step) / (COOLDOWN * steps))


class Kept:
    """What a stopped training goes on from: weights, the optimizer's moments and the step."""

    def __init__(self, path: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer

    def save(self, step: int) -> None:
        """Writes it, under its name once it is whole."""
        moments = {
            f"moment.{number}.{key}": value
            for number, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        weights = {f"weight.{name}": value.data for name, value in self.model.named_parameters()}
        save_file(weights | moments, self.path.with_suffix(".new"), {"step": str(step)})
        self.path.with_suffix(".new").replace(self.path)

    def load(self) -> int:
        """Brings it back; gives the step, 0 where there is nothing."""
        if not self.path.exists():
            return 0
        with safe_open(self.path, "pt") as file:
            step = int(file.metadata()["step"])
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                kind, _, rest = name.partition(".")
                if kind == "weight":
                    self.model.get_parameter(rest).data.copy_(file.get_tensor(name))
                else:
                    number, _, key = rest.partition(".")
                    state.setdefault(int(number), {})[key] = file.get_tensor(name)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        return step


def train(
    model: LlamaForCausalLM, kept: Kept, stream: Iterator[tuple[torch.Tensor, torch.Tensor]], first: int, steps: int,
    peak: float, bf16: bool,
) -> None:  # fmt: skip
    """AdamW over the steps from ``first`` on."""
    began = last = time.monotonic()
    for step in range(first, steps):
        for group in kept.optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        tokens, weights = next(stream)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=tokens).logits
        found = functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        weights = weights[:, 1:].flatten()
        loss = (found * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        kept.optimizer.step()
        kept.optimizer.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            text = found[weights == 1.0].mean().item()
            seconds = time.monotonic() - began
            print(f"step {step:6d} of {steps}  loss {loss.item():.3f}, of text {text:.3f}  {seconds:.0f} s", flush=True)
        if time.monotonic() - last > KEPT_EVERY or step == steps - 1:
            kept.save(step + 1)
            last = time.monotonic()


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE=WEIGHT")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=12_000_000)
    for name, value in {"layers": 8, "width": 320, "feed": 864, "heads": 5, "vocabulary": 8192}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16: half the time where the CPU has it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    texts = {Path(name): float(weight or 1) for name, _, weight in (each.partition("=") for each in args.text)}
    args.out.mkdir(parents=True, exist_ok=True)
    if (args.out / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out)
    else:
        tokenizer = train_tokenizer(mixed(texts, args.seed), args.vocabulary)
        tokenizer.save_pretrained(args.out)
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=args.feed, num_hidden_layers=args.layers,
        num_attention_heads=args.heads, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05)
    kept = Kept(args.out.with_name(f"{args.out.name}-training.safetensors"), model, optimizer)
    first, steps = kept.load(), args.tokens // (ROWS * LENGTH)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, steps {first} to {steps}", flush=True)
    stream = batches(mixed(texts, args.seed + 1), tokenizer, first)
    train(model, kept, stream, first, steps, args.peak, args.bf16)
    save_model(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
