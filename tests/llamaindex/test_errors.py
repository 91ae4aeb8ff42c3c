"""Query engines show what went wrong; LlamaIndex's own synthesizers would answer in its place."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, Literal

import pytest
from llama_index.core import Document, PromptTemplate, SummaryIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, ValidationError, field_validator

from llamaindex_ttt import TTTLLM, PredictionError
from ttt_core import ConfigError, DocumentTooLongError, PromptTooLongError, TTTEngine

TOO_LONG = "the owl lives here. " * 60
PROMPT = PromptTemplate("{context_str}{query_str}")


class Owl(BaseModel):
    tree: int


def hoot() -> str:
    """Hoot."""
    return "hoot"


HOOT = FunctionTool.from_defaults(hoot)


@pytest.fixture
def llm(model: Any, tokenizer: Any, tmp_path: Any) -> TTTLLM:
    engine = TTTEngine(model, tokenizer, store=tmp_path)
    return TTTLLM(engine=engine, max_tokens=32, context_window=4096)  # Which is not so.


async def _astream(llm: TTTLLM) -> list[str]:
    return [token async for token in await llm.astream(PROMPT, query_str=TOO_LONG)]


async def _astructured(llm: TTTLLM) -> list[Any]:
    stream = await llm.astream_structured_predict(Owl, PROMPT, query_str=TOO_LONG)
    return [one async for one in stream]


FAMILY: dict[str, Callable[[TTTLLM], Any]] = {
    "predict": lambda llm: llm.predict(PROMPT, query_str=TOO_LONG),
    "apredict": lambda llm: asyncio.run(llm.apredict(PROMPT, query_str=TOO_LONG)),
    "stream": lambda llm: list(llm.stream(PROMPT, query_str=TOO_LONG)),
    "astream": lambda llm: asyncio.run(_astream(llm)),
    "structured_predict": lambda llm: llm.structured_predict(Owl, PROMPT, query_str=TOO_LONG),
    "astructured_predict": lambda llm: asyncio.run(
        llm.astructured_predict(Owl, PROMPT, query_str=TOO_LONG)
    ),
    "stream_structured_predict": lambda llm: list(
        llm.stream_structured_predict(Owl, PROMPT, query_str=TOO_LONG)
    ),
    "astream_structured_predict": lambda llm: asyncio.run(_astructured(llm)),
    "predict_and_call": lambda llm: llm.predict_and_call([HOOT], user_msg=TOO_LONG),
    "apredict_and_call": lambda llm: asyncio.run(llm.apredict_and_call([HOOT], user_msg=TOO_LONG)),
    "structured_llm": lambda llm: llm.as_structured_llm(Owl).predict(PROMPT, query_str=TOO_LONG),
}


@pytest.mark.parametrize("method", FAMILY)
def test_predictions_raise_what_synthesizers_show(llm: TTTLLM, method: str) -> None:
    with pytest.raises(PredictionError, match="window is 512") as caught:
        FAMILY[method](llm)
    assert not isinstance(caught.value, ValueError | TypeError)
    assert isinstance(caught.value.__cause__, PromptTooLongError)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("structured", [False, True])
def test_query_engines_do_not_answer_empty_response(
    llm: TTTLLM, streaming: bool, structured: bool
) -> None:
    options: dict[str, Any] = {"output_cls": Owl} if structured and not streaming else {}
    index = SummaryIndex.from_documents([Document(text=TOO_LONG)])
    engine = index.as_query_engine(llm=llm, streaming=streaming, **options)
    with pytest.raises(PredictionError, match="window is 512"):
        str(engine.query("Where?"))


class Refused(BaseModel):
    tree: Literal[1]

    @field_validator("tree")
    @classmethod
    def check(cls, value: int) -> int:
        raise ValueError("no such tree")


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("structured_llm", [False, True])
def test_what_a_validator_refuses_is_no_empty_response(
    llm: TTTLLM, structured_llm: bool, use_async: bool
) -> None:
    options: dict[str, Any] = {"llm": llm, "output_cls": Refused, "text_qa_template": PROMPT}
    if structured_llm:
        options.update(llm=llm.as_structured_llm(Refused), output_cls=None)
    index = SummaryIndex.from_documents([Document(text="the owl lives here")])
    engine = index.as_query_engine(**options)
    with pytest.raises(PredictionError, match="no such tree") as caught:
        asyncio.run(engine.aquery("Where?")) if use_async else engine.query("Where?")
    assert isinstance(caught.value.__cause__, ValidationError)


@pytest.mark.parametrize("method", [name for name in FAMILY if "structured_predict" in name])
def test_programs_that_the_user_chose_show_errors_too(llm: TTTLLM, method: str) -> None:
    llm.pydantic_program_mode = PydanticProgramMode.FUNCTION
    with pytest.raises(PredictionError, match="window is 512"):
        FAMILY[method](llm)


def test_a_document_that_is_too_long_is_named_as_that(llm: TTTLLM) -> None:
    with pytest.raises(PredictionError) as caught:
        llm.for_documents(TOO_LONG).predict(PROMPT, query_str="Where?")
    assert isinstance(caught.value.__cause__, DocumentTooLongError)
    assert "owl" not in str(caught.value)


def test_calls_raise_the_cores_errors(llm: TTTLLM) -> None:
    with pytest.raises(PromptTooLongError):
        llm.chat([ChatMessage(content=TOO_LONG)])
    with pytest.raises(ConfigError):
        llm.complete("Where?", temprature=1)


def test_errors_are_pickled_with_what_others_put_on_them(llm: TTTLLM) -> None:
    with pytest.raises(PromptTooLongError) as caught:
        llm.chat([ChatMessage(content=TOO_LONG)])
    caught.value.event_added = True  # type: ignore[attr-defined]  # As LlamaIndex's spans do.
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.window) == (str(caught.value), 512)
