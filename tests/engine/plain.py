"""An independent implementation: plain transformers, one sequence at a time, weights edited in place."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM


def plain_model(model):
    """A plain fp32 transformers model whose eligible weights are the dense ones of a `FrozenModel`."""
    plain = AutoModelForCausalLM.from_pretrained(model.source.folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, layer in model.layers.items():
            plain.get_parameter(name).copy_(oriented(model, name, layer.frozen.dense(torch.float32)))
    return plain.eval()


def oriented(model, name, weight):
    """(out, in) as the plain model's parameter holds it."""
    return weight.t() if name in model.spec.transposed else weight


def put(plain, model, tuned, values):
    """Writes an overlay's values into the plain model's weights."""
    with torch.no_grad():
        for name, part in tuned.slices.items():
            parameter = plain.get_parameter(name)
            weight = oriented(model, name, parameter.data).contiguous()
            weight.view(-1)[tuned.indices[name].cpu().long()] = values[part].to(weight)
            parameter.copy_(oriented(model, name, weight))


def projected(tuned, name, gradient):
    """The gradient of the tuned values of weight ``name`` from the weight's own, (out, in)."""
    return tuned.project(name, torch.eye(len(gradient)), gradient).double()


def log_probability(plain, tokens, position, target):
    """log p(target) after ``tokens[: position + 1]``."""
    return plain(torch.tensor([list(tokens)])).logits[0, position].log_softmax(-1)[target]


def loss(plain, examples):
    """The objective of `sparsezo_gui.engine.objective`, written down once more without packs."""
    total, weight = 0.0, 0.0
    for example in examples:
        scores = [[] for _ in range(max(1, example.choices))]
        for row in example.rows:
            logits = plain(torch.tensor([list(row.tokens)])).logits[0].log_softmax(-1)
            for position, target, choice in zip(row.positions, row.targets, row.choices, strict=True):
                scores[choice].append(logits[position, target])
        if example.choices:
            means = torch.stack([torch.stack(each).mean() for each in scores])
            total, weight = total - means.log_softmax(0)[example.label], weight + 1
        else:
            total, weight = total - torch.stack(scores[0]).sum(), weight + len(scores[0])
    return total / weight


class Differentiable:
    """The loss of a plain model in ``dtype`` as a function of the tuned values, for autograd: no patches, no packs, and
    nothing of `TunedValues.project`."""

    def __init__(self, model, tuned, plain=None, dtype=torch.float64):
        self.model, self.tuned, self.plain = model, tuned, (plain or plain_model(model)).to(dtype)
        with torch.no_grad():  # what else there is as the model holds it, at 16 bits in 16
            for name, parameter in model.module.named_parameters():
                self.plain.get_parameter(name).copy_(parameter)
            for name, layer in model.layers.items():
                if layer.bias is not None:
                    self.plain.get_parameter(name.removesuffix("weight") + "bias").copy_(layer.bias)

    def weights(self, values):
        """Each tuned weight at ``values`` (n,), as the plain model's parameter holds it."""
        model, effective = self.model, EFFECTIVE[self.tuned.mask.space]
        found = {}
        for name, part in self.tuned.slices.items():
            held = self.plain.get_parameter(name).detach()
            weight = effective(self.tuned, name, oriented(model, name, held).double(), values[part])
            found[name] = oriented(model, name, weight).to(held.dtype)
        return found

    def gradient(self, values, examples, of=loss):
        """∇L (n,) at ``values``, and L; ``of(plain, examples)`` is the loss."""
        leaves = values.double().clone().requires_grad_()
        weights = self.weights(leaves)
        found = of(lambda ids: torch.func.functional_call(self.plain, weights, (ids,)), examples)
        return torch.autograd.grad(found, leaves)[0], found.item()


def _entries(tuned, name, weight, values):
    return weight.reshape(-1).scatter(0, tuned.mask.indices[name].long(), values).view_as(weight)


def _low_rank(tuned, name, weight, values):
    count, rows, rank = tuned.bases.cores[name]
    for number, core in enumerate(values.view(count, rows, rank)):
        left, right = tuned.bases.factors(number)[name]
        weight = weight + (core if left is None else left.double() @ core) @ right.double().t()
    return weight


def _lora(tuned, name, weight, values):
    rows, columns = weight.shape
    rank = len(values) // (rows + columns)
    a, b = values.split([rank * columns, rows * rank])
    return weight + 2 * b.view(rows, rank) @ a.view(rank, columns)


EFFECTIVE = {
    "entries": _entries, "low-rank": _low_rank, "lora": _lora,
    "dense": lambda tuned, name, weight, values: values.view_as(weight),
}  # fmt: skip
"""The weight (out, in) that values stand for beside a frozen one, by space."""
