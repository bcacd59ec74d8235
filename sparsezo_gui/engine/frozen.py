"""Loading: a model whose decoder blocks are frozen in 4, 8, 16 or 32 bits, ready for an overlay."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from sparsezo_gui.engine import device as devices
from sparsezo_gui.engine.attention import ATTENTION
from sparsezo_gui.engine.forward import PACK_ROWS
from sparsezo_gui.engine.hub.cache import find
from sparsezo_gui.engine.layers import tables
from sparsezo_gui.engine.layers.integer import IntegerLinear, Rounding
from sparsezo_gui.engine.layers.linear import FrozenLinear
from sparsezo_gui.engine.layers.quantise import nf4
from sparsezo_gui.engine.layers.streamed import Streamed, needed
from sparsezo_gui.engine.layers.weights import DenseWeight, FrozenWeight, Int8Weight, NF4Weight
from sparsezo_gui.engine.pretrained import auto
from sparsezo_gui.engine.pretrained.ends import end_tokens
from sparsezo_gui.engine.pretrained.finite import finite, watched
from sparsezo_gui.engine.pretrained.limits import Limits, limits_of
from sparsezo_gui.engine.pretrained.source import ModelSource
from sparsezo_gui.engine.pretrained.spec import ModelSpec
from sparsezo_gui.engine.pretrained.tokenizer import CURE, load_tokenizer
from sparsezo_gui.engine.pretrained.weights import Checkpoint
from sparsezo_gui.engine.workers import Workers
from sparsezo_gui.errors import UserError
from sparsezo_gui.recipe.events import Progress
from sparsezo_gui.recipe.recipe import ModelTable
from sparsezo_gui.untrusted import outside

if TYPE_CHECKING:
    from sparsezo_gui.engine.prefix import Prefix


@dataclass
class FrozenModel:
    """A causal LM (``module``) whose eligible linear layers are `FrozenLinear`, by parameter name in model order."""

    module: Any
    tokenizer: Any
    source: ModelSource
    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    pack_rows: int
    """Rows of activations (perturbations × tokens) per pass; one example with one perturbation is never split."""
    layers: dict[str, FrozenLinear] = field(default_factory=dict)
    learned_end: int | None = None
    """The token with which its training examples end an answer, see `sparsezo_gui.engine.data.prompts`."""
    streamed: Streamed | None = None
    """What brings its blocks to the device, where they do not fit there together."""
    prefix: Prefix | None = None
    """What enters the first block that may be tuned, where that is not the first of all."""
    workers: Workers = field(default_factory=Workers)
    """Who makes its passes."""
    spec: ModelSpec = field(init=False)
    """Shapes and counts. Eligible weights are those that may be tuned, of all blocks or of the last ones."""

    def __post_init__(self) -> None:
        self.spec = self.source.spec

    @property
    def stops(self) -> set[int]:
        """The stop tokens: the model's, the tokenizer's, and the learned one."""
        ends = {*(self.module.generation_config.eos_token_id or ()), self.tokenizer.eos_token_id, self.learned_end}
        return ends - {None}

    @property
    def tunable(self) -> dict[str, FrozenLinear]:
        """Those of `layers` that may be tuned."""
        return {name: self.layers[name] for name in self.spec.linears}

    @property
    def body(self) -> nn.Module | None:
        """The part of the module that calls its blocks; None if the model has its own code, which may do anything."""
        own = self.source.code is not None and self.source.code.has("AutoModelForCausalLM")
        path = self.spec.blocks.rpartition(".")[0]
        return self.module.get_submodule(path) if path and not own else None

    @property
    def rounds(self) -> bool:
        """Whether it computes in fewer bits than fp32."""
        return self.dtype != torch.float32 or any(isinstance(layer, IntegerLinear) for layer in self.layers.values())

    @property
    def fingerprint(self) -> str:
        """Identifies the weights of this model."""
        return self.checkpoint.fingerprint()

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""
        return tables.rows(self.module.get_output_embeddings())

    def check_tokens(self, rows: Iterable[Sequence[int]], where: str) -> None:
        """Raises `UserError` for a token in ``rows`` that the model's tables do not hold; ``where`` says whose it is.

        A tokenizer may well have more tokens than the model, as long as no text has them.
        """
        token = max((max(row) for row in rows if row), default=0)
        if token >= self.limits.tokens:
            raise self.limits.unknown(token, self.tokenizer, where)

    @property
    def limits(self) -> Limits:
        """Token limits of the model."""
        size = min(tables.rows(self.module.get_input_embeddings()), self.vocabulary)
        return limits_of(self.source.folder, self.source.config, self.spec.shapes, size)

    def original(self, name: str) -> Tensor:
        """The weight (out, in) as in the checkpoint; the dequantised one where only a 4-bit checkpoint exists."""
        if self.source.bitsandbytes:
            return self.layers[name].frozen.dense(torch.float32).cpu()
        return self.checkpoint.read(name)


def load(table: ModelTable) -> Generator[Progress, None, FrozenModel]:
    """Finds, checks and loads the model of ``table``. Raises `UserError` for all problems with it."""
    devices.note_program()
    device = devices.choose(table.device)
    source = yield from find(table)
    yield Progress("Loading the model")
    dtype = devices.compute_dtype(device, table)
    tokenizer = load_tokenizer(source.folder, source.code)
    streamed = device.type == "cuda" and needed(
        source.spec, table.bits, dtype.itemsize, devices.memory_free(device) + devices.memory_used(device)
    )
    checkpoint = source.checkpoint
    own = tables.own_types(checkpoint, tables.narrow(source.spec, dtype, device.type))
    with tables.loaded_as(own):
        module = _module(checkpoint, source, table, torch.device("cpu") if streamed else device, dtype)
    model = FrozenModel(module, tokenizer, source, checkpoint, device, dtype, PACK_ROWS[device.type])
    rounding = Rounding()
    for done, name in enumerate(source.spec.linears):
        layer = model.layers[name] = _freeze(module, name, dtype, rounding if table.compute == "int8" else None)
        if table.bits == 4 and table.block == 32 and not source.bitsandbytes:
            # The loader has made it small already, so that no more than one weight is whole at a time.
            layer.hold(nf4(model.original(name).to(device)).to(layer.frozen.device))
        if not all(finite(tensor) for tensor in (*layer.frozen.tensors, layer.bias) if tensor is not None):
            raise _not_finite(source, name)
        if done % 32 == 0:
            devices.give_back_freed()
            yield Progress("Loading the model", done, len(source.spec.linears), "layers")
    devices.give_back_freed()
    _hold_rest(model, own)
    if streamed:
        stream(model)
    module.eval().requires_grad_(False)
    devices.give_back_freed()
    return model


def _hold_rest(model: FrozenModel, own: dict[str, torch.dtype]) -> None:
    """Holds embeddings, head and norms; those in ``own`` with a type of their own.

    The frozen weights are no parameters any more and keep their bits. Buffers stay as they are: rotary frequencies must
    not lose bits. Each is copied, since one view into the mapped file would keep all its pages in this process; a table
    is read anew, since looking at its view would map as much memory again.
    """
    for name, parameter in model.module.named_parameters():
        if not model.source.mapped:  # to make a table dense again takes long
            held = parameter.to(model.device, own.get(name, model.dtype))
        else:
            held = model.checkpoint.read(name) if name in own else parameter.to(model.device, model.dtype, copy=True)
        if not finite(held):
            raise _not_finite(model.source, name)
        parameter.data = held
    tables.hold(model.module, own, model.dtype)


def stream(model: FrozenModel) -> None:
    """Leaves the frozen weights where they are; the rest goes to the device, and blocks come to it in turn."""
    for layer in model.layers.values():
        layer.bias = None if layer.bias is None else layer.bias.to(model.device)
    for buffer in model.module.buffers():
        buffer.data = buffer.data.to(model.device)
    model.streamed = Streamed(model.module.get_submodule(model.spec.blocks), model.device)


def _module(
    checkpoint: Checkpoint, source: ModelSource, table: ModelTable, device: torch.device, dtype: torch.dtype
) -> Any:
    options: dict[str, Any] = {}
    if not source.bitsandbytes and table.bits in (4, 8):
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=table.bits == 4,
            load_in_8bit=table.bits == 8,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(source.spec.skip) or ["lm_head"],
        )
    if _takes_our_attention(source):
        options["attn_implementation"] = ATTENTION
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    ends, files = end_tokens(source), tuple(set(source.weights.values()))
    # Forward passes ask for what they need; a config could ask for more, or for tuples.
    source.config.output_hidden_states, source.config.output_attentions, source.config.return_dict = False, False, True
    with warnings.catch_warnings(), outside(source.place, "cannot be loaded", CURE), watched(files) as unsound:
        warnings.simplefilter("ignore")  # the loader's advice is for programmers
        try:
            options |= {"dtype": _held_dtype(source, table, dtype), "device_map": {"": device}}
            if not source.mapped:
                module = auto.load_tensors(source.config, checkpoint.entries, source.code, **options)
            else:
                options |= {"config": source.config, "use_safetensors": True}
                module = auto.load_model(source.folder, source.code, **options)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{source.id}: does not fit in the memory of {devices.name(device)}. Choose fewer bits or a smaller "
                "model."
            ) from error
        except RuntimeError as error:
            if unsound:
                raise _not_finite(source, unsound[0]) from error
            # What goes wrong in one of the loader's threads comes out as this; only its log says what it was.
            if "automatic conversion of the weights" not in str(error):
                raise
            raise UserError(
                f"{source.id}: its weights could not be loaded, most likely for lack of memory. Choose fewer bits "
                "or a smaller model."
            ) from error
    _check_quantised(source, module)
    # Greedy decoding needs no more of it; the rest is for sampling, and could be anything.
    module.generation_config = GenerationConfig(eos_token_id=ends or None)
    return module


def _check_quantised(source: ModelSource, module: Any) -> None:
    """Raises `UserError` if config.json promises quantised weights that are none, which nothing can compute with."""
    for name, layer in module.named_modules() if source.bitsandbytes else ():
        weight = layer.weight if type(layer).__module__.startswith("bitsandbytes") else None
        if weight is not None and weight.dtype != torch.int8 and getattr(weight, "quant_state", None) is None:
            raise UserError(
                f"{source.folder}: config.json says that the weight '{name}.weight' is quantised, but it is not. "
                + CURE
            )


def _not_finite(source: ModelSource, name: str) -> UserError:
    return UserError(
        f"{source.place}: the weight '{name}' contains NaN or infinity, so the model cannot be used. {CURE}"
    )


def _takes_our_attention(source: ModelSource) -> bool:
    """Whether the architecture uses transformers' attention interface; others, and a model's own, run padded."""
    if source.code is not None and source.code.has("AutoModelForCausalLM"):
        return False
    cls = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(source.config), None)
    return bool(getattr(cls, "_supports_attention_backend", False))


def _held_dtype(source: ModelSource, table: ModelTable, dtype: torch.dtype) -> torch.dtype:
    """At 16 bits the checkpoint's own half precision is held, at 32 all of it; else it is held as it is computed."""
    if table.bits != 16:
        return torch.float32 if table.bits == 32 else dtype
    own = getattr(source.config, "dtype", None)
    return own if own in (torch.float16, torch.bfloat16) else torch.bfloat16


def _freeze(module: nn.Module, name: str, dtype: torch.dtype, rounding: Rounding | None) -> FrozenLinear:
    """Puts a `FrozenLinear` in the place of the linear layer that holds parameter ``name``."""
    path = name.removesuffix(".weight")
    parent_path, _, attribute = path.rpartition(".")
    linear: Any = module.get_submodule(path)
    bias = None if linear.bias is None else linear.bias.data.to(dtype, copy=True)
    frozen = _store(linear)
    if rounding is None:
        layer = FrozenLinear(name, frozen, bias, dtype)
    elif isinstance(frozen, Int8Weight):
        layer = IntegerLinear(name, frozen, bias, dtype, rounding)
    else:
        raise UserError("The weights of this checkpoint have 4 bits; [model] compute = 'int8' needs 8. Use 'auto'.")
    setattr(module.get_submodule(parent_path), attribute, layer)
    return layer


def _store(linear: Any) -> FrozenWeight:
    weight = linear.weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return NF4Weight.of(weight.data, state)
    if weight.dtype == torch.int8:
        return Int8Weight(weight.data, weight.SCB)
    transposed = type(linear).__name__ == "Conv1D"  # GPT-2's, which holds (in, out)
    return DenseWeight(weight.data.t().contiguous() if transposed else weight.data)
