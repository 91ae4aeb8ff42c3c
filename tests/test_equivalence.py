"""The specification of the core: equalities, over every supported architecture.

The largest difference of each is collected and printed as a table at the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.adapter import QueryAdapter
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix
from ttt_core.runtime import Runtime

Record = Callable[[str, float], None]

N_DOCUMENT = 40
N_SUFFIX = 12
TOLERANCE = 2e-5  # fp32, relative to logits of order one

PLACES = "hall barn shed yard loft well mill dock cave tent".split()  # noqa: SIM905
KEYS = "key cup map pen hat box jar net rug fan bag pot lid cap tin saw axe oar".split()  # noqa: SIM905
DOCUMENT = "\n".join(f"the {key} is in the {PLACES[i % 10]}." for i, key in enumerate(KEYS))
"""Distinct lines: enough for clozes, held out ones included."""


def tokens(n: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 300, (n,), generator=generator)


def full_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids[None]).logits[0].float()


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    scale = max(right.abs().max().item(), 1.0)
    return (left - right).abs().max().item() / scale


def random_adapter(runtime: Runtime, parametrization: str) -> QueryAdapter:
    config = AdaptationConfig.model_validate({"parametrization": parametrization, "r": 4})
    adapter = QueryAdapter.create(runtime.architecture.projections, config)
    generator = torch.Generator().manual_seed(1)
    rows = {p.name: p.rows for p in runtime.architecture.projections}
    state = adapter.state_dict()
    for name, weight in state.items():
        noise = torch.randn(weight.shape, generator=generator) * 0.1
        projection = name.removeprefix("base_model.model.").rsplit(".", 2)[0]
        keep = rows.get(projection)
        if name.endswith("lora_B.weight") and keep is not None:
            masked = torch.zeros_like(noise)
            masked[keep] = noise[keep]
            noise = masked
        state[name] = noise
    adapter.load_state_dict(state)
    return adapter


def random_tails() -> PackedBatch:
    rows = [tokens(n, seed=n).tolist() for n in (9, 4, 12)]
    labels = [[IGNORE] * 2 + tokens(len(row) - 2, seed=len(row) + 1).tolist() for row in rows]
    return PackedBatch.of_tails(rows, labels, start=N_DOCUMENT)


def random_positions(ids: torch.Tensor) -> PackedBatch:
    positions = torch.tensor([0, 3, 4, 5, 17, 28, 38])
    return PackedBatch(ids[positions], positions, ids[positions + 1], None)


@pytest.fixture(params=["shared", "model"])
def attention(request: pytest.FixtureRequest) -> str:
    """Both attention paths in turn: ours, and the model's own under masks."""
    return {"shared": "auto"}.get(request.param, request.param)


def batch_logits(runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch) -> torch.Tensor:
    with runtime.turn() as model, torch.no_grad():
        return runtime.attention.forward_batch(model, prefix, batch)


def batch_gradients(
    runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch, adapter: QueryAdapter
) -> tuple[torch.Tensor, ...]:
    with runtime.turn(adapter) as model:
        logits = runtime.attention.forward_batch(model, prefix, batch)
        loss = functional.cross_entropy(logits, batch.targets)
        return torch.autograd.grad(loss, adapter.parameters())


# ---------------------------------------------------------------- forward passes


def test_frozen_prefix_logits_equal_full_forward(
    any_model: PreTrainedModel, attention: str, record: Record
) -> None:
    ids = tokens(N_DOCUMENT + N_SUFFIX)
    runtime = Runtime(any_model, attention=attention)
    prefix = prefill(runtime, ids[:N_DOCUMENT].tolist())
    tails = runtime.attention.tails(prefix)
    with runtime.turn() as model, torch.no_grad():
        found = tails.forward(
            model,
            input_ids=ids[N_DOCUMENT:],
            position_ids=torch.arange(N_DOCUMENT, len(ids)),
            segment_ids=torch.zeros(N_SUFFIX, dtype=torch.long),
            logits_at=torch.arange(N_SUFFIX),
        )
    difference = distance(found, full_logits(any_model, ids)[N_DOCUMENT:])
    record("frozen prefix = full forward", difference)
    assert difference < TOLERANCE


def test_any_positions_in_place_equal_full_forward(
    any_model: PreTrainedModel, attention: str, record: Record
) -> None:
    ids = tokens(N_DOCUMENT)
    runtime = Runtime(any_model, attention=attention)
    prefix = prefill(runtime, ids.tolist())
    batch = random_positions(ids)
    found = batch_logits(runtime, prefix, batch)
    difference = distance(found, full_logits(any_model, ids)[batch.position_ids])
    record("in place = full forward", difference)
    assert difference < TOLERANCE


def test_packed_tails_equal_one_by_one(
    any_model: PreTrainedModel, attention: str, record: Record
) -> None:
    ids = tokens(N_DOCUMENT)
    runtime = Runtime(any_model, attention=attention)
    prefix = prefill(runtime, ids.tolist())
    batch = random_tails()
    assert batch.segment_ids is not None
    found = batch_logits(runtime, prefix, batch)
    expected = []
    for segment in range(3):
        tail = batch.input_ids[batch.segment_ids == segment]
        expected.append(full_logits(any_model, torch.cat([ids, tail]))[N_DOCUMENT + 2 :])
    difference = distance(found, torch.cat(expected))
    record("packed tails = one by one", difference)
    assert difference < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 7, 13])
def test_chunked_prefill_equals_one_shot(
    any_model: PreTrainedModel, chunk: int, attention: str, record: Record
) -> None:
    """And so does the model's own, unchunked."""
    ids = tokens(N_DOCUMENT).tolist()
    whole = prefill(Runtime(any_model, attention="model"), ids, chunk=1000)
    parts = prefill(Runtime(any_model, attention=attention), ids, chunk=chunk)
    difference = max(
        distance(found, expected)
        for found, expected in zip(
            (*parts.keys, *parts.values), (*whole.keys, *whole.values), strict=True
        )
    )
    record("chunked prefill = one shot", difference)
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", ["llama", "qwen2-mixed", "gemma3-mixed", "deepseek-v3-mla"])
def test_eager_and_sdpa_masks_mean_the_same(
    name: str, make_model: Callable[..., PreTrainedModel]
) -> None:
    ids = tokens(N_DOCUMENT)
    logits = []
    for implementation in ("sdpa", "eager"):
        model = make_model(name, attn_implementation=implementation)
        runtime = Runtime(model, attention="model")
        prefix = prefill(runtime, ids.tolist())
        logits.append(batch_logits(runtime, prefix, random_tails()))
    assert distance(*logits) < TOLERANCE


# ---------------------------------------------------------------- gradients


class _ReferenceLayer(DynamicLayer):
    """Full-row keys and values, of which the document's are replaced by detached base ones."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self._detached = keys.detach(), values.detach()

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        return tuple(
            torch.cat([frozen, new[..., frozen.shape[-2] :, :]], dim=-2)
            for frozen, new in zip(self._detached, (key_states, value_states), strict=True)
        )


def reference_loss(
    model: PreTrainedModel,
    runtime: Runtime,
    prefix: FrozenPrefix,
    ids: torch.Tensor,
    batch: PackedBatch,
) -> torch.Tensor:
    """The loss by full attention over [document + tails], with a mask written out by hand."""
    behind = batch.segment_ids is not None
    row = torch.cat([ids, batch.input_ids]) if behind else ids
    positions = list(range(len(ids)))
    owners = [-1] * len(ids)
    if behind:
        positions += batch.position_ids.tolist()
        owners += batch.segment_ids.tolist()  # type: ignore[union-attr]
    masks = {}
    for kind, window in runtime.architecture.windows.items():
        mask = torch.full((len(row), len(row)), torch.finfo(torch.float32).min)
        for i in range(len(row)):
            for j in range(i + 1):
                near = window is None or positions[i] - positions[j] < window
                if owners[j] in (-1, owners[i]) and near:
                    mask[i, j] = 0
        masks[kind] = mask[None, None]
    layers = [_ReferenceLayer(*pair) for pair in zip(prefix.keys, prefix.values, strict=True)]
    out = model(
        row[None],
        position_ids=torch.tensor(positions)[None],
        attention_mask=next(iter(masks.values())) if len(masks) == 1 else masks,
        past_key_values=Cache(layers=layers),
    )
    at = len(ids) + (batch.labels != IGNORE).nonzero()[:, 0] if behind else batch.position_ids
    return functional.cross_entropy(out.logits[0][at], batch.labels[batch.labels != IGNORE])


@pytest.mark.parametrize("parametrization", ["lora", "full"])
@pytest.mark.parametrize("kind", ["span", "cloze"])
def test_gradient_equals_hand_masked_full_attention(
    any_model: PreTrainedModel, parametrization: str, kind: str, attention: str, record: Record
) -> None:
    ids = tokens(N_DOCUMENT)
    runtime = Runtime(any_model, attention=attention)
    prefix = prefill(runtime, ids.tolist())
    adapter = random_adapter(runtime, parametrization)
    batch = random_tails() if kind == "cloze" else random_positions(ids)
    found = batch_gradients(runtime, prefix, batch, adapter)
    with adapter.bound(any_model):
        loss = reference_loss(any_model, runtime, prefix, ids, batch)
        expected = torch.autograd.grad(loss, adapter.parameters())
    scale = max(gradient.abs().max().item() for gradient in expected)
    assert scale > 0
    difference = max(
        (one - other).abs().max().item() / scale for one, other in zip(found, expected, strict=True)
    )
    record(f"{kind} gradient = by hand", difference)
    assert difference < 1e-4


def test_fused_projections_change_queries_only(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    """One real optimiser step must leave the key and value rows' LoRA weights at zero."""
    for name in ("phi3-fused-sliding", "gpt-neox-fused"):
        runtime = Runtime(make_model(name))
        prefix = prefill(runtime, tokens(N_DOCUMENT).tolist())
        adapter = QueryAdapter.create(runtime.architecture.projections, AdaptationConfig())
        gradients = batch_gradients(runtime, prefix, random_tails(), adapter)
        names = list(adapter.state_dict())
        by_name = dict(zip(names, gradients, strict=True))
        for projection in runtime.architecture.projections:
            assert projection.rows is not None
            gradient = by_name[f"base_model.model.{projection.name}.lora_B.weight"]
            others = torch.ones(len(gradient), dtype=torch.bool)
            others[projection.rows] = False
            assert not gradient[others].any()
            assert gradient[projection.rows].any()


# ---------------------------------------------------------------- adapters


def test_an_untrained_adapter_changes_nothing(any_model: PreTrainedModel, record: Record) -> None:
    ids = tokens(N_DOCUMENT)
    runtime = Runtime(any_model)
    expected = full_logits(any_model, ids)
    for parametrization in ("lora", "full"):
        config = AdaptationConfig.model_validate({"parametrization": parametrization})
        adapter = QueryAdapter.create(runtime.architecture.projections, config)
        with adapter.bound(any_model):
            difference = distance(full_logits(any_model, ids), expected)
        record("zero steps = base", difference)
        assert difference == 0


def test_binding_leaves_nothing_behind(any_model: PreTrainedModel, record: Record) -> None:
    ids = tokens(N_DOCUMENT)
    runtime = Runtime(any_model)
    weights = {name: weight.clone() for name, weight in any_model.state_dict().items()}
    modules = dict(any_model.named_modules())
    before = full_logits(any_model, ids)
    for parametrization in ("lora", "full"):
        adapter = random_adapter(runtime, parametrization)
        with adapter.bound(any_model):
            assert not torch.equal(full_logits(any_model, ids), before)
    assert dict(any_model.named_modules()) == modules
    assert all(torch.equal(weights[name], w) for name, w in any_model.state_dict().items())
    assert torch.equal(full_logits(any_model, ids), before)
    assert all(parameter.grad is None for parameter in any_model.parameters())
    record("attach, detach = untouched", 0.0)


# ---------------------------------------------------------------- the whole engine

QUICK = AdaptationConfig(steps=3, learning_rate=1e-3, gate=False, r=4, clozes_per_step=4)


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, store: Path
) -> TTTEngine:
    return TTTEngine(model, tokenizer, adaptation=QUICK, store=store)


def test_engine_equalities(
    any_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    record: Record,
) -> None:
    """Stored = fresh, batch = one by one, stream = joined, K,V and model bit-intact."""
    weights = {name: weight.clone() for name, weight in any_model.state_dict().items()}
    engine = make_engine(any_model, tokenizer, tmp_path)
    adapted = engine.adapt(DOCUMENT)
    assert adapted.adapter is not None
    prefix = adapted.prefix
    stored_kv = [tensor.clone() for tensor in (*prefix.keys, *prefix.values)]
    questions = ["where is the cup?", "the", "where is the saw, and where is the pot?"]

    alone = [engine.generate(adapted, q, max_new_tokens=8) for q in questions]
    batch = engine.generate_batch(adapted, questions, max_new_tokens=8)
    assert [a.token_ids for a in batch] == [a.token_ids for a in alone]
    record("batch = one by one", 0.0)

    for question, answer in zip(questions, alone, strict=True):
        assert "".join(engine.stream(adapted, question, max_new_tokens=8)) == answer.text
    record("stream = joined", 0.0)

    engine.reset()
    again = engine.adapt(DOCUMENT)
    assert (adapted.source, again.source) == ("trained", "store")
    assert again.report == adapted.report
    assert again.adapter is not None
    fresh, loaded = adapted.adapter.state_dict(), again.adapter.state_dict()
    assert all(torch.equal(fresh[name], loaded[name]) for name in fresh)
    assert engine.generate(again, questions[0], max_new_tokens=8).token_ids == alone[0].token_ids
    record("stored = fresh", 0.0)

    assert all(
        torch.equal(before, after)
        for before, after in zip(stored_kv, (*prefix.keys, *prefix.values), strict=True)
    )
    assert all(torch.equal(weights[name], w) for name, w in any_model.state_dict().items())
    record("K,V and weights intact", 0.0)


def test_same_document_seed_and_recipe_give_the_same_bytes(
    any_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, record: Record
) -> None:
    states = []
    for attempt in ("first", "second"):
        torch.manual_seed(len(attempt))  # The caller's random state must not matter.
        adapted = make_engine(any_model, tokenizer, tmp_path / attempt).adapt(DOCUMENT)
        assert adapted.adapter is not None
        states.append(adapted.adapter.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    record("same seed = same bytes", 0.0)


def test_greedy_answers_equal_transformers_generate(
    any_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, record: Record
) -> None:
    engine = make_engine(any_model, tokenizer, tmp_path)
    read = engine.read(DOCUMENT[:200])
    ours = engine.generate(read, "where is the cup?", max_new_tokens=8)
    message = {"role": "user", "content": f"{DOCUMENT[:200].strip()}\n\nwhere is the cup?"}
    ids = tokenizer.apply_chat_template(
        [message], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    theirs = any_model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
    )
    generated = [token for token in theirs[0, ids.shape[1] :].tolist() if token not in (0, 2)]
    assert list(ours.token_ids) == generated
    record("greedy = transformers", 0.0)
