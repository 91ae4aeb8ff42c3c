"""A reply says what was read, and work beside an event loop knows whose it is."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from tests.scripted import ScriptedModel, scripted_tokenizer
from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.document import Document
from ttt_core.integration.reply import Reply, in_thread, run_in_thread
from ttt_core.integration.resolver import Resolved
from ttt_core.progress import ProgressCallback

BOOK = Document.of("\n".join(f"the owl number {n} lives in tree {n * 7 % 10}" for n in range(5)))
QUESTION = {"role": "user", "content": "Where do owls live?"}
QUICK = AdaptationConfig(
    steps=1, gate=False, early_stopping=False, held_out=2, clozes_per_step=2, max_drift=1e9
)


@pytest.fixture
def engine(tmp_path: Any) -> Iterator[TTTEngine]:
    tokenizer = scripted_tokenizer()
    model = ScriptedModel(lambda prompt: "In a tree.", tokenizer)
    with TTTEngine(model, tokenizer, adaptation=QUICK, store=tmp_path / "store") as engine:
        yield engine


def reply(engine: TTTEngine, *documents: Document, adapt: bool = True) -> Reply:
    resolved = Resolved(documents, (QUESTION,), adapt=adapt)
    return Reply(engine, [QUESTION], resolved=resolved, options={})


@pytest.mark.parametrize("adapt", [True, False])
def test_what_was_read_is_known_with_the_first_piece(engine: TTTEngine, adapt: bool) -> None:
    made = reply(engine, BOOK, adapt=adapt)
    assert made.adapted is None
    pieces = made.pieces()
    next(pieces)
    assert made.adapted is not None
    assert made.adapted.id == made.details()["document_id"]
    assert made.read_tokens == made.adapted.n_tokens > 0
    pieces.close()


def test_who_reads_nothing_has_nothing(engine: TTTEngine) -> None:
    made = reply(engine)
    assert "".join(made.deltas()) == "In a tree."
    assert (made.adapted, made.read_tokens) == (None, 0)
    assert made.details()["dropped_messages"] == 0


def test_details_are_json_without_texts(engine: TTTEngine) -> None:
    made = reply(engine, BOOK)
    list(made.pieces())
    assert "owl" not in json.dumps(made.details())
    assert made.details()["dropped_messages"] == 0


# Beside an event loop


caller: ContextVar[str] = ContextVar("caller", default="nobody")


def tell(check: ProgressCallback) -> Generator[str, None, None]:
    for number in range(3):
        yield f"{caller.get()} {number}"
        caller.set(f"{caller.get()}'s work")


async def told(name: str) -> list[str]:
    caller.set(name)
    said = [item async for item in in_thread(tell)]
    assert caller.get() == name
    return said


async def test_work_finds_what_its_caller_set() -> None:
    """And from step to step what it set itself, which its caller does not see."""
    assert await told("a") == ["a 0", "a's work 1", "a's work's work 2"]
    assert await run_in_thread(lambda check: caller.get()) == "a"


async def test_work_of_several_callers_is_told_apart() -> None:
    names = [f"caller {number}" for number in range(8)]
    said = await asyncio.gather(*(told(name) for name in names))
    assert [one[0] for one in said] == [f"{name} 0" for name in names]
    assert caller.get() == "nobody"


async def test_work_runs_in_another_thread() -> None:
    threads = [await run_in_thread(lambda check: threading.get_ident()) for _ in range(2)]
    assert threading.get_ident() not in threads


async def test_closing_stops_the_work_behind_the_step_in_progress() -> None:
    ended = threading.Event()

    def work(check: ProgressCallback) -> Generator[int, None, None]:
        try:
            yield from range(100)
        finally:
            ended.set()

    async with aclosing(in_thread(work)) as items:
        assert await anext(items) == 0
    assert await asyncio.to_thread(ended.wait, 30)


async def test_work_that_nobody_waits_for_is_cleaned_up_in_the_callers_context() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="before")
    closed = threading.Event()

    def work(progress: ProgressCallback) -> Generator[int, None, None]:
        token = variable.set("during")
        try:
            yield 1
            yield 2
        finally:
            variable.reset(token)  # Refused in any other context than that of `set`.
            closed.set()

    steps = in_thread(work)
    assert await anext(steps) == 1
    await steps.aclose()
    assert await asyncio.to_thread(closed.wait, 60)
