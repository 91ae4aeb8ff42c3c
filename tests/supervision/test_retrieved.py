# ruff: noqa: RUF001  (letters of many scripts)
"""Chunks cover the document; BM25 finds what is asked for; only that is trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, make_given
from ttt_core.packed import IGNORE
from ttt_core.supervision import Given, Passage, TokenizedDocument
from ttt_core.supervision.chunks import (
    LONGEST_CHUNK,
    OVERLAP,
    SHORTEST_CHUNK,
    cut_chunks,
)
from ttt_core.supervision.random_span import RandomSpanSupervision
from ttt_core.supervision.retrieved import TOP, RetrievedSupervision, bm25_scores, words_of

LINES = [f"Entry {n:02d}: the {ship} is in dock {n * 17 % 90}." for n, ship in enumerate(
    ["heron", "otter", "badger", "falcon", "lynx", "mole", "raven", "stoat"] * 8
)]  # fmt: skip
LINES[37] = "Entry 37: the wolverine sleeps in dock 5."


@st.composite
def documents(draw: st.DrawFn) -> TokenizedDocument:
    """Tokens that are all alike, with passages and gaps between them."""
    start = draw(st.integers(0, 5))
    steps = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 48)), max_size=400))
    passages, at = [], start
    for gap, length in steps:
        passages.append(Passage(at + gap, at + gap + length))
        at += gap + length
    end = at + draw(st.integers(0, 3000))
    return TokenizedDocument((7,) * end, start, end, tuple(passages), (96,))


@given(documents())
def test_chunks_cover_the_document_and_overlap_a_little(document: TokenizedDocument) -> None:
    chunks = cut_chunks(document)
    n_tokens = document.end - document.start
    if not n_tokens:
        assert not chunks
        return
    longest = min(max(n_tokens // 16, SHORTEST_CHUNK), LONGEST_CHUNK)
    assert chunks[0].start == document.start
    assert chunks[-1].end == document.end
    assert all(0 < c.end - c.start <= longest for c in chunks)
    assert all(c.end - c.start > longest // 2 for c in chunks[:-1])
    for before, after in pairwise(chunks):
        assert before.start < after.start <= before.end
        assert before.end < after.end
        assert before.end - after.start <= longest // OVERLAP


def test_chunks_by_hand() -> None:
    """16,000 tokens: 512 is less than 1/16. Passages of 100 tokens end at 500; 64 back is 436."""
    passages = tuple(Passage(i, i + 100) for i in range(0, 16_000, 100))
    document = TokenizedDocument((7,) * 16_000, 0, 16_000, passages, (96,))
    assert cut_chunks(document)[:3] == [(0, 500), (500, 1000), (1000, 1500)]
    # Passages of 30 tokens: 510 is the last end within 512, 450 the first start from 446 on.
    passages = tuple(Passage(i, i + 30) for i in range(0, 15_990, 30))
    document = TokenizedDocument((7,) * 16_000, 0, 16_000, passages, (96,))
    assert cut_chunks(document)[:3] == [(0, 510), (450, 960), (900, 1410)]
    # Without passages: 512 each, 64 shared.
    document = TokenizedDocument((7,) * 16_000, 0, 16_000, (), (96,))
    assert cut_chunks(document)[:3] == [(0, 512), (448, 960), (896, 1408)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't SHOUT, 3.5 times!", ["don", "t", "shout", "3", "5", "times"]),
        ("Straße Ｏｓｌｏ", ["strasse", "oslo"]),
        ("船在黎明", ["船在", "在黎", "黎明"]),
        ("第 7 章", ["第", "7", "章"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("السفينة غادرت", ["السفينة", "غادرت"]),
        ("snake_case", ["snake", "case"]),
        ("", []),
        ("... --- !", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_bm25_by_hand() -> None:
    """Three texts of 2, 4 and 3 words (mean 3); `b` is in one of them, once, twice in none.

    idf = ln(1 + (3 - 1 + .5) / (1 + .5)) = ln(1 + 2.5 / 1.5) = .98083
    text 0: tf / (tf + k1 (1 - b + b * 2/3)) = 1 / (1 + 1.5 * .75) = 1 / 2.125
    `c` stands twice in text 1, which has 4 words: 2 / (2 + 1.5 * (.25 + .75 * 4/3)) = 2 / 3.875
    """
    scores = bm25_scores("B c?", ["a b", "c a c d", "a a a"])
    idf = math.log(1 + 2.5 / 1.5)
    assert scores == pytest.approx([idf / 2.125, idf * 2 / 3.875, 0.0], rel=1e-5)


@pytest.mark.parametrize(
    ("question", "texts"), [("", ["a"]), ("a", ["", "..."]), ("zebra", ["a b", "c"]), ("a", [])]
)
def test_nothing_in_common_scores_nothing(question: str, texts: list[str]) -> None:
    assert bm25_scores(question, texts) == [0.0] * len(texts)


def about(
    tokenizer: PreTrainedTokenizerFast, question: str, **options: Any
) -> tuple[Given, FakeBase]:
    base = FakeBase("\n".join(LINES), tokenizer)
    given = make_given(base, base.document, question=question, supervision="retrieved", **options)
    return given, base


def test_what_is_asked_for_is_selected_and_nothing_else_is_trained_on(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    given, base = about(tokenizer, "Where does the wolverine sleep?", positions_per_step=64)
    supervision = RetrievedSupervision(given)
    ids = base.document.input_ids
    assert not supervision.fallback
    assert len(supervision.selected) == TOP
    assert "wolverine" in base.decode(ids[slice(*supervision.selected[0])])
    assert len(base.document.input_ids) > 3 * sum(c.end - c.start for c in supervision.selected)
    inside = {i for c in supervision.selected for i in range(c.start, c.end)}
    trained = {i for b in islice(supervision.batches(), 200) for i in b.position_ids.tolist()}
    assert trained <= inside
    assert len(trained) > 0.9 * len(inside)
    assert not base.asked


def test_any_ranking_will_do(tokenizer: PreTrainedTokenizerFast) -> None:
    """Here the last chunks are best, and the first have nothing to do with the question."""

    def last(question: str, texts: Sequence[str]) -> list[float]:
        assert question == "?"
        return [max(i - len(texts) + 3, 0) for i in range(len(texts))]

    given, base = about(tokenizer, "?")
    chunks = cut_chunks(base.document)
    # The last three score 2, 1 and 0; a score of 0 is no selection.
    assert RetrievedSupervision(given, rank=last).selected == (chunks[-1], chunks[-2])


def test_random_spans_stand_in_where_nothing_fits(tokenizer: PreTrainedTokenizerFast) -> None:
    given, _ = about(tokenizer, "Zebra?", span_length=20)
    supervision = RetrievedSupervision(given)
    assert supervision.fallback
    assert supervision.selected == ()
    pairs = zip(supervision.batches(), RandomSpanSupervision(given).batches(), strict=False)
    for ours, random in islice(pairs, 5):
        assert ours.position_ids.tolist() == random.position_ids.tolist()


def test_chunks_that_are_held_out_as_a_whole_are_no_material(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    given, _ = about(tokenizer, "Where does the wolverine sleep?")
    only = RetrievedSupervision(given, rank=lambda q, texts: ["wolverine" in t for t in texts])
    secret = [Passage(c.start, c.end + 1) for c in only.selected]
    hidden, _ = about(tokenizer, "Where does the wolverine sleep?", held_out=secret)
    supervision = RetrievedSupervision(
        hidden, rank=lambda q, texts: ["wolverine" in t for t in texts]
    )
    assert supervision.selected == only.selected
    assert supervision.fallback
    batch = next(supervision.batches())
    learnt = set((batch.position_ids[batch.labels != IGNORE] + 1).tolist())
    assert not learnt & {i for p in secret for i in range(p.start, p.end)}
