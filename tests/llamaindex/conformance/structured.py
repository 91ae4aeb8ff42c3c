"""Structured output: the four `structured_predict` methods and the structured LLM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from pydantic import BaseModel

from tests.llamaindex.conformance.hooks import Capable, Hooks, turn
from tests.llamaindex.scripts import DESCRIBED, author, hello


class Song(BaseModel):
    """A song."""

    title: str
    year: int


class Album(BaseModel):
    """Songs that came out together."""

    name: str
    songs: list[Song]


class Mood(Enum):
    """How somebody feels."""

    good = "good"
    bad = "bad"


class Opinion(BaseModel):
    """What somebody thinks."""

    mood: Mood


class Remark(BaseModel):
    """Something that was said; there need be nothing."""

    text: str = ""


SCHEMAS: list[type[BaseModel]] = [Song, Album, Opinion, Remark]
PROMPT = PromptTemplate("Describe a {what}.")

Predict = Callable[..., Sequence[Any]]


def structured(llm: Any, schema: type[BaseModel], prompt: Any, **words: Any) -> Sequence[Any]:
    """`structured_predict`."""
    return [llm.structured_predict(schema, prompt, **words)]


def astructured(llm: Any, schema: type[BaseModel], prompt: Any, **words: Any) -> Sequence[Any]:
    """`astructured_predict`."""
    return [asyncio.run(llm.astructured_predict(schema, prompt, **words))]


def stream(llm: Any, schema: type[BaseModel], prompt: Any, **words: Any) -> Sequence[Any]:
    """`stream_structured_predict`."""
    return list(llm.stream_structured_predict(schema, prompt, **words))


def astream(llm: Any, schema: type[BaseModel], prompt: Any, **words: Any) -> Sequence[Any]:
    """`astream_structured_predict`."""

    async def collect() -> Sequence[Any]:
        partials = await llm.astream_structured_predict(schema, prompt, **words)
        return [partial async for partial in partials]

    return asyncio.run(collect())


FAMILY = [structured, astructured, stream, astream]
STREAMS = [stream, astream]


class StructuredOutput(Hooks):
    """Objects instead of text."""

    @pytest.mark.parametrize("method", FAMILY)
    @pytest.mark.parametrize("schema", SCHEMAS)
    def test_the_object_is_what_the_model_wrote(
        self, capable: Capable, schema: type[BaseModel], method: Predict
    ) -> None:
        llm, _ = capable(author)
        last = method(llm, schema, PROMPT, what=schema.__name__)[-1]
        assert isinstance(last, schema)
        assert json.loads(last.model_dump_json()) == DESCRIBED[schema.__name__]

    @pytest.mark.parametrize("method", STREAMS)
    def test_streams_give_partial_objects_that_grow(
        self, capable: Capable, method: Predict
    ) -> None:
        llm, _ = capable(author)
        partials = [p.model_dump() for p in method(llm, Album, PROMPT, what="Album")]
        assert any(p.get("name") == "Trees" and not p.get("songs") for p in partials)
        songs = [len(p.get("songs") or []) for p in partials]
        assert songs == sorted(songs)
        assert {1, 2} <= set(songs)

    @pytest.mark.parametrize("method", FAMILY)
    def test_the_system_prompt_comes_along(self, capable: Capable, method: Predict) -> None:
        llm, model = capable(author, system_prompt="Be brief.")
        method(llm, Song, PROMPT, what="Song")
        assert all("Be brief." in prompt for prompt in model.prompts)
        assert model.prompts

    @pytest.mark.parametrize("method", [structured, astructured])
    def test_a_model_that_writes_no_object_cannot_make_one_that_does_not_fit(
        self, capable: Capable, method: Predict
    ) -> None:
        """Either the object is enforced, or the failure is an error: nothing wrong is returned."""
        llm, _ = capable(hello)
        try:
            found = method(llm, Opinion, PROMPT, what="Opinion")[-1]
        except (ValueError, TypeError):
            return
        assert isinstance(found, Opinion)

    def test_an_enforced_schema_needs_no_model_that_knows_it(self, capable: Capable) -> None:
        llm, _ = capable(hello)
        assert isinstance(llm.structured_predict(Opinion, PROMPT, what="Opinion"), Opinion)

    def test_options_of_the_call_come_along(self, capable: Capable) -> None:
        llm, _ = capable(author)
        options = {"llm_kwargs": {"temperature": 0.0}}
        song = llm.structured_predict(Song, PROMPT, what="Song", **options)
        assert song.title == DESCRIBED["Song"]["title"]

    def test_a_structured_llm_chats_and_completes(self, capable: Capable) -> None:
        llm, _ = capable(author)
        songs = llm.as_structured_llm(Song)
        expected = Song(**DESCRIBED["Song"])
        assert songs.chat(turn("Describe a Song.")).raw == expected
        assert songs.complete("Describe a Song.").raw == expected
        assert asyncio.run(songs.achat(turn("Describe a Song."))).raw == expected
        assert asyncio.run(songs.acomplete("Describe a Song.")).raw == expected

    def test_a_structured_llm_streams(self, capable: Capable) -> None:
        llm, _ = capable(author)
        songs = llm.as_structured_llm(Song)

        async def collect() -> list[Any]:
            return [r async for r in await songs.astream_chat(turn("Describe a Song."))]

        for responses in (
            list(songs.stream_chat(turn("Describe a Song."))),
            asyncio.run(collect()),
        ):
            assert responses[-1].raw.model_dump() == DESCRIBED["Song"]
            assert len(responses) > 2
