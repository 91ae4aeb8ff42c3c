"""Errors that query engines show.

LlamaIndex's synthesizers take ValueErrors and TypeErrors of a prediction for answers that they
could not read, write them to the log, and answer "Empty Response" (llama-index-core 0.14,
response_synthesizers/refine.py). The core's errors are such errors: a document that does not fit
the window would be lost that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from typing import Any

from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import TokenAsyncGen, TokenGen

from ttt_core.errors import TTTError


class PredictionError(TTTError, RuntimeError):
    """What went wrong in a prediction; its `__cause__` is the error itself."""


@contextmanager
def shown() -> Iterator[None]:
    """Raise the core's errors as ones that LlamaIndex does not take for answers."""
    try:
        yield
    except TTTError as error:
        if not isinstance(error, ValueError | TypeError):
            raise
        raise PredictionError(str(error)) from error


class ShowsErrors(LLM):
    """An LLM whose `predict` family raises `PredictionError`; to inherit before LlamaIndex's."""

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a prompt.

        Raises:
            PredictionError: Anything of the core's; see its `__cause__`.
        """
        with shown():
            return super().predict(prompt, **prompt_args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer beside the event loop; see `predict`."""
        with shown():
            return await super().apredict(prompt, **prompt_args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Answer piece by piece; see `predict`. Closing the generator stops the work."""

        def tokens() -> TokenGen:
            with shown(), closing(started):
                yield from started

        with shown():
            started: TokenGen = super().stream(prompt, **prompt_args)
        return tokens()

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Answer piece by piece beside the event loop; see `predict`."""

        async def tokens() -> TokenAsyncGen:
            with shown():
                async with aclosing(started):
                    async for token in started:
                        yield token

        with shown():
            started: TokenAsyncGen = await super().astream(prompt, **prompt_args)
        return tokens()
