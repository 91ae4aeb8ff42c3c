"""What attention is shown as, and the objective that teaches where to look."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core import AdaptationConfig, UnsupportedModelError
from ttt_core.adapter import QueryAdapter
from ttt_core.attention.base import Scoring, Seen
from ttt_core.objectives import (
    TAUGHT_MASS,
    AttentionObjective,
    attention_batch,
    check_observable,
    log_attention,
    soft_target,
    supervised_layer,
)
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix
from ttt_core.runtime import Runtime
from ttt_core.step import make_optimizer, training_step
from ttt_core.supervision import Passage

N_DOCUMENT, N_TAIL = 40, 6
MakeModel = Callable[..., PreTrainedModel]
SHOWN = [
    "llama",
    "mistral-sliding",
    "qwen2-mixed",
    "qwen3",
    "gemma2-mixed-softcap",
    "gemma3-mixed",
    "phi3-fused-sliding",
    "gpt-neox-fused",
    "olmo2",
    "smollm3-nope",
]


def tokens(n: int, *, seed: int = 0) -> list[int]:
    drawn: list[int] = torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(seed))
    return [int(token) for token in drawn]


def look(runtime: Runtime, prefix: FrozenPrefix, tail: list[int]) -> list[Seen]:
    seen: list[Seen] = []
    batch = attention_batch(tail, start=len(prefix))
    with runtime.turn() as model, torch.no_grad():
        runtime.attention.forward_batch(model, prefix, batch, observer=seen.append)
    return seen


def weights(seen: Seen, start: int) -> torch.Tensor:
    """Attention of a single tail over prefix and itself, (heads, tail, prefix + tail)."""
    keys = torch.cat([seen.keys, seen.own_keys], 2)[0]
    groups = seen.query.shape[1] // len(keys)
    scores = seen.query[0] @ keys.repeat_interleave(groups, 0).mT * seen.scoring.scale
    if seen.scoring.softcap is not None:
        scores = seen.scoring.softcap * (scores / seen.scoring.softcap).tanh()
    at = torch.arange(start, start + seen.query.shape[2])[:, None]
    key = torch.arange(keys.shape[1])[None]
    hidden = key > at
    if seen.window is not None:
        hidden |= key <= at - seen.window
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_makes_the_models_own_attention(make_model: MakeModel, name: str) -> None:
    model = make_model(name, attn_implementation="eager")
    document, tail = tokens(N_DOCUMENT), tokens(N_TAIL, seed=1)
    with torch.no_grad():
        out = model(torch.tensor([[*document, *tail]]), output_attentions=True)
    runtime = Runtime(model)
    shown = look(runtime, prefill(runtime, document), tail)
    assert [seen.layer for seen in shown] == list(range(len(out.attentions)))
    for seen, own in zip(shown, out.attentions, strict=True):
        torch.testing.assert_close(
            weights(seen, N_DOCUMENT), own[0, :, N_DOCUMENT:], atol=2e-5, rtol=1e-4
        )


def test_being_looked_at_changes_nothing(model: PreTrainedModel) -> None:
    runtime = Runtime(model)
    prefix = prefill(runtime, tokens(N_DOCUMENT))
    batch = attention_batch(tokens(N_TAIL), start=N_DOCUMENT)
    with runtime.turn() as ready, torch.no_grad():
        plain = runtime.attention.forward_batch(ready, prefix, batch)
        seen = runtime.attention.forward_batch(ready, prefix, batch, observer=lambda _: None)
    assert torch.equal(plain, seen)


UNSEEN = [("deepseek-v3-mla", "auto"), ("qwen3", "model")]


@pytest.mark.parametrize(("name", "attention"), UNSEEN)
def test_what_cannot_be_shown_is_refused(make_model: MakeModel, name: str, attention: Any) -> None:
    runtime = Runtime(make_model(name), attention=attention)
    prefix = prefill(runtime, tokens(N_DOCUMENT))
    with pytest.raises(UnsupportedModelError, match="can be looked into where"):
        look(runtime, prefix, tokens(N_TAIL))


@pytest.mark.parametrize(("name", "attention"), UNSEEN)
def test_it_can_be_known_beforehand(make_model: MakeModel, name: str, attention: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="can be looked into where"):
        check_observable(Runtime(make_model(name), attention=attention))


@pytest.mark.parametrize("name", [*SHOWN, "gpt-oss-sinks"])
def test_what_can_be_shown_is_not_refused(make_model: MakeModel, name: str) -> None:
    check_observable(Runtime(make_model(name)))


@settings(max_examples=30)
@given(
    spans=st.lists(st.tuples(st.integers(0, 19), st.integers(1, 6)), min_size=1, max_size=4),
    hidden=st.integers(0, 19),
)
def test_the_target_gives_the_chosen_tokens_their_share(
    spans: list[tuple[int, int]], hidden: int
) -> None:
    chosen = torch.zeros(20, dtype=torch.bool)
    for start, size in spans:
        chosen[start : start + size] = True
    visible = torch.arange(20)[None] >= min(hidden, int(chosen.nonzero().max()))
    [target] = soft_target(chosen, visible)
    assert target.sum().item() == pytest.approx(1)
    assert not target[~visible[0]].any()
    even = (chosen & visible[0]).sum().item() / visible.sum().item()
    assert target[chosen].sum().item() == pytest.approx(max(TAUGHT_MASS, even))


def test_the_target_of_all_that_there_is_is_even() -> None:
    """4 of 5 tokens chosen: 0.8 is more than 0.6, so the one other token gets its fifth."""
    chosen, visible = torch.tensor([True] * 4 + [False]), torch.ones(1, 5, dtype=torch.bool)
    assert soft_target(chosen, visible)[0].tolist() == pytest.approx([0.2] * 5)
    assert soft_target(chosen[:4], visible[:, :4])[0].tolist() == pytest.approx([0.25] * 4)


def test_mean_attention_of_the_heads_by_hand() -> None:
    # One token, two heads on one key head of two keys: scores (0, ln 3) and (0, 0).
    query = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    keys = torch.tensor([[[[0.0, 0.0], [torch.tensor(3.0).log().item(), 0.0]]]])
    seen = Seen(0, query, keys, keys[:, :, :1], Scoring(1.0, None), None, None)
    found = log_attention(seen, torch.tensor([0]), torch.tensor([2])).exp()
    # Head 1: (1/4, 3/4); head 2: (1/2, 1/2); the mean is (3/8, 5/8).
    assert found[0].tolist() == pytest.approx([3 / 8, 5 / 8])


def test_what_a_window_hides_has_no_mass() -> None:
    query, keys = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 4, 2)
    seen = Seen(0, query, keys, keys[:, :, :1], Scoring(1.0, None), 3, None)
    # A token at position 4 with a window of 3 sees positions 2, 3 and itself.
    found = log_attention(seen, torch.tensor([0]), torch.tensor([4])).exp()
    assert found[0].tolist() == pytest.approx([0, 0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("windows", "trained", "layer"),
    [
        ((None,) * 4, None, 2),
        ((None,) * 4, (3,), 3),
        ((None,) * 4, (0,), 2),
        ((None, 7, 7, None, 7), None, 3),
        ((7, 7, 7), None, 1),
    ],
)
def test_the_middle_layer_is_taught_if_it_can_be(
    windows: tuple[int | None, ...], trained: tuple[int, ...] | None, layer: int
) -> None:
    assert supervised_layer(windows, trained) == layer


class _Frozen(DynamicLayer):
    """Keys and values of a whole row, the document's replaced by the base model's, detached."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._base = keys.detach(), values.detach()

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        return tuple(
            torch.cat([base, new[..., base.shape[-2] :, :]], -2)
            for base, new in zip(self._base, (key_states, value_states), strict=True)
        )


def divergence_by_hand(
    model: PreTrainedModel, prefix: FrozenPrefix, tail: list[int], passage: Passage, layer: int
) -> torch.Tensor:
    """EASE-TTT's loss from the attention weights that transformers' eager attention returns.

    No mask of ours: a token that sees nothing of the passage is left out.
    """
    row = torch.tensor([[*prefix.input_ids, *tail]])
    layers = [_Frozen(*pair) for pair in zip(prefix.keys, prefix.values, strict=True)]
    out = model(
        row,
        attention_mask=torch.ones_like(row),
        position_ids=torch.arange(row.shape[1])[None],
        past_key_values=Cache(layers=layers),
        output_attentions=True,
    )
    total = torch.zeros(())
    for mine in out.attentions[layer][0, :, len(prefix) :].unbind(1):
        heads = mine[:, : len(prefix)]  # (heads, prefix)
        sees = (heads > 0).any(0)
        chosen = torch.zeros_like(sees)
        chosen[passage.start : passage.end] = True
        chosen &= sees
        if not chosen.any():
            continue
        mean = (heads / heads.sum(-1, keepdim=True)).mean(0)
        n_others = int(sees.sum() - chosen.sum())
        aimed = max(0.6, int(chosen.sum()) / int(sees.sum()))
        for place in sees.nonzero()[:, 0].tolist():
            share = aimed / int(chosen.sum()) if chosen[place] else (1 - aimed) / n_others
            total = total + share * (math.log(share) - mean[place].log())
    return total


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("name", [*SHOWN, "gpt-oss-sinks"])
def test_the_loss_and_its_gradient_are_those_of_eager_attention(
    make_model: MakeModel, name: str, layer: int
) -> None:
    """Grouped queries, sliding windows, soft caps, sinks, fused projections; frozen K and V."""
    model = make_model(name, attn_implementation="eager")
    runtime, passage = Runtime(model), Passage(30, 38)
    prefix, tail = prefill(runtime, tokens(N_DOCUMENT)), tokens(N_TAIL, seed=1)
    config = AdaptationConfig(r=4, seed=1)
    adapter = QueryAdapter.create(runtime.architecture.projections, config)
    training = attention_batch(tail, start=N_DOCUMENT)
    optimizer = make_optimizer(adapter, config, 3e-2)
    objective = AttentionObjective([passage], layer=layer, n_tokens=N_DOCUMENT)
    training_step(runtime, prefix, adapter, optimizer, training, objective=objective)  # Off zero.
    with runtime.turn(adapter) as ready:
        found = objective(runtime, ready, prefix, training)
        gradients = torch.autograd.grad(found, adapter.parameters(), materialize_grads=True)
    with adapter.bound(model):
        loss = divergence_by_hand(model, prefix, tail, passage, layer)
        expected = torch.autograd.grad(loss, adapter.parameters(), materialize_grads=True)
    torch.testing.assert_close(found, loss, rtol=1e-3, atol=1e-4)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    assert scale > 0
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-3)


def test_steps_move_attention_to_the_passages(model: PreTrainedModel) -> None:
    runtime = Runtime(model)
    prefix, passage = prefill(runtime, tokens(N_DOCUMENT)), Passage(10, 14)
    objective = AttentionObjective([passage], layer=1, n_tokens=N_DOCUMENT)
    config = AdaptationConfig(r=4, seed=1)
    adapter = QueryAdapter.create(runtime.architecture.projections, config)
    optimizer = make_optimizer(adapter, config, 3e-3)
    batch = attention_batch(tokens(N_TAIL, seed=2), start=N_DOCUMENT)

    def mass() -> float:
        found: list[torch.Tensor] = []

        def observe(seen: Seen) -> None:
            if seen.layer == 1:
                found.append(log_attention(seen, batch.labelled, batch.position_ids).exp())

        with runtime.turn(adapter) as ready, torch.no_grad():
            runtime.attention.forward_batch(ready, prefix, batch, observer=observe)
        return float(found[0][:, passage.start : passage.end].sum(-1).mean())

    before = mass()
    losses = [
        training_step(runtime, prefix, adapter, optimizer, batch, objective=objective)
        for _ in range(30)
    ]
    assert losses[-1] < 0.7 * losses[0]
    assert mass() > 2 * before


def test_a_layer_that_sees_part_of_the_prefix_is_taught_that_part(make_model: MakeModel) -> None:
    """Window 7 behind 40 tokens: only the first six tokens of the tail see anything of them."""
    runtime = Runtime(make_model("mistral-sliding"))
    prefix = prefill(runtime, tokens(N_DOCUMENT))
    batch = attention_batch(tokens(12, seed=2), start=N_DOCUMENT)
    config = AdaptationConfig(r=4)

    def losses(passage: Passage) -> list[float]:
        objective = AttentionObjective([passage], layer=1, n_tokens=N_DOCUMENT)
        adapter = QueryAdapter.create(runtime.architecture.projections, config)
        optimizer = make_optimizer(adapter, config, 3e-3)
        return [
            training_step(runtime, prefix, adapter, optimizer, batch, objective=objective)
            for _ in range(20)
        ]

    seen = losses(Passage(36, 38))
    assert seen[-1] < 0.9 * seen[0]
    assert losses(Passage(3, 9)) == [0.0] * 20


def test_a_perfect_attention_has_no_loss(model: PreTrainedModel) -> None:
    runtime = Runtime(model)
    prefix = prefill(runtime, tokens(N_DOCUMENT))
    batch = attention_batch(tokens(1), start=N_DOCUMENT)
    objective = AttentionObjective([Passage(0, N_DOCUMENT)], layer=0, n_tokens=N_DOCUMENT)
    with torch.no_grad():  # Queries of nothing look everywhere alike, which is the target here.
        model.model.layers[0].self_attn.q_proj.weight.zero_()
        with runtime.turn() as ready:
            loss = objective(runtime, ready, prefix, batch)
    assert loss.item() == pytest.approx(0, abs=1e-5)
