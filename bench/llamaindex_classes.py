"""The LLMs that `bench.llamaindex_suite` puts through the conformance suite.

A pytest module under another name, so that only that program runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from llama_index.core.llms import LLM

from bench.llamaindex_suite import COMPARISON
from tests.llamaindex.conformance import Hooks, classes
from tests.llamaindex.test_conformance import TTTHooks

PEER = COMPARISON.peers["HuggingFaceLLM"]


class HuggingFaceHooks(Hooks):
    """How a HuggingFaceLLM is made of a chat model."""

    def build(self, model: Any, tokenizer: Any, folder: Path, **options: Any) -> LLM:
        return _hugging_face(model=model, tokenizer=tokenizer, **options)

    def load(self, folder: Path, **options: Any) -> LLM:
        names = {"model_name": str(folder), "tokenizer_name": str(folder), "device_map": "cpu"}
        return _hugging_face(**names, **options)


def _hugging_face(**options: Any) -> LLM:
    renamed = {{"max_tokens": "max_new_tokens"}.get(name, name): options[name] for name in options}
    made = importlib.import_module(PEER).HuggingFaceLLM(is_chat_model=True, **renamed)
    assert isinstance(made, LLM)
    return made


globals().update(classes("TTTLLM", TTTHooks))
if importlib.util.find_spec(PEER):
    globals().update(classes("HuggingFaceLLM", HuggingFaceHooks))
