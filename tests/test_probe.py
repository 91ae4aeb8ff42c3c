"""The probe: what is held out, and the paired test on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig
from ttt_core.gate import Measured, judge
from ttt_core.prefill import EMPTY_PREFIX, prefill
from ttt_core.probe import FEWEST, ClozeScores, HeldOut, hold_out, paired_test, score_clozes
from ttt_core.report import ProbeResult
from ttt_core.runtime import Runtime
from ttt_core.supervision import Cloze, Passage, TokenizedDocument, find_clozes

Make = Callable[..., PreTrainedModel]

LOSSES = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20)), min_size=2, max_size=50)


def compare(before: torch.Tensor, after: torch.Tensor) -> ProbeResult:
    """The paired test on losses alone."""
    return paired_test(
        ClozeScores(before, torch.zeros_like(before)), ClozeScores(after, torch.zeros_like(after))
    )


def make_document(n_passages: int) -> TokenizedDocument:
    """Passages of four tokens that differ from the first one on."""
    ids = tuple(token for i in range(n_passages) for token in (10 + i, 3, 4, 5))
    passages = tuple(Passage(4 * i, 4 * i + 4) for i in range(n_passages))
    return TokenizedDocument(ids, 0, len(ids), passages, (1, 2))


def test_paired_test_by_hand() -> None:
    """Gains 1, 2, 3: mean 2, standard deviation 1, standard error 1/sqrt(3)."""
    result = compare(torch.tensor([2.0, 4.0, 6.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert (result.clozes, result.before, result.after, result.gain) == (3, 4.0, 2.0, 2.0)
    assert result.z == pytest.approx(2 * math.sqrt(3))
    assert result.p_value == pytest.approx(0.5 * math.erfc(2 * math.sqrt(3) / math.sqrt(2)))


@given(LOSSES)
def test_paired_test_on_any_losses(pairs: list[tuple[float, float]]) -> None:
    before, after = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    result = compare(before, after)
    gains = [b - a for b, a in pairs]
    mean = math.fsum(gains) / len(gains)
    variance = math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1)
    assert result.gain == pytest.approx(mean, abs=1e-9)
    if variance > 1e-12:
        z = mean / math.sqrt(variance / len(gains))
        assert result.z == pytest.approx(z, rel=1e-6, abs=1e-6)
        assert result.p_value == pytest.approx(1 - NormalDist().cdf(z), abs=1e-6)


def test_exchanging_the_sides_turns_the_verdict_around() -> None:
    before, after = torch.tensor([3.0, 2.0, 2.5]), torch.tensor([2.0, 1.5, 2.6])
    better, worse = compare(before, after), compare(after, before)
    assert better.gain == -worse.gain
    assert better.p_value == pytest.approx(1 - worse.p_value)


@pytest.mark.parametrize(
    ("after", "p_value"),
    [([1.0, 2.0], 0.5), ([0.5, 1.5], 0.5), ([2.0, 3.0], 1), ([math.inf, 1], 1), ([math.nan, 1], 1)],
)
def test_what_has_no_standard_error_is_no_gain_but_may_be_harm(
    after: list[float], p_value: float
) -> None:
    """No change, changes all alike, and losses that are not finite: those are the worst there is.

    A question's adapter is adopted unless it is significantly worse.
    """
    result = compare(torch.tensor([1.0, 2.0]), torch.tensor(after))
    assert result.p_value == p_value
    verdict = judge(AdaptationConfig(), Measured(result, 0.0, 0.0), for_question=True)
    assert verdict.adopt is (p_value == 0.5)


@pytest.mark.parametrize("level", [0.05, 0.01])
def test_significance_is_one_sided_at_its_level(level: float) -> None:
    """Under no effect at all, about `level` of many tests say that there is one."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 96, generator=generator)
    hits = sum(compare(row, torch.zeros(96)).p_value < level for row in noise)
    assert hits / 4000 == pytest.approx(level, rel=0.3)


@pytest.mark.parametrize(
    ("n_passages", "held_out", "choosing", "deciding"),
    [(1000, 144, 48, 96), (360, 144, 48, 96), (100, 144, 13, 27), (60, 144, 8, 16),
     (57, 144, 7, 15), (8, 144, 1, 2), (2, 144, 0, 0), (1000, 10, 3, 7)],
)  # fmt: skip
def test_shares_held_out(n_passages: int, held_out: int, choosing: int, deciding: int) -> None:
    """At most two fifths of the document; a third of it chooses, the rest decides."""
    config = AdaptationConfig(held_out=held_out)
    held = hold_out(make_document(n_passages), config)
    assert (len(held.choosing), len(held.deciding)) == (choosing, deciding)
    assert held.can_decide is (deciding >= 16)
    assert FEWEST == 16


@given(st.integers(0, 100), st.integers(2, 60), st.integers(0, 3))
def test_choosing_and_deciding_share_nothing(n: int, size: int, seed: int) -> None:
    document = make_document(n)
    held = hold_out(document, AdaptationConfig(held_out=size, seed=seed))
    assert len(set(held.passages)) == len(held.choosing) + len(held.deciding) <= 0.4 * n
    assert set(held.passages) <= set(document.passages)


def test_seed_decides_what_is_held_out() -> None:
    document = make_document(200)
    first, second = (hold_out(document, AdaptationConfig(seed=seed)) for seed in (1, 2))
    assert hold_out(document, AdaptationConfig(seed=1)) == first
    assert set(first.passages) != set(second.passages)


def test_losses_are_of_each_continuation_whatever_the_packing(make_model: Make) -> None:
    """More clozes than fit one forward pass, against one cloze at a time."""
    runtime, document = Runtime(make_model("llama")), make_document(40)
    prefix = prefill(runtime, document.input_ids)
    clozes = find_clozes(document, seed=0)
    together = score_clozes(runtime, prefix, document, clozes, None).losses
    alone = [score_clozes(runtime, prefix, document, [c], None).losses for c in clozes]
    torch.testing.assert_close(together, torch.cat(alone))


def test_no_clozes_no_losses(make_model: Make) -> None:
    runtime = Runtime(make_model("llama"))
    assert score_clozes(runtime, EMPTY_PREFIX, make_document(1), [], None).losses.shape == (0,)


def test_held_out_passages_are_those_of_the_clozes() -> None:
    held = HeldOut(choosing=(Cloze(0, 1, 4),), deciding=(Cloze(8, 10, 12),))
    assert held.passages == [(0, 4), (8, 12)]
    assert not held.can_decide


def test_right_is_the_share_continued_exactly(model: PreTrainedModel) -> None:
    """Agrees with greedy continuation, cloze by cloze."""
    runtime, document = Runtime(model), make_document(6)
    prefix = prefill(runtime, document.input_ids)
    clozes = find_clozes(document, seed=0)
    scores = score_clozes(runtime, prefix, document, clozes, None)
    row = torch.tensor([[*document.input_ids, *document.answer_start]])
    for cloze, right in zip(clozes, scores.right.tolist(), strict=True):
        passage = torch.tensor([document.input_ids[cloze.start : cloze.end]])
        with torch.no_grad():
            logits = model(torch.cat([row, passage], dim=1)).logits[0]
        predicted = logits[-1 - (cloze.end - cloze.cut) : -1].argmax(-1)
        assert right == float(torch.equal(predicted, passage[0, cloze.cut - cloze.start :]))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], 1 / 32),
        ([0, 0, 1], [1, 1, 0], 4 / 8),
        ([1, 0, 1], [1, 0, 1], 1.0),
        ([1, 1], [0, 0], 1.0),
    ],
)
def test_right_answers_are_tested_by_those_that_changed_sides(
    before: list[float], after: list[float], expected: float
) -> None:
    sides = [torch.tensor(side, dtype=torch.float32) for side in (before, after)]
    result = paired_test(*(ClozeScores(torch.rand(len(side)), side) for side in sides))
    assert result.right_p_value == pytest.approx(expected)
