"""The chat models that `bench.langchain_suite` puts through LangChain's standard tests.

A pytest module under another name, so that only that program runs it. Both models get the same
weights and the same claims to prove: whoever offers a method is tested on it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from transformers import pipeline
from transformers.utils import logging

from bench.langchain_suite import SCRIPTED
from bench.suites import FOLDER
from langchain_ttt import ChatTTT
from tests.langchain.capable import CAPABLE, capable
from tests.langchain.listing import put_on_the_list
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import TTTEngine

TOKENS = 256
"""The most an answer may take; a token is a character, more or less."""

_TASK: Final = "text-generation"


def weights(name: str) -> str:
    """The folder of one of the two random models that the program saved."""
    return str(Path(os.environ[FOLDER]) / name)


@cache
def scripted() -> tuple[ScriptedModel, Any]:
    """The scripted model, one for all tests, and its tokenizer."""
    tokenizer = scripted_tokenizer(tools=True)
    return ScriptedModel(capable, tokenizer), tokenizer


@cache
def scripted_engine() -> TTTEngine:
    """An engine on the scripted model."""
    return TTTEngine(*scripted(), store=weights("store"))


class _Anything:
    """Stands in for a snapshot: no earlier version of either is to be compared with."""

    def __call__(self, **options: Any) -> _Anything:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class _Claims:
    """What both are said to be able to do."""

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def scripted_params(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture
    def snapshot(self) -> _Anything:
        return _Anything()

    @pytest.fixture
    def model(self: Any, request: pytest.FixtureRequest) -> BaseChatModel:
        """As the standard fixture does; on the scripted weights where capability is needed."""
        is_scripted = (
            getattr(request.node, "originalname", "") in CAPABLE and SCRIPTED in os.environ
        )
        own = self.scripted_params if is_scripted else self.chat_model_params
        more = getattr(request, "param", None) or {}
        chat_model: type[BaseChatModel] = self.chat_model_class
        return chat_model(**{**self.standard_chat_model_params, **own, **more})


class _ChatHuggingFace(_Claims):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        from langchain_huggingface import ChatHuggingFace

        return ChatHuggingFace

    @property
    def chat_model_params(self) -> dict[str, Any]:
        from langchain_huggingface import HuggingFacePipeline

        options = {"max_new_tokens": TOKENS}
        return {
            "llm": HuggingFacePipeline.from_model_id(weights("one"), _TASK, pipeline_kwargs=options)
        }

    @property
    def scripted_params(self) -> dict[str, Any]:
        from langchain_huggingface import HuggingFacePipeline

        model, tokenizer = scripted()
        logging.set_verbosity_error()  # The pipeline does not know the class by name, and says so.
        runs = pipeline(_TASK, model=model, tokenizer=tokenizer, max_new_tokens=TOKENS)
        return {"llm": HuggingFacePipeline(pipeline=runs), "tokenizer": tokenizer}


class _ChatTTT(_Claims):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTTT

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": weights("one"), "max_tokens": TOKENS}

    @property
    def scripted_params(self) -> dict[str, Any]:
        return {"engine": scripted_engine(), "max_tokens": TOKENS}


class TestChatHuggingFaceUnit(_ChatHuggingFace, ChatModelUnitTests):
    """ChatHuggingFace, without calls."""


class TestChatHuggingFaceIntegration(_ChatHuggingFace, ChatModelIntegrationTests):
    """ChatHuggingFace, called."""


class TestChatTTTUnit(_ChatTTT, ChatModelUnitTests):
    """ChatTTT, without calls: the suite itself gives the arguments that any model takes."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": weights("one")}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"TTT_MODEL": weights("one")}, {}, {"model": weights("one")}

    @pytest.fixture(autouse=True)
    def _listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put_on_the_list(monkeypatch)


class TestChatTTTIntegration(_ChatTTT, ChatModelIntegrationTests):
    """ChatTTT, called."""

    @property
    def model_override_value(self) -> str:
        return weights("two")
