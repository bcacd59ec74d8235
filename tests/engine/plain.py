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
