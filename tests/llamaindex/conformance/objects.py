"""The object itself: names, settings, serialised forms, copies."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.callbacks import CallbackManager
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.llms import LLM
from llama_index.core.schema import TextNode, TransformComponent

from tests.llamaindex.conformance.hooks import QUESTION, TOKENS, WINDOW, Hooks


class Extractor(TransformComponent):
    """A step of an ingestion pipeline that holds an LLM."""

    llm: LLM

    def __call__(self, nodes: Any, **options: Any) -> Any:
        """Do nothing."""
        return nodes


class Objects(Hooks):
    """What becomes of an LLM that is passed around."""

    def test_it_is_an_llm(self, llm: Any) -> None:
        assert isinstance(llm, LLM)
        assert BaseLLM.__name__ in [base.__name__ for base in type(llm).__mro__]

    def test_it_has_a_name_of_its_own(self, llm: Any) -> None:
        names = {base.class_name() for base in type(llm).__mro__[1:] if hasattr(base, "class_name")}
        assert type(llm).class_name() not in names

    def test_metadata_tells_the_model_s_window(self, llm: Any) -> None:
        metadata = llm.metadata
        assert metadata.context_window == WINDOW
        assert 0 < metadata.num_output < metadata.context_window / 2
        assert metadata.is_chat_model

    def test_metadata_names_the_model(self, loaded: Any, saved: Path) -> None:
        assert str(saved) in loaded.metadata.model_name

    def test_no_callback_manager_is_one(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any
    ) -> None:
        llm = make_llm(model, tokenizer, max_tokens=TOKENS, callback_manager=None)
        assert isinstance(llm.callback_manager, CallbackManager)
        assert llm.complete(QUESTION).text

    def test_settings_take_it_with_their_callback_manager(self, llm: Any) -> None:
        manager = CallbackManager()
        Settings.callback_manager = manager
        Settings.llm = llm
        assert Settings.llm is llm
        assert llm.callback_manager is manager

    def test_to_dict_and_back(self, loaded: Any) -> None:
        data = json.loads(json.dumps(loaded.to_dict()))
        again = type(loaded).from_dict(data)
        try:
            assert again.to_dict() == loaded.to_dict()
            assert again.complete(QUESTION).text == loaded.complete(QUESTION).text
        finally:
            self.dispose(again)

    def test_pickles_are_small_and_work(self, loaded: Any) -> None:
        text = loaded.complete(QUESTION).text
        data = pickle.dumps(loaded)
        assert len(data) < 2**20
        thawed = pickle.loads(data)
        try:
            assert thawed.complete(QUESTION).text == text
        finally:
            self.dispose(thawed)

    def test_copies_share_the_weights(self, llm: Any) -> None:
        text = llm.complete(QUESTION).text
        before = _modules()
        copied = copy.deepcopy(llm)
        assert _modules() == before
        assert copied.complete(QUESTION).text == text

    def test_ingestion_pipelines_can_hash_it(self, loaded: Any) -> None:
        nodes = [TextNode(text="a page", id_="1")]
        first = get_transformation_hash(nodes, Extractor(llm=loaded))
        assert first == get_transformation_hash(nodes, Extractor(llm=loaded))

    def test_its_repr_shows_no_weights(self, llm: Any) -> None:
        assert len(repr(llm)) < 5000
        assert "tensor(" not in repr(llm)


def _modules() -> int:
    """How many torch modules the process holds."""
    gc.collect()
    return sum(issubclass(type(thing), torch.nn.Module) for thing in gc.get_objects())
