"""LangChain's own test suites, none of them overridden.

Most run on the bundled model, a toy that was never shown a tool: what passes there, passes by
construction. The tests that need a model of some capability run on a scripted one, see
tests/scripted.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from langchain_ttt import ChatTTT
from tests.langchain.capable import CAPABLE, capable
from tests.langchain.listing import put_on_the_list
from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import TTTEngine

pytest.importorskip("langchain_tests")
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

DOCUMENT = "amber falcon: Oslo\nquiet harbour: Lima\n"


class TestUnit(ChatModelUnitTests):
    @pytest.fixture(autouse=True)
    def _listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put_on_the_list(monkeypatch)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTTT

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "someone/some-model"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"TTT_MODEL": "someone/some-model"}, {}, {"model": "someone/some-model"}


@pytest.fixture(scope="module")
def scripted_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TTTEngine]:
    """An engine on the model that stands in for a capable one."""
    tokenizer = scripted_tokenizer(tools=True)
    model = ScriptedModel(capable, tokenizer)
    with TTTEngine(model, tokenizer, store=tmp_path_factory.mktemp("store")) as engine:
        yield engine


class TestIntegration(ChatModelIntegrationTests):
    folder: Path

    @pytest.fixture(autouse=True)
    def _save_another(self, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any) -> None:
        type(self).folder = tmp_path
        make_model("qwen3").save_pretrained(tmp_path / "other")
        tokenizer.save_pretrained(tmp_path / "other")

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, scripted_engine: TTTEngine) -> BaseChatModel:
        """As the suite's own fixture, but scripted where a model that small cannot pass."""
        own = self.chat_model_params
        if request.node.originalname in CAPABLE:
            own = {"engine": scripted_engine, "max_tokens": 256}
        own = {**self.standard_chat_model_params, **own, **getattr(request, "param", {})}
        return ChatTTT(**own)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatTTT

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"max_tokens": 100}

    @property
    def model_override_value(self) -> str:
        return str(self.folder / "other")

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Any, Any]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        llm = ChatTTT(documents=[DOCUMENT])
        llm.adapt()  # Else this answer would be the one that reads the document.
        if not stream:
            return llm.invoke("Where is amber falcon?")
        whole = reduce(add, llm.stream("Where is amber falcon?"))
        assert isinstance(whole, AIMessage)
        return whole
