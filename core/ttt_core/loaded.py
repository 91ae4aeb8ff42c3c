"""A loaded model with everything derived from it: what the engine works with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers

from ttt_core.chat import ChatFormat, PromptPrefix, as_messages
from ttt_core.config import AdaptationConfig, AttentionName
from ttt_core.fingerprint import text_fingerprint, vocabulary_fingerprint, weights_fingerprint
from ttt_core.identity import AdapterIdentity, hash_tokens, prefix_key
from ttt_core.lazy import lazy_property
from ttt_core.namespace import Namespace
from ttt_core.runtime import Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ttt_core.constrained import Vocabulary


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

    def identity(
        self,
        prompt: PromptPrefix,
        config: AdaptationConfig,
        namespace: Namespace,
        question: str | None = None,
    ) -> AdapterIdentity:
        """Return what the adapter for `prompt`, `config` and maybe a question belongs to."""
        asked = [] if question is None else self.chat.suffix(prompt, as_messages(question))
        return AdapterIdentity(
            base=self._base,
            tokenizer=self._tokenizer_fingerprint,
            template=text_fingerprint(self.chat.identity),
            prefix=hash_tokens(namespace, prompt.input_ids),
            question=hash_tokens(namespace, asked) if asked else "",
            config=config,
        )

    def prefix_key(self, prompt: PromptPrefix, namespace: Namespace, *, durable: bool) -> str:
        """Return the key of the keys and values of `prompt`; `durable`: in other processes, too."""
        return prefix_key(
            namespace,
            base=self._base if durable else "",
            dtype=str(self.runtime.model.dtype),
            library=transformers.__version__,
            input_ids=prompt.input_ids,
        )

    @property
    def name(self) -> str:
        """Hub id or path of the model, if it was loaded from one."""
        return str(getattr(self.runtime.model.config, "_name_or_path", "") or "")

    @lazy_property
    def vocabulary(self) -> Vocabulary:
        """What constrained output is made of; seconds for large vocabularies, so only on demand."""
        from ttt_core.constrained import Vocabulary

        return Vocabulary(
            self.tokenizer,
            vocab_size=int(self.runtime.model.get_output_embeddings().weight.shape[0]),
            eos_token_ids=self.eos_token_ids,
        )

    # Reading every weight takes seconds for large models, so only those who adapt pay.

    @lazy_property
    def _base(self) -> str:
        return weights_fingerprint(self.runtime.model)

    @lazy_property
    def _tokenizer_fingerprint(self) -> str:
        return vocabulary_fingerprint(self.tokenizer)


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation = getattr(model, "generation_config", None)
    configured = getattr(generation, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*ids, tokenizer.eos_token_id) if token is not None)
