"""Choosing the next token: greedy, seeded, and by transformers' own rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ttt_core import GenerationConfig
from ttt_core.sampling import Sampler

VOCABULARY = 40
GENERATED = [3, 5, 3]


def make_logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def draw(n: int = 200, **options: Any) -> list[int]:
    sampler = Sampler(GenerationConfig(**options))
    return [sampler.choose(make_logits(), GENERATED) for _ in range(n)]


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20))
def test_temperature_zero_takes_the_best(values: list[float]) -> None:
    logits = torch.tensor(values)
    choice = Sampler(GenerationConfig()).choose(logits, [])
    assert values[choice] == max(values)


def test_repetition_penalty_counts_when_greedy_too() -> None:
    logits = torch.tensor([2.0, 3.0, 1.0])
    greedy = GenerationConfig(repetition_penalty=2.0)
    assert Sampler(greedy).choose(logits, []) == 1
    assert Sampler(greedy).choose(logits, [1]) == 0  # 3 / 2 < 2


def test_same_seed_same_tokens() -> None:
    assert draw(temperature=1.0, seed=7) == draw(temperature=1.0, seed=7)
    assert draw(temperature=1.0, seed=7) != draw(temperature=1.0, seed=8)


def test_without_a_seed_every_answer_differs() -> None:
    assert draw(temperature=1.0) != draw(temperature=1.0)


@pytest.mark.parametrize("seed", [None, 7])
def test_global_generator_is_neither_read_nor_written(seed: int | None) -> None:
    before = torch.get_rng_state()
    first = draw(temperature=1.0, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert (draw(temperature=1.0, seed=seed) == first) is (seed is not None)


def test_two_answers_drawn_in_turn_are_as_if_alone() -> None:
    config = GenerationConfig(temperature=1.0, seed=7)
    a, b = Sampler(config), Sampler(config.model_copy(update={"seed": 8}))
    mixed = [(a.choose(make_logits(i), []), b.choose(make_logits(i), [])) for i in range(50)]
    alone = Sampler(config)
    assert [left for left, _ in mixed] == [alone.choose(make_logits(i), []) for i in range(50)]


PROCESSORS = [
    ({}, []),
    ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
    ({"top_k": 5}, [TopKLogitsWarper(5)]),
    ({"top_k": 10 * VOCABULARY}, []),
    ({"top_p": 0.6}, [TopPLogitsWarper(0.6)]),
    ({"min_p": 0.2}, [MinPLogitsWarper(0.2)]),
    ({"repetition_penalty": 1.7}, [RepetitionPenaltyLogitsProcessor(1.7)]),
    (
        {"repetition_penalty": 1.3, "temperature": 2.0, "top_k": 8, "top_p": 0.9, "min_p": 0.1},
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(2.0),
            TopKLogitsWarper(8),
            TopPLogitsWarper(0.9),
            MinPLogitsWarper(0.1),
        ],
    ),
]


@pytest.mark.parametrize(
    ("options", "processors"), PROCESSORS, ids=[",".join(o) or "plain" for o, _ in PROCESSORS]
)
def test_draws_follow_transformers_processors(
    options: dict[str, Any], processors: list[Any]
) -> None:
    scores = make_logits()[None]
    for processor in processors:
        scores = processor(torch.tensor([GENERATED]), scores)
    generator = torch.Generator().manual_seed(7)
    expected = [
        int(torch.multinomial(scores[0].softmax(-1), 1, generator=generator)) for _ in range(200)
    ]
    drawn = draw(**{"temperature": 1.0, "seed": 7, **options})
    assert drawn == expected
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}])
def test_narrowest_cut_is_greedy(options: dict[str, Any]) -> None:
    assert set(draw(temperature=2.0, seed=0, **options)) == {int(make_logits().argmax())}


def test_logits_are_left_as_they_were() -> None:
    logits = make_logits()
    config = GenerationConfig(temperature=0.5, top_k=2, repetition_penalty=2.0)
    Sampler(config).choose(logits, GENERATED)
    assert torch.equal(logits, make_logits())
