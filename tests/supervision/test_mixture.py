"""Every batch of a mixture is one of its parts', and the parts take turns."""

from __future__ import annotations

from itertools import islice

import pytest
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, NoBase, make_given
from ttt_core.packed import PackedBatch
from ttt_core.supervision import Passage, Supervision, TokenizedDocument
from ttt_core.supervision.cloze import ClozeSupervision
from ttt_core.supervision.mixture import MixtureSupervision
from ttt_core.supervision.recurrence import RecurrenceSupervision
from ttt_core.supervision.retrieved import RetrievedSupervision

TEXT = "\n".join(f"berth {n} holds ship {n * 7 % 30}" for n in range(30))


def values(batch: PackedBatch) -> list[int]:
    return [*batch.input_ids.tolist(), *batch.position_ids.tolist(), *batch.labels.tolist()]


@pytest.mark.parametrize("question", [None, "Which ship is in berth 12?"])
def test_parts_take_turns_with_their_own_batches(
    question: str | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = FakeBase(TEXT, tokenizer)
    given = make_given(base, base.document, question=question, clozes_per_step=3, span_length=9)
    kinds: list[type[Supervision]] = [ClozeSupervision, RecurrenceSupervision]
    kinds += [RetrievedSupervision] if question else []
    mixed = [values(batch) for batch in islice(MixtureSupervision(given).batches(), 12)]
    for turn, kind in enumerate(kinds):
        own = [values(batch) for batch in islice(kind(given).batches(), 12 // len(kinds))]
        assert mixed[turn :: len(kinds)] == own


def test_a_question_that_no_chunk_is_about_has_no_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    base = FakeBase(TEXT, tokenizer)
    about, other = (
        MixtureSupervision(make_given(base, base.document, question=question))
        for question in ("Which ship is in berth 12?", "Wherefore art thou Romeo?")
    )
    assert (len(about.parts), about.fallback) == (3, False)
    assert (len(other.parts), other.fallback) == (2, True)


def test_a_part_that_finds_nothing_loses_its_turn() -> None:
    """Six different tokens: nothing recurs, and all that is left are clozes."""
    document = TokenizedDocument((98, 1, 2, 3, 4, 5, 6), 1, 7, (Passage(1, 7),), (96, 97))
    given = make_given(NoBase(), document)
    assert next(RecurrenceSupervision(given).batches(), None) is None
    mixed = islice(MixtureSupervision(given).batches(), 5)
    alone = islice(ClozeSupervision(given).batches(), 5)
    assert [values(batch) for batch in mixed] == [values(batch) for batch in alone]


def test_no_part_no_batches() -> None:
    document = TokenizedDocument((98, 1, 2), 1, 3, (), (96, 97))
    assert next(MixtureSupervision(make_given(NoBase(), document)).batches(), None) is None
