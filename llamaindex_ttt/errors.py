"""Errors that query engines show.

LlamaIndex's synthesizers take ValueErrors and TypeErrors of a prediction for answers that they
could not read, write them to the log, and answer "Empty Response" (llama-index-core 0.14,
response_synthesizers/refine.py). The core's errors are such errors, and so is what Pydantic says of
an object that its class refused: a document that does not fit the window would be lost that way.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager
from typing import Any, TypeVar

from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen
from pydantic import ValidationError

from ttt_core.errors import TTTError
from ttt_core.integration import run_in_thread

T = TypeVar("T")


class PredictionError(TTTError, RuntimeError):
    """What went wrong in a prediction; its `__cause__` is the error itself."""


@contextmanager
def shown() -> Iterator[None]:
    """Raise the core's errors, and Pydantic's, as one that LlamaIndex takes for no answer."""
    try:
        yield
    except (TTTError, ValidationError) as error:
        if not isinstance(error, ValueError | TypeError):
            raise
        raise PredictionError(str(error)) from error


async def shown_stream(stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Pass a stream on whose errors are `shown`; closing stops the work."""
    with shown():
        async with aclosing(stream):
            async for item in stream:
                yield item


# Without their spans: LlamaIndex opens one for whatever overrides a method that has one.
_predict: Callable[..., str] = inspect.unwrap(LLM.predict)
_apredict: Callable[..., Awaitable[str]] = inspect.unwrap(LLM.apredict)
_stream: Callable[..., TokenGen] = inspect.unwrap(LLM.stream)
_astream: Callable[..., Awaitable[TokenAsyncGen]] = inspect.unwrap(LLM.astream)


class ShowsErrors(LLM):
    """An LLM whose `predict` family raises `PredictionError`; to inherit before LlamaIndex's.

    Beside an event loop it also finds out in a thread what the model's window is: that may load it.
    """

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a prompt.

        Raises:
            PredictionError: What is a ValueError or a TypeError of the core's elsewhere, or a
                ValidationError.
        """
        with shown():
            return _predict(self, prompt, **prompt_args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer beside the event loop; see `predict`."""
        with shown():
            await run_in_thread(lambda _: self.metadata)
            return await _apredict(self, prompt, **prompt_args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Answer piece by piece; see `predict`. Closing the generator stops the work."""

        def tokens() -> TokenGen:
            with shown(), closing(started):
                yield from started

        with shown():
            started = _stream(self, prompt, **prompt_args)
        return tokens()

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Answer piece by piece beside the event loop; see `predict`."""

        with shown():
            await run_in_thread(lambda _: self.metadata)
            return shown_stream(await _astream(self, prompt, **prompt_args))

    def predict_and_call(self, *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Let the model choose tools, and call them; see `predict`."""
        with shown():
            return super().predict_and_call(*args, **kwargs)

    async def apredict_and_call(self, *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Do so beside the event loop; see `predict`."""
        with shown():
            return await super().apredict_and_call(*args, **kwargs)
