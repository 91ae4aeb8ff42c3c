"""What an adapter unlearns about how answers end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig, AdaptationReport, TTTEngine
from ttt_core.adapter import QueryAdapter
from ttt_core.config import SupervisionName
from ttt_core.drift import ending_tokens, measure_ending_loss
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefill import prefill
from ttt_core.runtime import Runtime
from ttt_core.sandbox import make_registry
from ttt_core.supervision import Cloze, TokenizedDocument

DOCUMENT = TokenizedDocument(
    input_ids=(9, 11, 12, 13, 21, 22, 23), start=1, end=7, passages=(), answer_start=(7, 8)
)
QUOTES = (Cloze(1, 2, 4), Cloze(4, 5, 7))


class Said:
    """A runtime whose model says what it is told to: log-probabilities, a row a quote.

    Attributes:
        batches: All that it was given.
    """

    def __init__(self, base: Sequence[Sequence[float]], adapted: Sequence[Sequence[float]]) -> None:
        self.batches: list[PackedBatch] = []
        self.attention = self
        self._said = {False: torch.tensor(base).log(), True: torch.tensor(adapted).log()}

    @contextmanager
    def turn(self, adapter: object = None) -> Iterator[object]:
        yield adapter

    def forward_batch(self, model: object, prefix: object, batch: PackedBatch) -> torch.Tensor:
        self.batches.append(batch)
        return self._said[model is not None] + 5.0  # Logits are no probabilities.


def ending_loss(base: Sequence[Sequence[float]], adapted: Sequence[Sequence[float]]) -> float:
    runtime: Any = Said(base, adapted)
    prefix: Any = DOCUMENT.input_ids
    adapter: Any = object()
    return measure_ending_loss(runtime, prefix, DOCUMENT, QUOTES, adapter)


def test_an_ending_that_becomes_unlikely_costs_the_logarithm() -> None:
    # The base ends (token 0) with 0.8, then with 0.6; the adapted model with 0.4 and 0.15:
    # log(0.8 / 0.4) = log 2 and log(0.6 / 0.15) = log 4, on average log(8) / 2.
    found = ending_loss([[0.8, 0.2], [0.6, 0.4]], [[0.4, 0.6], [0.15, 0.85]])
    assert found == pytest.approx(math.log(8) / 2)


def test_a_surer_ending_is_below_zero_and_the_same_one_zero() -> None:
    base = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]
    assert ending_loss(base, [[0.8, 0.1, 0.1], [0.05, 0.9, 0.05]]) < 0
    assert ending_loss(base, base) == 0


def test_what_the_base_would_rather_not_say_does_not_count() -> None:
    assert ending_loss([[0.7, 0.2, 0.1]] * 2, [[0.7, 0.1, 0.2]] * 2) == pytest.approx(0, abs=1e-6)


def test_the_last_token_of_each_whole_quote_is_looked_at() -> None:
    runtime: Any = Said([[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2)
    prefix: Any = DOCUMENT.input_ids
    measure_ending_loss(runtime, prefix, DOCUMENT, QUOTES, object())  # type: ignore[arg-type]
    base, adapted = runtime.batches
    assert base is adapted
    assert base.input_ids.tolist() == [7, 8, 11, 12, 13, 7, 8, 21, 22, 23]
    assert base.position_ids.tolist() == [*range(7, 12), *range(7, 12)]
    assert (base.labels != IGNORE).nonzero().flatten().tolist() == [4, 9]
    assert ending_tokens(DOCUMENT, QUOTES) == 20


def test_an_adapter_that_changes_nothing_ends_answers_as_the_base(model: PreTrainedModel) -> None:
    runtime = Runtime(model)
    prefix = prefill(runtime, DOCUMENT.input_ids)
    adapter = QueryAdapter.create(runtime.architecture.projections, AdaptationConfig(r=4))
    assert measure_ending_loss(runtime, prefix, DOCUMENT, QUOTES, adapter) == 0


def adapted(supervision: SupervisionName, tmp_path: Path) -> AdaptationReport:
    recipe = AdaptationConfig(
        supervision=supervision, steps=24, learning_rate=3e-3, early_stopping=False
    )
    with TTTEngine.from_pretrained(store=tmp_path, adaptation=recipe) as engine:
        report = engine.adapt(make_registry(512, seed=101).text).report
    assert report is not None
    return report


def test_training_that_unlearns_to_end_is_refused_and_clozes_are_not(tmp_path: Path) -> None:
    """Both continue more quotes right; behind whole ones recurrence taught the next line."""
    mixture, cloze = adapted("mixture", tmp_path), adapted("cloze", tmp_path)
    for report in (mixture, cloze):
        assert report.probe is not None
        assert report.probe.right_p_value < 0.05
        assert report.ending_loss is not None
    assert mixture.decision == "kept_base"
    assert "answers would not end as they did" in mixture.reasons[-1]
    assert mixture.ending_loss is not None
    assert mixture.ending_loss > 2
    assert cloze.decision == "adapted"
    assert cloze.ending_loss is not None
    assert cloze.ending_loss < 0.25
