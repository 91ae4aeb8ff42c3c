"""The eight methods: what they answer, how they stream, what of a call reaches the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import TextBlock, ThinkingBlock
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms import ChatMessage
from tokenizers.processors import TemplateProcessing

from tests.conftest import build_model
from tests.llamaindex.conformance.hooks import (
    CHATS,
    COMPLETIONS,
    ENOUGH,
    METHODS,
    QUESTION,
    STREAMS,
    THINKING_TEMPLATE,
    TOKENS,
    WINDOW,
    Capable,
    Hooks,
    Method,
    Watch,
    chat,
    text_of,
    turn,
)
from tests.llamaindex.scripts import THOUGHT, reader, thinker
from tests.scripted import CHATML_TOOLS, ScriptedModel, scripted_tokenizer

SURE = "What cannot be, the prompt must say."
LONGEST_TOKEN = 4
"""Characters, of the suite's tokenizer."""

STORY = [
    ChatMessage(role="system", content=SURE),
    ChatMessage(role="user", content="amber falcon: Oslo"),
    ChatMessage(role="assistant", content="I see."),
    ChatMessage(role="user", content="Where is amber falcon?"),
]


class Calls(Hooks):
    """`chat`, `complete`, their streams, and the async twins of these."""

    @pytest.mark.parametrize("method", METHODS)
    def test_there_is_an_answer_no_longer_than_allowed(self, llm: Any, method: Method) -> None:
        assert 0 < len(text_of(method(llm)[-1])) <= TOKENS * LONGEST_TOKEN

    @pytest.mark.parametrize("method", METHODS)
    def test_greedy_answers_repeat(self, llm: Any, method: Method) -> None:
        assert text_of(method(llm)[-1]) == text_of(method(llm)[-1])

    @pytest.mark.parametrize("methods", [CHATS, COMPLETIONS], ids=["chat", "complete"])
    def test_sync_async_and_streams_say_the_same(self, llm: Any, methods: list[Method]) -> None:
        texts = {method.__name__: text_of(method(llm)[-1]) for method in methods}
        assert len(set(texts.values())) == 1, texts

    @pytest.mark.parametrize("method", STREAMS)
    def test_streams_give_what_is_new_and_all_there_is(
        self, capable: Capable, method: Method
    ) -> None:
        llm, _ = capable(lambda prompt: "It is in Oslo, by the sea.", max_tokens=20)
        responses = method(llm)
        assert len(responses) > 5
        so_far = ""
        for response in responses:
            assert isinstance(response.delta, str)
            so_far += response.delta
            assert text_of(response) == so_far

    @pytest.mark.parametrize("method", CHATS)
    def test_an_answer_is_one_block_of_text(self, llm: Any, method: Method) -> None:
        for response in method(llm):
            kinds = [type(block) for block in response.message.blocks]
            assert kinds.count(TextBlock) == 1
            assert response.message.role == "assistant"

    @pytest.mark.parametrize("method", CHATS)
    def test_the_conversation_reaches_the_model_in_its_chat_format(
        self, capable: Capable, method: Method, tokenizer: Any
    ) -> None:
        llm, model = capable(reader)
        story = [{"role": m.role.value, "content": m.content} for m in STORY]
        prompt = tokenizer.apply_chat_template(story, tokenize=False, add_generation_prompt=True)
        assert llm.chat(STORY).message.content == "It is in Oslo."
        assert model.prompts == [prompt]
        assert text_of(method(llm)[-1]) == "Hello."
        assert model.prompts[-1].count(QUESTION) == 1

    @pytest.mark.parametrize("role", ["system", "developer", "chatbot", "model"])
    def test_every_role_finds_a_place_in_the_template(self, capable: Capable, role: str) -> None:
        llm, model = capable(reader)
        answered = llm.chat([ChatMessage(role=role, content="quiet harbour: Lima"), *STORY[1:]])
        assert answered.message.content == "It is in Oslo."
        spoken = {"developer": "system", "chatbot": "assistant", "model": "assistant"}
        assert f"<|im_start|>{spoken.get(role, role)}\nquiet harbour" in model.prompts[-1]

    def test_blocks_of_text_all_reach_the_model(self, capable: Capable) -> None:
        llm, _ = capable(reader)
        blocks = [TextBlock(text="amber falcon: Oslo"), TextBlock(text="Where is amber falcon?")]
        answer = llm.chat([ChatMessage(role="user", blocks=blocks)])
        assert answer.message.content == "It is in Oslo."

    def test_the_prompt_may_come_by_position_or_by_name(self, llm: Any) -> None:
        assert llm.complete(prompt=QUESTION).text == llm.complete(QUESTION).text
        assert [*llm.stream_complete(prompt=QUESTION)][-1].text == llm.complete(QUESTION).text

    @pytest.mark.parametrize("name", ["complete", "stream_complete"])
    def test_a_missing_prompt_is_an_error_of_the_caller(self, llm: Any, name: str) -> None:
        with pytest.raises(ValueError, match="No prompt provided"):
            getattr(llm, name)()
        with pytest.raises(TypeError):
            getattr(llm, name)(QUESTION, prompt=QUESTION)

    @pytest.mark.parametrize("method", COMPLETIONS)
    def test_completion_to_prompt_is_applied(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any, method: Method
    ) -> None:
        watch = Watch(model)
        options = {"completion_to_prompt": lambda text: f"Think first. {text}"}
        method(make_llm(model, tokenizer, max_tokens=TOKENS, **options))
        assert f"Think first. {QUESTION}" in tokenizer.decode(watch.ids)

    def test_completion_to_prompt_leaves_formatted_prompts_alone(
        self, make_llm: Callable[..., Any], model: Any, tokenizer: Any
    ) -> None:
        watch = Watch(model)
        options = {"completion_to_prompt": lambda text: f"Think first. {text}"}
        llm = make_llm(model, tokenizer, max_tokens=TOKENS, **options)
        llm.complete(QUESTION, formatted=True)
        list(llm.stream_complete(QUESTION, formatted=True))
        text = tokenizer.decode(watch.ids)
        assert QUESTION in text
        assert "Think first." not in text

    @pytest.mark.parametrize("method", METHODS)
    def test_a_call_s_temperature_and_seed_reach_the_sampler(
        self, llm: Any, method: Method
    ) -> None:
        first = text_of(method(llm, temperature=5.0, seed=1)[-1])
        assert first == text_of(method(llm, temperature=5.0, seed=1)[-1])
        others = {text_of(method(llm, temperature=5.0, seed=seed)[-1]) for seed in (2, 3)}
        assert others - {first, text_of(method(llm)[-1])}

    @pytest.mark.parametrize("method", METHODS)
    def test_a_call_s_max_tokens_bounds_the_answer(self, llm: Any, method: Method) -> None:
        whole, part = text_of(method(llm)[-1]), text_of(method(llm, max_tokens=2)[-1])
        assert 0 < len(part) <= 2 * LONGEST_TOKEN
        assert len(part) < len(whole)
        # Half a character at the end is a sign of its own.
        assert whole.startswith(part.rstrip("\ufffd"))

    @pytest.mark.parametrize("method", CHATS)
    def test_a_call_s_stop_ends_the_answer(self, capable: Capable, method: Method) -> None:
        llm, _ = capable(lambda prompt: "It is in Oslo, by the sea.")
        responses = method(llm, stop=[", by"])
        assert text_of(responses[-1]) == "It is in Oslo"
        assert all("Oslo," not in text_of(response) for response in responses)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_prompt_that_does_not_fit_is_an_error_that_says_so(
        self, make_llm: Callable[..., Any], tokenizer: Any, method: Method
    ) -> None:
        llm = make_llm(build_model("qwen3", max_position_embeddings=512), tokenizer, max_tokens=8)
        with pytest.raises(Exception, match=r"\d"):
            method(llm, text="the owl " * 128)

    def test_the_text_begins_once(self, make_llm: Callable[..., Any]) -> None:
        tokenizer = scripted_tokenizer("{{ bos_token }}" + CHATML_TOOLS)
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer._tokenizer.post_processor = TemplateProcessing(
            single=f"{bos[0]} $A", special_tokens=[bos]
        )
        model = build_model("qwen3", max_position_embeddings=WINDOW)
        llm = make_llm(model, tokenizer, max_tokens=1)
        watch = Watch(model)
        llm.chat(turn())
        assert watch.ids[0] == bos[1]
        assert watch.ids.count(bos[1]) == 1

    @pytest.mark.parametrize("method", METHODS)
    def test_the_response_is_plain_json(self, llm: Any, method: Method) -> None:
        for response in method(llm):
            assert json.loads(json.dumps(response.raw)) == response.raw
            assert json.loads(response.model_dump_json())

    @pytest.mark.parametrize("method", METHODS)
    def test_the_last_response_tells_the_tokens(
        self, llm: Any, model: Any, tokenizer: Any, method: Method
    ) -> None:
        watch = Watch(model)
        response = method(llm)[-1]
        usage = response.raw["usage"]
        assert 0 < usage["completion_tokens"] <= TOKENS
        # The last token of an answer need not be computed.
        told = len(watch.ids) - usage["completion_tokens"]
        assert usage["prompt_tokens"] in (told, told + 1)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_dumping_an_event_does_not_change_the_response(self, llm: Any) -> None:
        response = chat(llm)[-1]
        before = repr(response.raw)
        LLMChatEndEvent(messages=turn(), response=response).model_dump()
        assert repr(response.raw) == before

    @pytest.mark.parametrize("method", CHATS)
    def test_thought_is_told_apart_from_the_answer(
        self, make_llm: Callable[..., Any], method: Method
    ) -> None:
        if self.thinking is None:
            pytest.skip("not claimed: thinking")
        tokenizer = scripted_tokenizer(THINKING_TEMPLATE)
        model = ScriptedModel(thinker, tokenizer)
        llm = make_llm(model, tokenizer, max_tokens=ENOUGH, **self.thinking)
        responses = method(llm)
        message = responses[-1].message
        assert message.content == "Paris"
        thought = [b.content for b in message.blocks if isinstance(b, ThinkingBlock)]
        assert thought == [THOUGHT]
        if len(responses) > 1:
            deltas = [r.additional_kwargs.get("thinking_delta") or "" for r in responses]
            assert "".join(deltas).strip() == THOUGHT
            assert "".join(r.delta for r in responses) == "Paris"
