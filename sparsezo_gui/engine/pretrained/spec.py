"""The model spec of a causal language model (`ModelSpec`), from its config alone: no weights, no download.

The model is built on torch's meta device, where tensors have shapes but no memory. All names are module and parameter
names of that model, so they are valid for the loaded one too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.pytorch_utils import Conv1D

from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.consent import TrustedCode
from sparsezo_gui.errors import UserError
from sparsezo_gui.untrusted import reason


@dataclass(frozen=True)
class ModelSpec:
    """Sizes, names and kinds of a model's parts. Counts are numbers of weights; a tied tensor is counted once.

    ``parameters == eligible + embeddings + head + other``.
    """

    blocks: str
    """Module path of the list of decoder blocks, such as 'model.layers'."""
    linears: Mapping[str, tuple[int, int]]
    """Every eligible weight by parameter name, in the model's order, with its shape (out features, in features)."""
    transposed: frozenset[str]
    """Those of `linears` whose parameter is stored as (in, out): the Conv1D layers of GPT-2."""
    skip: tuple[str, ...]
    """Module paths of the linear layers outside the blocks; they are never quantised and never tuned."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every parameter in the model, tied ones once."""
    aliases: Mapping[str, str]
    """Further names of tied parameters, such as 'lm_head.weight', to the name under which `shapes` has them."""
    tables: tuple[str, ...]
    """Parameters of the token embeddings and of the head; none if the model has its own code."""
    halved: bool
    """Whether the config says that the checkpoint has 16-bit numbers."""
    parameters: int
    eligible: int
    embeddings: int
    head: int
    """Weights of the language-model head; 0 when it is tied to the embeddings (except for a bias)."""
    other: int
    """Norms, biases and everything else that is neither eligible nor embedding nor head."""
    tied: bool
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Widest input of an eligible weight: that of the down projection."""
    widest: int
    """Widest output of an eligible weight (fused projections are wider than `intermediate`)."""
    vocabulary: int
    largest: int
    """Weights of the largest eligible linear layer."""
    feed: int
    """Peak numbers per token in a block's feed-forward half, besides the residual and similar."""
    capped: bool
    """Whether attention scores are capped (Gemma 2), so that they must be kept in memory completely."""

    def block(self, name: str) -> int:
        """Number of the decoder block of eligible weight ``name``."""
        return int(name.removeprefix(f"{self.blocks}.").partition(".")[0])

    @property
    def tunable_blocks(self) -> list[int]:
        """Numbers of the blocks with eligible weights."""
        return sorted({self.block(name) for name in self.linears})

    def last(self, count: int) -> ModelSpec:
        """The same where only weights in the last ``count`` blocks are eligible; the others count as `other`."""
        linears = {name: shape for name, shape in self.linears.items() if self.block(name) >= self.layers - count}
        eligible = sum(rows * columns for rows, columns in linears.values())
        other = self.other + self.eligible - eligible
        return replace(self, linears=MappingProxyType(linears), eligible=eligible, other=other)


def spec(config: PretrainedConfig, code: TrustedCode | None = None) -> ModelSpec:
    """Model spec of the causal language model that ``config`` describes, with the model's own ``code`` if any.

    Raises `UserError` if it is not a decoder-only transformer with linear layers.
    """
    _refuse_by_config(config, code)
    model = empty_model(config, code)
    text = model.config.get_text_config()
    path, blocks = _blocks(model, text)
    _refuse_by_blocks(config, blocks, text)
    linears, transposed, skip = _linears(model, path)
    if not linears:
        raise UserError(f"{_named(config)} has no linear layers in its blocks to tune. Choose another model.")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    aliases = {name: first[id(parameter)] for name, parameter in every.items() if name not in shapes}
    heads = text.num_attention_heads
    embedding: Any = model.get_input_embeddings()
    return ModelSpec(
        blocks=path,
        linears=MappingProxyType(linears),
        transposed=frozenset(transposed),
        skip=tuple(skip),
        shapes=MappingProxyType(shapes),
        aliases=MappingProxyType(aliases),
        tables=() if code is not None else _tables(model, first),
        halved=getattr(config, "dtype", None) in (torch.float16, torch.bfloat16),
        **_counts(model, linears),
        hidden=text.hidden_size,
        layers=len(blocks),
        heads=heads,
        kv_heads=_kv_heads(text),
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        intermediate=max(columns for _, columns in linears.values()),
        widest=max(rows for rows, _ in linears.values()),
        vocabulary=embedding.weight.shape[0],
        largest=max(rows * columns for rows, columns in linears.values()),
        feed=_feed(text, linears, f"{path}.0."),
        capped=getattr(text, "attn_logit_softcapping", None) is not None,
    )


def empty_model(config: PretrainedConfig, code: TrustedCode | None = None) -> PreTrainedModel:
    """The model of ``config`` on the meta device, tied as it will be when loaded. ``config`` stays as it is."""
    config = copy.deepcopy(config)
    try:
        with torch.device("meta"):
            # Shapes do not depend on the attention implementation; 'eager' needs no additional package.
            model = auto.build(config, code, attn_implementation="eager")
            model.tie_weights()
    except UserError:  # from the model's own code
        raise
    except Exception as error:  # an architecture may raise anything for an unknown config
        raise UserError(f"{_named(config)} cannot be built from its config.json: {reason(error)}") from error
    model.eval()
    return model


def _named(config: PretrainedConfig) -> str:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    return f"The model type '{config.model_type}'" + (f" ({architecture})" if architecture else "")


def _refuse_by_config(config: PretrainedConfig, code: TrustedCode | None) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{_named(config)} is an encoder-decoder model. SparseZO tunes decoder-only language models; "
            "choose one such as Llama, Qwen, Mistral, Gemma, Phi or GPT-2."
        )
    own = code is not None and code.has("AutoModelForCausalLM")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not own:
        raise UserError(
            f"{_named(config)} is not a causal language model that transformers can build, so it cannot "
            "be tuned here. Choose a text-generation model such as Llama, Qwen, Mistral, Gemma or GPT-2."
        )
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise UserError(
            f"{_named(config)} reads text in both directions (a masked model) and does not predict the "
            "next token. Choose a text-generation model."
        )


def _blocks(model: PreTrainedModel, text: PretrainedConfig) -> tuple[str, nn.ModuleList]:
    """Path and list of the decoder blocks: the list with the right length and one class, the largest if several."""
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == getattr(text, "num_hidden_layers", None)
        and len({type(entry) for entry in module}) == 1
    ]
    if not found:
        raise UserError(
            f"{_named(model.config)} has no list of equal decoder blocks, so SparseZO cannot tell which "
            "weights to tune. Choose another model."
        )
    return max(found, key=lambda item: sum(parameter.numel() for parameter in item[1].parameters()))


def _refuse_by_blocks(config: PretrainedConfig, blocks: nn.ModuleList, text: PretrainedConfig) -> None:
    # Sequences are packed without padding; convolutions and recurrent states would leak from one into the next.
    recurrent = any(isinstance(module, nn.Conv1d) for module in blocks.modules())
    if recurrent or not isinstance(getattr(text, "num_attention_heads", None), int):
        raise UserError(
            f"{_named(config)} has recurrent or convolution layers, which would mix the examples of a "
            "packed batch. Choose a transformer whose layers are all attention."
        )
    expert = next((name for name, weight in blocks.named_parameters() if weight.dim() > 2), None)
    if expert:
        raise UserError(
            f"{_named(config)} is a mixture of experts: its weight '{expert}' is not a linear layer, "
            "so it cannot be quantised or tuned. Choose a dense model."
        )


def _linears(model: PreTrainedModel, path: str) -> tuple[dict[str, tuple[int, int]], list[str], list[str]]:
    linears: dict[str, tuple[int, int]] = {}
    transposed, skip = [], []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        if not name.startswith(f"{path}."):
            skip.append(name)
            continue
        rows, columns = module.weight.shape
        if isinstance(module, Conv1D):
            transposed.append(f"{name}.weight")
            rows, columns = columns, rows
        linears[f"{name}.weight"] = (rows, columns)
    return linears, transposed, skip


def _tables(model: PreTrainedModel, names: dict[int, str]) -> tuple[str, ...]:
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    plain = [end.weight for end in ends if isinstance(end, nn.Embedding) or type(end) is nn.Linear]
    return tuple(dict.fromkeys(names[id(weight)] for weight in plain))


def _kv_heads(text: PretrainedConfig) -> int:
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        return 1  # Falcon 7B
    found = getattr(text, "num_key_value_heads", None) or getattr(text, "num_kv_heads", None)
    return int(found or text.num_attention_heads)


def _feed(text: PretrainedConfig, linears: dict[str, tuple[int, int]], first: str) -> int:
    """Gate, up and product together if there is a gate (a fused one stays beside its halves), else in and out.

    An activation composed of elementary operations keeps four intermediate results. Measured in forward passes.
    """
    shapes = [shape for name, shape in linears.items() if name.startswith(first)]
    inner = max(columns for _, columns in shapes)
    if max(rows for rows, _ in shapes) >= 2 * inner:
        return 4 * inner
    if sum(rows == inner and columns < inner for rows, columns in shapes) >= 2:
        return 3 * inner
    activation = getattr(text, "hidden_act", None) or getattr(text, "activation_function", None)
    composed = activation in ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python", "quick_gelu")
    return 4 * inner + 2 * text.hidden_size if composed else 2 * inner


def _counts(model: PreTrainedModel, linears: dict[str, tuple[int, int]]) -> dict[str, Any]:
    parameters = {id(parameter): parameter.numel() for parameter in model.parameters()}
    eligible = sum(rows * columns for rows, columns in linears.values())
    tables = {
        id(module.weight): module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding)
    }
    output = model.get_output_embeddings()
    ends = {id(weight): weight.numel() for weight in output.parameters()} if output is not None else {}
    head = sum(count for key, count in ends.items() if key not in tables)
    embeddings, total = sum(tables.values()), sum(parameters.values())
    return {
        "parameters": total,
        "eligible": eligible,
        "embeddings": embeddings,
        "head": head,
        "other": total - eligible - embeddings - head,
        "tied": output is not None and id(output.weight) in tables,
    }
