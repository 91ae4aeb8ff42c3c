"""A loaded model with everything derived from it: what the engine works with."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import transformers

from ttt_core import identity
from ttt_core.chat import ChatFormat, PromptPrefix
from ttt_core.config import AdaptationConfig, AttentionName
from ttt_core.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoadedModel:
    """One model, its runtime, its chat format and its identity."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template_kwargs: dict[str, Any] | None,
        attention: AttentionName = "auto",
    ) -> None:
        self.runtime = Runtime(model, attention=attention)
        self.tokenizer = tokenizer
        self.chat = ChatFormat(tokenizer, template_kwargs)
        self.eos_token_ids = _eos_token_ids(model, tokenizer)

    def key(self, prompt: PromptPrefix, config: AdaptationConfig) -> str:
        """Identity of the adapter for `prompt` and `config`."""
        base, tokenizer = self._identity
        return identity.adapter_key(
            base=base, tokenizer=tokenizer, prefix_ids=prompt.input_ids, config=config
        )

    def prefix_key(self, prompt: PromptPrefix, *, durable: bool) -> str:
        """Identity of the keys and values of `prompt`; `durable`: for other processes, too."""
        return identity.prefix_key(
            base=self._identity[0] if durable else "",
            dtype=str(self.runtime.model.dtype),
            library=transformers.__version__,
            prefix_ids=prompt.input_ids,
        )

    @cached_property
    def _identity(self) -> tuple[str, str]:
        # Reading every weight takes seconds for large models, so only those who adapt pay.
        return (
            identity.weights_fingerprint(self.runtime.model),
            identity.tokenizer_fingerprint(self.tokenizer, self.chat.identity),
        )


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation = getattr(model, "generation_config", None)
    configured = getattr(generation, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
