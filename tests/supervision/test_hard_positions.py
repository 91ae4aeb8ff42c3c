"""The hardest tenth of what may be trained on, by the base model's own loss or entropy."""

from __future__ import annotations

from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, NoBase, make_given
from ttt_core.packed import IGNORE
from ttt_core.supervision import Passage, Supervision, TokenizedDocument
from ttt_core.supervision.base import trainable_positions
from ttt_core.supervision.hard_positions import (
    TOP_SHARE,
    HighEntropySupervision,
    HighLossSupervision,
    hardest,
)

TEXT = "\n".join(f"line {n} says {n * n}" for n in range(30))


def test_hardest_by_hand() -> None:
    """Positions 2 to 21 may be trained on: 20 of them, so that 2 are the top tenth.

    9 would be the best, but its next token, 10, is held out; 1 stands before the document.
    """
    document = TokenizedDocument(tuple(range(23)), 2, 23, (), (96,))
    scores = torch.zeros(23)
    scores[[1, 9, 4, 17, 12]] = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0])
    scores[22] = torch.nan
    assert hardest(make_given(NoBase(), document), scores) == [4, 9]
    held_out = make_given(NoBase(), document, held_out=[Passage(10, 11)])
    assert hardest(held_out, scores) == [4, 17]  # 19 candidates; round(1.9) = 2


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, float("nan")]), min_size=1, max_size=60))
def test_nothing_easier_is_chosen_over_something_harder(values: list[float]) -> None:
    document = TokenizedDocument((7,) * len(values), 0, len(values), (), (96,))
    given = make_given(NoBase(), document)
    scores = torch.tensor(values)
    chosen = set(hardest(given, scores))
    allowed = trainable_positions(document, ())
    candidates = {i for i, v in enumerate(values) if allowed[i] and v == v}
    assert chosen <= candidates
    assert len(chosen) == (max(round(TOP_SHARE * len(candidates)), 1) if candidates else 0)
    easiest = min((values[i] for i in chosen), default=0.0)
    assert all(values[i] <= easiest for i in candidates - chosen)


def test_loss_and_entropy_train_on_their_own_positions(tokenizer: PreTrainedTokenizerFast) -> None:
    base = FakeBase(TEXT, tokenizer)
    given = make_given(base, base.document, positions_per_step=8)
    kinds: list[tuple[type[Supervision], torch.Tensor]] = [
        (HighLossSupervision, base.token_losses()),
        (HighEntropySupervision, base.token_entropies()),
    ]
    for kind, scores in kinds:
        trained = set()
        for batch in islice(kind(given).batches(), 100):
            assert len(batch.input_ids) == 8
            assert (batch.labels != IGNORE).all()
            trained |= set(batch.position_ids.tolist())
        assert trained == set(hardest(given, scores))
    assert set(hardest(given, base.token_losses())) != set(hardest(given, base.token_entropies()))
