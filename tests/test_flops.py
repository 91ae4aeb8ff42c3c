"""Costs in the paper's terms (Bansal et al., arXiv 2512.13898, 3.3 and App. C)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ttt_core import flops
from ttt_core.queries import Architecture, QueryProjection


def architecture(layers: int, width: int, ratio: float) -> Architecture:
    projections = tuple(QueryProjection(f"layers.{i}", nn.Linear(1, 1)) for i in range(layers))
    return Architecture(
        projections=projections,
        windows={"full_attention": None},
        layer_windows=(None,) * layers,
        window=2**31,
        head_dim=64,
        hidden_size=width,
        mlp_ratio=ratio,
    )


QWEN3_4B = architecture(36, 2560, 3.8)


def generate(layers: int, width: int, ratio: float, n: int, document: int) -> float:
    """The paper's cost of decoding n tokens behind a document."""
    quad, tok = 2 * layers * width, (4 + 2 * ratio) * layers * width**2
    return quad * (n * document + n * (n - 1) / 2) + tok * n


@given(
    layers=st.integers(1, 100),
    width=st.integers(16, 8192),
    ratio=st.floats(1, 8),
    n=st.integers(0, 10**6),
    document=st.integers(0, 10**6),
)
def test_thinking_tokens_inverts_generate(
    layers: int, width: int, ratio: float, n: int, document: int
) -> None:
    spent = generate(layers, width, ratio, n, document)
    found = flops.thinking_tokens(architecture(layers, width, ratio), spent, document)
    assert n - 1 <= found <= n  # Whole tokens, rounded down.


@given(n=st.integers(0, 10**5), document=st.integers(0, 10**6))
def test_answering_costs_what_the_paper_says_of_generating(n: int, document: int) -> None:
    found = flops.answer_flops(QWEN3_4B, n, document)
    assert found == pytest.approx(generate(36, 2560, 3.8, n, document))


def test_a_longer_answer_costs_more_a_token_for_it_sees_itself() -> None:
    small = architecture(2, 8, 4.0)
    # C_quad = 2 * 2 * 8 = 32, C_tok = 12 * 2 * 64 = 1536; tokens 1, 2, 3 see 10, 11, 12 others.
    assert flops.answer_flops(small, 3, 10) == 32 * (10 + 11 + 12) + 3 * 1536


@pytest.mark.parametrize(
    ("document", "tokens"),
    [(2_000, 5_911), (8_000, 6_383), (32_000, 7_192), (128_000, 7_831)],
)
def test_qwen3_4b_numbers(document: int, tokens: int) -> None:
    """The paper's own equation, solved for its main experiment: 32 steps of 128 positions."""
    spent = flops.training_flops(QWEN3_4B, 32 * 128, document)
    assert flops.thinking_tokens(QWEN3_4B, spent, document) == pytest.approx(tokens, abs=1)


@pytest.mark.parametrize(("steps", "positions"), [(32, 128), (8, 512), (16, 128)])
def test_long_documents_make_a_trained_position_worth_two_tokens(
    steps: int, positions: int
) -> None:
    n = steps * positions
    spent = flops.training_flops(QWEN3_4B, n, 10**6)
    assert flops.thinking_tokens(QWEN3_4B, spent, 10**6) == pytest.approx(2 * n, rel=0.02)


def test_reading_costs_what_one_pass_over_its_own_tokens_costs() -> None:
    quad, tok = 2 * 2 * 8, (4 + 2 * 4) * 2 * 8**2
    small = architecture(2, 8, 4.0)
    assert flops.prefill_flops(small, 10) == quad * 100 + tok * 10
    assert flops.forward_flops(small, 3, 10) == quad * 30 + tok * 3


def test_training_is_dearer_than_reading_the_same_positions() -> None:
    trained = flops.training_flops(QWEN3_4B, 128, 8_000)
    assert 1 < trained / flops.forward_flops(QWEN3_4B, 128, 8_000) < 3


def test_nothing_spent_is_no_token() -> None:
    assert flops.thinking_tokens(QWEN3_4B, 0.0, 0) == 0
