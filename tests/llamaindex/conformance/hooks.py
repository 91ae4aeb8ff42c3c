"""What a class under test must tell the suite, and the fixtures that follow from it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from llama_index.core import Settings
from llama_index.core.llms import LLM, ChatMessage
from llama_index.core.llms.function_calling import FunctionCallingLLM
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.conftest import build_model
from tests.scripted import CHATML_TOOLS, Script, ScriptedModel, scripted_tokenizer

TOKENS = 8
"""The most that random weights may say."""

ENOUGH = 400
"""The most that scripted weights may say: more than any script does."""

WINDOW = 4096
QUESTION = "Where?"

_OPENING = "{{ '<|im_start|>assistant\n' }}"
_SWITCH = "{% if not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
THINKING_TEMPLATE = CHATML_TOOLS.replace(_OPENING, _OPENING + _SWITCH)
"""A template with a switch for thinking, in the manner of Qwen3."""

forgetful_memory = pytest.mark.filterwarnings("ignore:.*before being closed:ResourceWarning")
"""LlamaIndex's memory leaves its database to the garbage collector."""

Capable = Callable[..., tuple[Any, ScriptedModel]]
"""From a script and options to an LLM and the model that it runs."""


class Hooks:
    """To be derived from for a class under test; `build` and `load` must be overridden.

    An LLM is a chat model, where its class leaves the choice.
    """

    thinking: ClassVar[Mapping[str, Any] | None] = None
    """Constructor options with which a reasoning model thinks; None: not claimed."""

    secrets: ClassVar[Mapping[str, Any]] = {}
    """Constructor options whose values nobody may see in traces; empty: there are none."""

    def build(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        folder: Path,
        **options: Any,
    ) -> LLM:
        """Make an LLM of ready weights.

        Args:
            model: In memory.
            tokenizer: In memory; it has a chat template.
            folder: Empty, for what the class may want to write.
            options: Fields that every LLM has, `max_tokens` (the most to answer), and those that
                the other hooks name.
        """
        raise NotImplementedError

    def load(self, folder: Path, **options: Any) -> LLM:
        """Make an LLM of a folder that transformers can load; options as for `build`."""
        raise NotImplementedError

    def dispose(self, llm: LLM) -> None:
        """Release what an LLM holds; called at the end of a test."""

    @pytest.fixture
    def make_llm(self, tmp_path: Path) -> Iterator[Callable[..., Any]]:
        """A function from model, tokenizer and options to an LLM."""
        made: list[LLM] = []

        def make(model: Any, tokenizer: Any, **options: Any) -> LLM:
            folder = tmp_path / f"llm{len(made)}"
            folder.mkdir()
            made.append(self.build(model, tokenizer, folder, **options))
            return made[-1]

        yield make
        for llm in made:
            self.dispose(llm)

    @pytest.fixture
    def tokenizer(self) -> Any:
        """Almost a token a character; its template knows tools."""
        return scripted_tokenizer(tools=True)

    @pytest.fixture
    def model(self) -> Any:
        """Random weights: what they say differs with all they are told."""
        return build_model("qwen3", max_position_embeddings=WINDOW)

    @pytest.fixture
    def llm(self, make_llm: Callable[..., Any], model: Any, tokenizer: Any) -> Any:
        """An LLM of random weights."""
        return make_llm(model, tokenizer, max_tokens=TOKENS)

    @pytest.fixture
    def capable(self, make_llm: Callable[..., Any], tokenizer: Any) -> Capable:
        """A function from a script (and options) to an LLM that says it, and its model."""

        def make(script: Script, **options: Any) -> tuple[Any, ScriptedModel]:
            model = ScriptedModel(script, tokenizer)
            return make_llm(model, tokenizer, **{"max_tokens": ENOUGH, **options}), model

        return make

    @pytest.fixture
    def saved(self, tmp_path: Path, tokenizer: Any) -> Path:
        """A folder with weights of about ten megabytes."""
        folder = tmp_path / "saved"
        big = build_model("qwen3", max_position_embeddings=WINDOW, intermediate_size=8192)
        big.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    @pytest.fixture
    def loaded(self, saved: Path) -> Iterator[Any]:
        """An LLM of a folder."""
        llm = self.load(saved, max_tokens=TOKENS)
        yield llm
        self.dispose(llm)

    @pytest.fixture(autouse=True)
    def _own_settings(self) -> Iterator[None]:
        """No test changes LlamaIndex's global settings for the others."""
        before = dict(vars(Settings))
        yield
        vars(Settings).update(before)
        gc.collect()  # See `forgetful_memory`.


def turn(text: str = QUESTION) -> list[ChatMessage]:
    """A conversation of one turn."""
    return [ChatMessage(role="user", content=text)]


def needs_tools(llm: LLM) -> None:
    """Skip where a class does not claim to call tools."""
    if not (isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model):
        pytest.skip("not claimed: tools")


# The eight methods. Each is asked a question, with options, and gives all its responses.


def chat(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`chat`."""
    return [llm.chat(turn(text), **options)]


def complete(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`complete`."""
    return [llm.complete(text, **options)]


def stream_chat(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`stream_chat`."""
    return list(llm.stream_chat(turn(text), **options))


def stream_complete(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`stream_complete`."""
    return list(llm.stream_complete(text, **options))


def achat(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`achat`."""
    return [asyncio.run(llm.achat(turn(text), **options))]


def acomplete(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`acomplete`."""
    return [asyncio.run(llm.acomplete(text, **options))]


def astream_chat(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`astream_chat`."""

    async def collect() -> Sequence[Any]:
        return [response async for response in await llm.astream_chat(turn(text), **options)]

    return asyncio.run(collect())


def astream_complete(llm: LLM, text: str = QUESTION, **options: Any) -> Sequence[Any]:
    """`astream_complete`."""

    async def collect() -> Sequence[Any]:
        return [response async for response in await llm.astream_complete(text, **options)]

    return asyncio.run(collect())


CHATS = [chat, achat, stream_chat, astream_chat]
COMPLETIONS = [complete, acomplete, stream_complete, astream_complete]
STREAMS = [stream_chat, astream_chat, stream_complete, astream_complete]
METHODS = [*CHATS, *COMPLETIONS]
Method = Callable[..., Sequence[Any]]


def text_of(response: Any) -> str:
    """The text of a chat's or a completion's response."""
    text = response.message.content if hasattr(response, "message") else response.text
    assert isinstance(text, str)
    return text


class Watch:
    """Watches what a torch model is given, pass by pass.

    Attributes:
        passes: The token ids of every forward pass of the decoder so far.
        fails_at: Number of the pass, from 1, at which the model breaks; None: never.
    """

    def __init__(self, model: PreTrainedModel, *, fails_at: int | None = None) -> None:
        self.passes: list[list[int]] = []
        self.fails_at = fails_at
        model.base_model.register_forward_pre_hook(self._see, with_kwargs=True)

    @property
    def ids(self) -> list[int]:
        """All token ids, in order."""
        return [token for ids in self.passes for token in ids]

    def _see(self, module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = options["input_ids"] if "input_ids" in options else args[0]
        self.passes.append(ids.flatten().tolist())
        if len(self.passes) == self.fails_at:
            raise RuntimeError("the device broke")
