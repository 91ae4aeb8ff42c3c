"""Callbacks and instrumentation: one call is one event, and what it says is true."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation import get_dispatcher
from pydantic import Field

from tests.llamaindex.conformance.hooks import (
    CHATS,
    METHODS,
    TOKENS,
    Hooks,
    Method,
    Watch,
    chat,
    complete,
)

STARTS = (LLMChatStartEvent, LLMCompletionStartEvent)
ENDS = (LLMChatEndEvent, LLMCompletionEndEvent)


class Listener(BaseEventHandler):
    """Keeps the dispatcher's events."""

    heard: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **options: Any) -> None:
        """Keep one."""
        self.heard.append(event)

    def count(self, kinds: tuple[type, ...]) -> int:
        """How many events are of these kinds."""
        return sum(isinstance(event, kinds) for event in self.heard)


@contextmanager
def listening() -> Iterator[Listener]:
    """Listen to the root dispatcher."""
    listener, dispatcher = Listener(), get_dispatcher()
    dispatcher.add_event_handler(listener)
    try:
        yield listener
    finally:
        dispatcher.event_handlers.remove(listener)


class Events(Hooks):
    """What handlers are told about calls."""

    @pytest.fixture
    def observed(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any
    ) -> tuple[Any, LlamaDebugHandler, TokenCountingHandler]:
        """An LLM, and two handlers that watch it."""
        debug = LlamaDebugHandler(print_trace_on_end=False)
        counting = TokenCountingHandler(tokenizer=tokenizer.encode)
        manager = CallbackManager([debug, counting])
        llm = make_llm(model, tokenizer, max_tokens=TOKENS, callback_manager=manager)
        return llm, debug, counting

    @pytest.mark.parametrize("method", METHODS)
    def test_one_call_is_one_event(self, observed: Any, method: Method) -> None:
        llm, debug, _ = observed
        with listening() as listener:
            method(llm)
        assert len(debug.get_event_pairs(CBEventType.LLM)) == 1
        assert (listener.count(STARTS), listener.count(ENDS)) == (1, 1)
        kinds = STARTS[method not in CHATS], ENDS[method not in CHATS]
        assert all(listener.count((kind,)) == 1 for kind in kinds)

    @pytest.mark.parametrize("method", METHODS)
    def test_counted_tokens_are_the_model_s(
        self, observed: Any, model: Any, method: Method
    ) -> None:
        llm, _, counting = observed
        watch = Watch(model)
        method(llm)
        counted = counting.total_llm_token_count
        # The last token of an answer need not be computed.
        assert counted in (len(watch.ids), len(watch.ids) + 1)

    @pytest.mark.parametrize("method", [chat, complete])
    def test_handlers_see_the_answer(self, observed: Any, method: Method) -> None:
        llm, debug, _ = observed
        response = method(llm)[-1]
        payloads = [pair[1].payload for pair in debug.get_event_pairs(CBEventType.LLM)]
        answers = [payload.get(EventPayload.RESPONSE) for payload in payloads]
        assert response in [
            *answers,
            *(payload.get(EventPayload.COMPLETION) for payload in payloads),
        ]

    def test_the_payload_names_class_model_and_temperature(self, llm: Any) -> None:
        payload = llm.to_payload()
        assert payload["class_name"] == type(llm).class_name() != "base_component"
        assert payload["model"]
        assert isinstance(payload["temperature"], int | float)
        assert json.loads(json.dumps(payload))["model"] == payload["model"]

    def test_the_payload_loads_nothing(self, loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        import transformers

        def refuse(*args: object, **options: object) -> None:
            raise AssertionError("weights were loaded")

        monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
        loaded.to_payload()

    def test_no_event_shows_a_secret(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any
    ) -> None:
        if not self.secrets:
            pytest.skip("there are no secrets")
        debug = LlamaDebugHandler(print_trace_on_end=False)
        llm = make_llm(
            model,
            tokenizer,
            max_tokens=TOKENS,
            callback_manager=CallbackManager([debug]),
            **self.secrets,
        )
        with listening() as listener:
            chat(llm)
        seen = [
            llm,
            llm.to_payload(),
            llm.to_dict(),
            listener.heard,
            debug.get_llm_inputs_outputs(),
        ]
        shown = "".join(map(repr, seen))
        shown += "".join(event.model_dump_json() for event in listener.heard)
        assert all(str(secret) not in shown for secret in self.secrets.values())
