"""Retrieval inside the document: its passages that BM25 ranks highest for the question.

`bm25` repeats them between the document and the question ("within-context RAG", a baseline of
EASE-TTT, arXiv 2606.06906); `bm25-only` reads nothing else. Passages and ranking are those of the
supervision `retrieved`, so that arms differ in what they do with the same evidence.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from ttt_core.config import Settings
from ttt_core.evaluation.arms.base import ArmResult, Reply, questions, reply
from ttt_core.evaluation.arms.options import settings_of, spec_of
from ttt_core.flops import prefill_flops
from ttt_core.supervision.retrieved import bm25_scores

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example


class Bm25Options(Settings):
    """How much is retrieved."""

    top: int = Field(default=4, ge=1)
    """Passages; as in EASE-TTT."""


class Bm25:
    """The document is read, and its best passages are repeated in front of each question."""

    description = "in-context, with the passages that BM25 finds repeated before the question"
    options_kind = Bm25Options

    def __init__(self, options: Bm25Options) -> None:
        self._top = options.top
        self.name = spec_of("bm25", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        document = bench.read(example)
        started = time.perf_counter()
        found = retrieve(bench, example, top=self._top)
        prompts = [
            "\n\n".join([*passages, asked])
            for passages, asked in zip(found, questions(example), strict=True)
        ]
        answers = bench.ask(document, prompts, bench.rooms(example))
        replies = [reply(bench, document, answer) for answer in answers]
        return ArmResult(
            n_tokens=document.n_tokens,
            replies=tuple(map(_counted, replies, found)),
            document_flops={"read": bench.read_flops(example)},
            document_seconds={"read": bench.read_seconds(example)},
            seconds=time.perf_counter() - started,
        )


class Bm25Only:
    """Only the best passages are read, for each question; the document need not fit the window."""

    description = "only the passages that BM25 finds are read, not the document"
    options_kind = Bm25Options

    def __init__(self, options: Bm25Options) -> None:
        self._top = options.top
        self.name = spec_of("bm25-only", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        started = time.perf_counter()
        found = retrieve(bench, example, top=self._top)
        seconds = time.perf_counter() - started  # Of ranking; each reply has its own.
        replies = [
            _counted(_answer(bench, passages, asked, room), passages)
            for passages, asked, room in zip(
                found, questions(example), bench.rooms(example), strict=True
            )
        ]
        return ArmResult(
            n_tokens=bench.engine.count_tokens(example.document),
            replies=tuple(replies),
            seconds=seconds,
        )


def retrieve(bench: Bench, example: Example, *, top: int) -> list[list[str]]:
    """Return, for each question, the passages that fit it best, in the document's order.

    A question that shares no word with the document gets none.

    Raises:
        ConfigError: bm25s is not installed.
    """
    chunks = bench.chunks(example)
    found = []
    for asked in questions(example):
        scores = bm25_scores(asked, chunks)
        best = sorted(range(len(chunks)), key=lambda index: -scores[index])[:top]
        found.append([chunks[index] for index in sorted(best) if scores[index] > 0])
    return found


def _answer(bench: Bench, passages: list[str], asked: str, room: int) -> Reply:
    started = time.perf_counter()
    if not passages:
        [answer] = bench.ask(None, [asked], [room])
        one = reply(bench, None, answer)
    else:
        with bench.engine.read("\n\n".join(passages)) as document:
            [answer] = bench.ask(document, [asked], [room])
            read = prefill_flops(bench.architecture, document.n_tokens)
            one = reply(bench, document, answer)
            one = replace(one, flops=one.flops + read, tokens=one.tokens + document.n_tokens)
    return replace(one, seconds=time.perf_counter() - started)


def _counted(one: Reply, passages: list[str]) -> Reply:
    return replace(one, details={**one.details, "passages": len(passages)})
