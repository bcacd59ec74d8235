"""What our step is compared with, each written from the description in its paper: plain inference, MeZO, QLoRA.

All use the same examples on a model of the same shape, with the same threads and number format.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from torch.nn import functional as F
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging

from sparsezo_gui.engine.data.encode import Encoded, Row
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.consent import TrustedCode

BLOCK = 64  # weights that share a scale in bitsandbytes
EPSILON, RATE = 1e-3, 1e-6
RANK, ALPHA = 16, 32  # of QLoRA's adapters, on all linear layers as its paper advises


def load_plain(
    folder: Path, device: torch.device, dtype: torch.dtype, bits: int = 4, trained: bool = False,
    code: TrustedCode | None = None,
) -> PreTrainedModel:  # fmt: skip
    """The model as plain transformers and bitsandbytes load it: NF4 without double quantisation, or unquantised.

    On a CPU with AVX-512 BF16, bitsandbytes 0.50 repacks 4-bit weights in evaluation mode into a form that passes no
    gradient and needs inputs of whole blocks; this is avoided if ``trained``, or if the width does not fit.
    """
    logging.disable_progress_bar()
    options: dict[str, Any] = {}
    if bits == 4:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    model = auto.load_model(folder, code, device_map={"": device}, dtype=dtype, **options)
    for layer in model.modules():
        if isinstance(layer, Linear4bit) and (trained or layer.in_features % BLOCK):
            layer.support_avx512bf16_for_cpu = False
    model.eval()
    return model


class Plain:
    """Plain inference: the logits of every token of the examples' rows, which have equal lengths."""

    def __init__(self, model: PreTrainedModel, examples: Sequence[Encoded]) -> None:
        self.model = model
        self.rows = torch.tensor([row.tokens for each in examples for row in each.rows], device=model.device)

    @torch.inference_mode()
    def forward(self, logits_to_keep: int = 0) -> Tensor:
        """Logits of all tokens, or of the last ``logits_to_keep``."""
        logits: Tensor = self.model(self.rows, use_cache=False, logits_to_keep=logits_to_keep).logits
        return logits


def example(number: int, tokens: Sequence[int]) -> Encoded:
    """An example with a prompt and two one-token answers."""
    prompt = tuple(tokens)
    return Encoded((Row(prompt, (len(prompt) - 1,) * 2, (2, 3), (0, 1)),), 2, number % 2, prompt, (), 0)


def text(number: int, tokens: Sequence[int]) -> Encoded:
    """A text of which every token is learned that has one before it."""
    row = Row(tuple(tokens), tuple(range(len(tokens) - 1)), tuple(tokens[1:]), (0,) * (len(tokens) - 1))
    return Encoded((row,), 0, 0, (), (), 0)


def candidates(examples: Sequence[Encoded], padding: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """MeZO's batch: a padded row of prompt and answer per candidate; tokens, mask, and positions of the answer."""
    rows, starts = [], []
    for example in examples:
        row = example.rows[0]
        for target in dict.fromkeys(row.targets):
            rows.append([*row.tokens, target])
            starts.append(len(row.tokens))
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return tokens, mask, torch.tensor(starts, device=device)


class MeZO:
    """The step of arXiv 2305.17333, algorithm 1, on all weights of a dense model: forward passes at weights perturbed
    in place with the same seed, and an update with it. Cross-entropy over candidates, each in a padded row."""

    def __init__(self, model: PreTrainedModel, examples: Sequence[Encoded], padding: int) -> None:
        self.model = model
        self.tokens, self.mask, self.starts = candidates(examples, padding, model.device)
        self.labels = torch.tensor([example.label for example in examples], device=model.device)
        self.seed = 0

    def _perturb(self, scale: float) -> None:
        generator = torch.Generator(self.model.device).manual_seed(self.seed)
        for parameter in self.model.parameters():
            z = torch.randn(parameter.shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
            parameter.data.add_(z, alpha=scale)

    def _loss(self) -> float:
        logits = self.model(self.tokens, attention_mask=self.mask, use_cache=False).logits
        row = torch.arange(len(self.tokens), device=logits.device)
        scores = logits[row, self.starts - 1].float().log_softmax(-1)[row, self.tokens[row, self.starts]]
        return F.cross_entropy(scores.view(len(self.labels), -1), self.labels).item()

    @torch.inference_mode()
    def step(self) -> None:
        """One step."""
        self.seed += 1
        self._perturb(EPSILON)
        plus = self._loss()
        self._perturb(-2 * EPSILON)
        minus = self._loss()
        self._perturb(EPSILON)
        self._perturb(-RATE * (plus - minus) / (2 * EPSILON))


class QLoRA:
    """A step of arXiv 2305.14314: adapters on all linear layers of the 4-bit model, AdamW, gradient checkpointing, and
    logits only where tokens are learned: of choices, the correct answer."""

    def __init__(self, model: PreTrainedModel, examples: Sequence[Encoded], checkpointing: bool) -> None:
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        options = {"use_reentrant": False}
        model = prepare_model_for_kbit_training(model, checkpointing, gradient_checkpointing_kwargs=options)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
        self.model = get_peft_model(model, config).train()
        device, rows = self.model.device, [each.rows[0] for each in examples]
        longest = max(len(row.tokens) for row in rows)
        self.tokens = torch.zeros(len(rows), longest, dtype=torch.int64, device=device)
        self.mask = torch.zeros_like(self.tokens)
        self.labels = torch.full_like(self.tokens, -100)
        for number, (row, each) in enumerate(zip(rows, examples, strict=True)):
            length = len(row.tokens)
            self.tokens[number, :length] = torch.tensor(row.tokens)
            self.mask[number, :length] = 1
            for place, target, choice in zip(row.positions, row.targets, row.choices, strict=True):
                if choice == each.label:
                    self.labels[number, place] = target
        self.places = (self.labels != -100).any(dim=0).nonzero().flatten()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=2e-4)

    def step(self) -> None:
        """One step on padded rows: the loss of the learned tokens, as in supervised fine-tuning."""
        logits = self.model(
            input_ids=self.tokens, attention_mask=self.mask, use_cache=False, logits_to_keep=self.places
        ).logits
        F.cross_entropy(logits.flatten(0, 1).float(), self.labels[:, self.places].flatten()).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
