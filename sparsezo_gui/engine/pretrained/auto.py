"""The only module that uses the Auto classes of transformers. Their own mechanism for running a model's code is always
off: a model's own classes come from `TrustedCode`, which the user has allowed to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model

from sparsezo_gui.engine.pretrained.consent import TrustedCode


def load_config(folder: Path, code: TrustedCode | None = None) -> PretrainedConfig:
    """The config in ``folder``. Raises any exception of the library or of the model's own class."""
    own = code and code.find("AutoConfig", PretrainedConfig)
    if own:
        return own.from_pretrained(folder, local_files_only=True)
    return cast("PretrainedConfig", AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True))


def make_config(table: dict[str, Any]) -> PretrainedConfig:
    """The config that a config.json with the content ``table`` describes. Raises as `load_config` does."""
    return CONFIG_MAPPING[table["model_type"]].from_dict(dict(table))


def build(config: PretrainedConfig, code: TrustedCode | None = None, **options: Any) -> PreTrainedModel:
    """A causal language model of ``config`` without loading weights. Raises as `load_config` does."""
    own = code and code.find("AutoModelForCausalLM", PreTrainedModel)
    if own:
        return cast("PreTrainedModel", add_generation_mixin_to_remote_model(own)._from_config(config, **options))
    return cast("PreTrainedModel", AutoModelForCausalLM.from_config(config, trust_remote_code=False, **options))


def load_model(folder: Path, code: TrustedCode | None = None, **options: Any) -> PreTrainedModel:
    """The causal language model in ``folder``. Raises as `load_config` does."""
    own = code and code.find("AutoModelForCausalLM", PreTrainedModel)
    if own:
        options.setdefault("config", load_config(folder, code))
        own = add_generation_mixin_to_remote_model(own)
        return cast("PreTrainedModel", own.from_pretrained(folder, local_files_only=True, **options))
    found = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    return cast("PreTrainedModel", found)


def load_tensors(
    config: PretrainedConfig, tensors: Mapping[str, Any], code: TrustedCode | None = None, **options: Any
) -> PreTrainedModel:
    """The causal language model of ``config`` with ``tensors``; each is read with ``[...]`` when its turn comes.

    Raises as `load_config` does.
    """
    own = code and code.find("AutoModelForCausalLM", PreTrainedModel)
    cls: Any = add_generation_mixin_to_remote_model(own) if own else MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return cast("PreTrainedModel", cls.from_pretrained(None, config=config, state_dict=dict(tensors), **options))


def load_tokenizer(folder: Path, code: TrustedCode | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder``. Raises as `load_config` does."""
    own = code and code.find("AutoTokenizer", PreTrainedTokenizerBase)
    if own:
        return cast("PreTrainedTokenizerBase", own.from_pretrained(folder, local_files_only=True))
    options = {"config": load_config(folder, code)} if code and code.has("AutoConfig") else {}
    found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    return cast("PreTrainedTokenizerBase", found)
