# ruff: noqa: RUF001  (full stops of many scripts)
"""Quotes: how they are read from an answer, found in the document, and trained on."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, make_given
from ttt_core.packed import IGNORE
from ttt_core.supervision import Given, Passage
from ttt_core.supervision.evidence import (
    MOST_QUOTES,
    EvidenceSupervision,
    QuoteFinder,
    quotes_of,
)
from ttt_core.supervision.random_span import RandomSpanSupervision

TEXT = """The harbour of Oslo was closed in the winter of 1912.
Nobody was told; the ice came early that year.
船在黎明离开了港口。没有人看见它离开！
The Aurora waited for nine days, then she left for Lima 🚢 with coal.
Le café était fermé."""


def finder(tokenizer: PreTrainedTokenizerFast, text: str = TEXT) -> tuple[QuoteFinder, FakeBase]:
    base = FakeBase(text, tokenizer)
    return QuoteFinder(base.document, base.decode), base


def said(span: Passage | None, base: FakeBase) -> str | None:
    if span is None:
        return None
    return base.decode(base.document.input_ids[span.start : span.end]).strip()


@pytest.mark.parametrize(
    ("answer", "quotes"),
    [
        ("<quote>a b</quote> and <QUOTE>c\nd</QUOTE>", ["a b", "c\nd"]),
        ("<quote>cut off at the end of the ans", ["cut off at the end of the ans"]),
        ("<quote>one\n<quote>two</quote>", ["one", "two"]),
        ('1. "first line"\n- second line\n\n2) third', ["first line", "second line", "third"]),
        ("1912 was cold", ["1912 was cold"]),
        ("<quote> </quote>", ["<quote> </quote>"]),
        ("", []),
    ],
    ids=["tagged", "unfinished", "unclosed", "lines", "number", "empty-tag", "nothing"],
)
def test_quotes_are_read_as_models_write_them(answer: str, quotes: list[str]) -> None:
    assert quotes_of(answer) == quotes


def test_at_most_eight_quotes_count() -> None:
    assert quotes_of("\n".join(f"line {n}" for n in range(20))) == [
        f"line {n}" for n in range(MOST_QUOTES)
    ]


@pytest.mark.parametrize(
    "quote",
    [
        "the ice came early",
        "the  ice\n\tcame early",
        "1912.\n\nNobody was told;",
        "没有人看见它离开！",
        "Lima 🚢 with coal.",
        "café était",
    ],
)
def test_quotes_are_found_whatever_their_white_space(
    quote: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    where, base = finder(tokenizer)
    found = said(where.find(quote), base)
    assert found is not None
    assert found.split() == quote.split()


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(start=st.integers(0, len(TEXT)), size=st.integers(8, 60), gap=st.sampled_from(["\n", "  "]))
def test_any_piece_of_the_document_is_found(
    start: int, size: int, gap: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    piece = TEXT[start : start + size]
    where, base = finder(tokenizer)
    found = said(where.find(piece.replace(" ", gap)), base)
    if len("".join(piece.split())) >= 8:
        assert found is not None
        assert "".join(piece.split()) in "".join(found.split())
        # Tokens may hold a character more on either side, such as a blank; here they never do.
        assert len("".join(found.split())) <= len("".join(piece.split())) + 6


def test_nearly_right_quotes_are_found_and_paraphrases_are_not(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    where, base = finder(tokenizer)
    # Two of 41 characters differ; the place is as long as the quote, so that it ends one early.
    near = said(where.find("The harbor of Oslo was closed in the Winter of 1912"), base)
    assert near is not None
    assert near.startswith("The harbour of Oslo")
    assert near.endswith(("of 191", "of 1912"))
    # A third of its letters are other ones.
    assert where.find("The harbour of Bergen was open all through the winter") is None
    assert where.find("Because of the early ice, ships could not enter Oslo's port") is None
    assert where.find("No such thing was ever written in this document at all.") is None


@pytest.mark.parametrize("quote", ["", " ", "?", "xq", "x" * 10_000])
def test_what_is_no_quote_is_not_found(quote: str, tokenizer: PreTrainedTokenizerFast) -> None:
    where, _ = finder(tokenizer)
    assert where.find(quote) is None


def test_short_quotes_have_to_be_exact(tokenizer: PreTrainedTokenizerFast) -> None:
    where, _ = finder(tokenizer)
    assert where.find("left for Lima") is not None
    assert where.find("left for Lyma") is None


def asking(
    tokenizer: PreTrainedTokenizerFast, answer: str, **options: Any
) -> tuple[Given, FakeBase]:
    base = FakeBase(TEXT, tokenizer, lambda prompt: answer)
    question = "When did the Aurora leave?"
    return make_given(
        base, base.document, question=question, supervision="evidence", **options
    ), base


def test_only_the_quoted_spans_are_trained_on(tokenizer: PreTrainedTokenizerFast) -> None:
    quotes = ["The Aurora waited\nfor nine days", "the ice came early", "a paraphrase of that"]
    about, base = asking(tokenizer, "\n".join(f"<quote>{quote}</quote>" for quote in quotes))
    supervision = EvidenceSupervision(about)
    assert (supervision.found, supervision.fallback) == (2, False)
    assert [said(span, base) for span in supervision.selected] == [
        "The Aurora waited for nine days",
        "the ice came early",
    ]
    assert len(base.asked) == 1
    assert "When did the Aurora leave?" in base.asked[0]
    quoted = {i for span in supervision.selected for i in range(span.start, span.end)}
    learnt = {
        token
        for batch in islice(supervision.batches(), 6)
        for token in (batch.position_ids[batch.labels != IGNORE] + 1).tolist()
    }
    assert learnt == quoted


@pytest.mark.parametrize("positions", [5, 12, 100])
def test_spans_share_a_step_as_far_as_they_fit(
    positions: int, tokenizer: PreTrainedTokenizerFast
) -> None:
    about, _ = asking(
        tokenizer,
        "nine days\nthe ice came early\nfor nine days, then\nclosed in the winter",
        positions_per_step=positions,
    )
    batches = list(islice(EvidenceSupervision(about).batches(), 40))
    assert max(len(batch.input_ids) for batch in batches) <= positions
    if positions == 100:
        assert len({tuple(batch.position_ids.tolist()) for batch in batches}) == 1


@pytest.mark.parametrize("answer", ["", "I do not know.", "The ship departed late that season."])
def test_random_spans_stand_in_for_quotes_that_are_none(
    answer: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    about, _ = asking(tokenizer, answer, span_length=20)
    supervision = EvidenceSupervision(about)
    assert (supervision.found, supervision.fallback) == (0, True)
    pairs = zip(supervision.batches(), RandomSpanSupervision(about).batches(), strict=False)
    for ours, random in islice(pairs, 5):
        assert ours.position_ids.tolist() == random.position_ids.tolist()


def test_a_quote_of_what_is_held_out_is_found_and_not_trained_on(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    base = FakeBase(TEXT, tokenizer)
    secret = [p for p in base.document.passages if said(p, base) == "Le café était fermé."]
    about, _ = asking(tokenizer, "Le café était fermé.", held_out=secret)
    supervision = EvidenceSupervision(about)
    assert len(secret) == 1
    assert (supervision.found, supervision.fallback) == (1, True)
