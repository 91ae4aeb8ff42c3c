"""What is measured in a layer is what the model's own softmax does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.conftest import build_model, build_tokenizer
from ttt_core.attention.base import Scoring, Seen
from ttt_core.attention.scores import prefix_scores, tail_scores
from ttt_core.diagnostics import attention_mass
from ttt_core.diagnostics.attention_mass import layer_attention
from ttt_core.diagnostics.measure import Measurement, Tail, measure
from ttt_core.errors import UnsupportedModelError
from ttt_core.loaded import LoadedModel
from ttt_core.prefill import prefill

FEW = settings(max_examples=40)


def make_seen(
    query: torch.Tensor, keys: torch.Tensor, own_keys: torch.Tensor, **options: Any
) -> Seen:
    defaults = {"scoring": Scoring(1.0, None), "window": None, "sinks": None}
    return Seen(0, query, keys, own_keys, **{**defaults, **options})


def by_hand(**options: Any) -> Seen:
    """One head, scalar keys, so that scores are the keys; one query, which sees itself, too."""
    keys = torch.tensor([[[[math.log(3)], [0.0], [math.log(2)]]]])
    own = torch.tensor([[[[0.0]]]])
    return make_seen(torch.tensor([[[[1.0]]]]), keys, own, **options)


def test_one_query_by_hand() -> None:
    """exp of the scores: 3, 1, 2 in the prefix and 1 for itself; the needle is the third.

    Mass 2/7, rivals 5 together, the best 3: margin log(2/5), lead log(2/3); itself 1/7.
    """
    found = layer_attention(by_hand(), range(1), [2])
    assert found.mass.item() == pytest.approx(2 / 7)
    assert found.margin.item() == pytest.approx(math.log(2 / 5), abs=1e-6)
    assert found.lead.item() == pytest.approx(math.log(2 / 3), abs=1e-6)
    assert found.own.item() == pytest.approx(1 / 7)
    assert found.rivals.tolist() == [3]
    assert found.by_token.tolist() == pytest.approx([3 / 7, 1 / 7, 2 / 7])


def test_several_tokens_are_one_needle() -> None:
    """The needle is 3 + 2 of 7 and its rivals 1 and 1: margin log(5/2), lead log 5."""
    found = layer_attention(by_hand(), range(1), [0, 2])
    assert found.mass.item() == pytest.approx(5 / 7)
    assert found.margin.item() == pytest.approx(math.log(5 / 2), abs=1e-6)
    assert found.lead.item() == pytest.approx(math.log(5), abs=1e-6)


def test_sinks_are_rivals_and_take_mass() -> None:
    """A sink that weighs 9 makes 16 of the 7."""
    found = layer_attention(by_hand(sinks=torch.tensor([math.log(9)])), range(1), [2])
    assert found.mass.item() == pytest.approx(2 / 16)
    assert found.lead.item() == pytest.approx(math.log(2 / 9), abs=1e-6)
    assert found.rivals.tolist() == [4]
    assert found.by_token.sum().item() == pytest.approx(6 / 16)


def test_what_a_window_hides_has_no_mass() -> None:
    """Window 2: the query at position 3 sees position 2 and itself: masses 2/3 and 1/3."""
    found = layer_attention(by_hand(window=2), range(1), [2])
    assert found.mass.item() == pytest.approx(2 / 3)
    assert found.rivals.tolist() == [1]
    hidden = layer_attention(by_hand(window=2), range(1), [0])
    assert hidden.mass.item() == 0
    assert hidden.margin.item() == -math.inf
    assert hidden.by_token[:2].tolist() == [0, 0]


@FEW
@given(
    seed=st.integers(0, 999),
    group=st.integers(1, 3),
    n_kv=st.integers(1, 2),
    n_prefix=st.integers(1, 9),
    n_tokens=st.integers(1, 5),
    window=st.sampled_from([None, 3]),
    softcap=st.sampled_from([None, 2.0]),
    sunk=st.booleans(),
)
def test_masses_margins_and_leads_are_the_softmaxs(
    seed: int,
    group: int,
    n_kv: int,
    n_prefix: int,
    n_tokens: int,
    window: int | None,
    softcap: float | None,
    sunk: bool,
) -> None:
    """Against a dense softmax, head by head and query by query."""
    torch.manual_seed(seed)
    query = torch.randn(1, group * n_kv, n_tokens, 4) * 3
    keys, own = torch.randn(1, n_kv, n_prefix, 4), torch.randn(1, n_kv, n_tokens, 4)
    sinks = torch.randn(group * n_kv) if sunk else None
    seen = make_seen(query, keys, own, scoring=Scoring(0.5, softcap), window=window, sinks=sinks)
    needle = [0, n_prefix - 1]
    found = layer_attention(seen, range(n_tokens), needle)
    rest = [i for i in range(n_prefix) if i not in needle]
    total = torch.zeros(n_prefix)
    for head in range(group * n_kv):
        for token in range(n_tokens):
            at = n_prefix + token
            both = torch.cat([keys[0, head // group], own[0, head // group, : token + 1]])
            z = 0.5 * both @ query[0, head, token]
            z = z if softcap is None else softcap * (z / softcap).tanh()
            places = torch.arange(len(z))
            z[places <= at - window if window else places < 0] = -torch.inf
            z = z if sinks is None else torch.cat([z, sinks[head : head + 1]])
            weights = z.softmax(0)
            total += weights[:n_prefix]
            rivals = torch.cat([z[rest], z[n_prefix:]])
            mass = weights[sorted(set(needle))].sum()
            torch.testing.assert_close(found.mass[head, token], mass, rtol=1e-4, atol=1e-6)
            lead = z[sorted(set(needle))].logsumexp(0) - rivals.max()
            torch.testing.assert_close(found.lead[head, token], lead, rtol=1e-4, atol=1e-4)
            own_mass = weights[n_prefix : at + 1].sum()
            torch.testing.assert_close(found.own[head, token], own_mass, rtol=1e-4, atol=1e-6)
            assert found.rivals[token] == (~rivals.isneginf()).sum()
    mean = total / (group * n_kv * n_tokens)
    torch.testing.assert_close(found.by_token, mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.margin.sigmoid(), found.mass)


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seen = make_seen(torch.randn(1, 4, 7, 8), torch.randn(1, 2, 20, 8), torch.randn(1, 2, 7, 8))
    whole = layer_attention(seen, range(1, 7), [3, 4])
    monkeypatch.setattr(attention_mass, "_MOST_SCORES", 4 * 27 * 4)  # 4 queries, then 2.
    parts = layer_attention(seen, range(1, 7), [3, 4])
    for name in ("mass", "margin", "lead", "own", "rivals", "by_token"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_scores_of_the_future_are_hidden() -> None:
    seen = make_seen(torch.ones(1, 1, 3, 1), torch.ones(1, 1, 2, 1), torch.ones(1, 1, 3, 1))
    tokens, positions = torch.arange(3), torch.arange(2, 5)
    assert not prefix_scores(seen, tokens, positions).isneginf().any()
    assert tail_scores(seen, tokens, positions)[0].isneginf().tolist() == [
        [False, True, True],
        [False, False, True],
        [False, False, False],
    ]


PREFIX, TAIL, NEEDLE = list(range(10, 40)), Tail((50, 51, 52), (60, 61)), [20, 21, 28]

OBSERVED = [
    "llama",
    "mistral-sliding",
    "qwen3",
    "gemma2-mixed-softcap",
    "phi3-fused-sliding",
    "gpt-neox-fused",
    "gpt-oss-sinks",
]


def measured(model: PreTrainedModel) -> Measurement:
    loaded = LoadedModel(model, build_tokenizer(), None)
    return measure(loaded, prefill(loaded.runtime, PREFIX), TAIL, NEEDLE, None)


@pytest.mark.parametrize("name", OBSERVED)
def test_masses_are_those_of_the_models_own_attention(name: str) -> None:
    """transformers' eager attention shows its weights: one pass over prefix and tail together."""
    found = measured(build_model(name))
    eager = build_model(name, attn_implementation="eager")
    ids = torch.tensor([[*PREFIX, *TAIL.input_ids]])
    with torch.no_grad():
        out = eager(ids, output_attentions=True, use_cache=False)
    assert len(found.layers) == len(out.attentions)
    for layer, weights in zip(found.layers, out.attentions, strict=True):
        own = weights[0][:, -2:]  # The last token of the question, and the answer's first.
        torch.testing.assert_close(layer.mass, own[..., NEEDLE].sum(-1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            layer.by_token, own[..., : len(PREFIX)].mean((0, 1)), rtol=1e-3, atol=1e-5
        )
    logits = out.logits[0, -2:].float().log_softmax(-1)
    expected = [-logits[0, 60].item(), -logits[1, 61].item()]
    assert found.losses == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert found.likeliest == (bool(logits[0].argmax() == 60), bool(logits[1].argmax() == 61))


@pytest.mark.parametrize("name", ["deepseek-v3-mla"])
def test_latent_attention_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="looked into"):
        measured(build_model(name))


def test_grids_are_means_over_queries_or_one_of_them() -> None:
    found = measured(build_model("qwen3"))
    stacked = torch.stack([layer.mass for layer in found.layers])
    assert stacked.shape == (3, 4, 2)
    torch.testing.assert_close(found.grid("mass"), stacked.mean(-1))
    torch.testing.assert_close(found.grid("mass", 1), stacked[..., 1])
    torch.testing.assert_close(found.by_query(), stacked.mean((0, 1)))
    assert found.rivals == len(PREFIX) + 4 - len(NEEDLE)
    assert found.demanded(0.5) == pytest.approx(math.log(31))
    assert found.loss == pytest.approx(sum(found.losses) / 2)
