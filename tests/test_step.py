"""One optimiser step: the same whatever the chunk, counted right, and no harm when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig
from ttt_core.adapter import QueryAdapter
from ttt_core.drift import measure_drift
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix
from ttt_core.runtime import Runtime
from ttt_core.step import Activations, NonFiniteLossError, make_optimizer, training_step

N_DOCUMENT = 60


def tokens(n: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def runtime(model: PreTrainedModel) -> Runtime:
    return Runtime(model)


@pytest.fixture
def prefix(runtime: Runtime) -> FrozenPrefix:
    return prefill(runtime, tokens(N_DOCUMENT).tolist())


def make_adapter(runtime: Runtime, parametrization: Any = "full", *, r: int = 4) -> QueryAdapter:
    config = AdaptationConfig(parametrization=parametrization, r=r)
    return QueryAdapter.create(runtime.architecture.projections, config)


def tails(*lengths: int, unlabelled: Sequence[int] = ()) -> PackedBatch:
    """Tails behind the document, all but their first tokens labelled."""
    rows = [tokens(length, seed=length).tolist() for length in lengths]
    labels = [[IGNORE] * len(row) if index in unlabelled else [IGNORE, *row[1:]]
              for index, row in enumerate(rows)]  # fmt: skip
    return PackedBatch.of_tails(rows, labels, start=N_DOCUMENT)


def in_place(*positions: int, labelled: Sequence[int] | None = None) -> PackedBatch:
    ids, at = tokens(N_DOCUMENT), torch.tensor(positions)
    labels = ids[at + 1]
    if labelled is not None:
        labels[[index not in labelled for index in range(len(at))]] = IGNORE
    return PackedBatch(ids[at], at, labels, None)


def step(
    runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch, **options: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and weights after one step from zero, by plain gradient descent.

    (AdamW's first step is nearly the gradient's sign: it would hide a wrong scale, and blow up
    rounding.)
    """
    adapter = make_adapter(runtime)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=10.0)
    loss = training_step(
        runtime, prefix, adapter, optimizer, batch, max_grad_norm=torch.inf, **options
    )
    return loss, adapter.state_dict()


# ---------------------------------------------------------------- chunks

BATCHES = {
    "tails": tails(5, 9, 3, 7, 12),
    "tails without labels": tails(5, 9, 3, 7, 12, unlabelled=[0, 3]),
    "one long tail": tails(2, 30, 4),
    "in place": in_place(*range(10, 30), 40, 50, 58),
    "in place, few labels": in_place(*range(10, 30), 40, 50, 58, labelled=[0, 1, 13]),
}


@pytest.mark.parametrize("chunk", [1, 4, 10, 23])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_step_is_the_same_whatever_the_chunk(
    runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch, chunk: int
) -> None:
    whole, expected = step(runtime, prefix, batch, chunk=1000)
    loss, found = step(runtime, prefix, batch, chunk=chunk)
    assert loss == pytest.approx(whole, rel=1e-5)
    scale = max(weight.abs().max().item() for weight in expected.values())
    assert scale > 1e-3
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5 * scale)


def test_the_loss_is_cross_entropy_by_label(runtime: Runtime, prefix: FrozenPrefix) -> None:
    adapter = make_adapter(runtime)
    optimizer = make_optimizer(adapter, AdaptationConfig(weight_decay=0.0), 0.1)
    batch, ids = in_place(3, 10, 40, labelled=[0, 2]), tokens(N_DOCUMENT)
    with torch.no_grad():
        logits = runtime.model(ids[None]).logits[0, [3, 40]]
    expected = functional.cross_entropy(logits, ids[[4, 41]]).item()
    losses = [training_step(runtime, prefix, adapter, optimizer, batch) for _ in range(3)]
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert losses[2] < losses[0]


def test_a_batch_is_cut_where_the_chunk_says(runtime: Runtime, prefix: FrozenPrefix) -> None:
    """And a pass whose tokens have no label is not computed."""
    sizes: list[int] = []
    hook = runtime.model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for name in BATCHES:
        step(runtime, prefix, BATCHES[name], chunk=10)
        sizes.append(0)
    hook.remove()
    # 5 | 9 | 3+7 | 12; and so on.
    assert sizes == [5, 9, 10, 12, 0, 9, 10, 12, 0, 2, 30, 4, 0, 10, 10, 3, 0, 10, 10, 0]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    most=st.integers(1, 40),
    behind=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60)
def test_splitting_covers_every_label_once(
    lengths: list[int], most: int, behind: bool, data: st.DataObject
) -> None:
    n = sum(lengths)
    labelled = data.draw(st.sets(st.integers(0, n - 1)))
    labels = torch.tensor([i if i in labelled else IGNORE for i in range(n)])
    segments = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    numbers = torch.arange(n)  # As ids and positions, so that each token is known.
    batch = PackedBatch(numbers, numbers, labels, segments if behind else None)
    parts = list(batch.split(most))
    assert [label for part in parts for label in part.targets.tolist()] == sorted(labelled)
    for part in parts:
        assert torch.equal(part.input_ids, part.position_ids)
        assert torch.equal(part.labels, labels[part.input_ids])
        if part.segment_ids is None:
            assert len(part.input_ids) <= most
            continue
        assert torch.equal(part.segment_ids, segments[part.input_ids])
        own = set(part.segment_ids.tolist())
        assert len(part.input_ids) == sum(lengths[segment] for segment in own)
        assert len(part.input_ids) <= most or len(own) == 1


# ---------------------------------------------------------------- memory


def peak(runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch, chunk: int = 1000) -> int:
    activations = Activations(runtime)
    step(runtime, prefix, batch, chunk=chunk, activations=activations)
    return activations.peak


def test_smaller_chunks_keep_less(runtime: Runtime, prefix: FrozenPrefix) -> None:
    batch = tails(*[8] * 8)
    peaks = [peak(runtime, prefix, batch, chunk) for chunk in (64, 32, 16, 8)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > 1.8 * peaks[1] > 3 * peaks[2] > 0
    assert peak(runtime, prefix, batch) == peaks[0]  # Every time the same.


def test_the_document_is_not_counted(runtime: Runtime) -> None:
    """Only what attention's own mask of a span takes may differ, and it does not either."""
    peaks = []
    for n in (60, 400):
        ids = tokens(n)
        frozen = prefill(runtime, ids.tolist())
        at = torch.arange(n - 20, n - 4)
        here = PackedBatch(ids[at], at, ids[at + 1], None)
        rows = [tokens(9).tolist(), tokens(4).tolist()]
        behind = PackedBatch.of_tails(rows, rows, start=n)
        peaks.append((peak(runtime, frozen, here), peak(runtime, frozen, behind)))
    short, long = peaks
    assert long == pytest.approx(short, rel=0.05)  # 400 tokens of K,V would be six times as much.


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_weights_are_not_counted(
    runtime: Runtime, prefix: FrozenPrefix, parametrization: str
) -> None:
    """What is kept grows in proportion to the tokens: nothing else is in it."""
    adapter = make_adapter(runtime, parametrization, r=32)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.0)
    peaks = []
    for n in (20, 40):
        activations = Activations(runtime)
        row = tokens(n).tolist()
        batch = PackedBatch.of_tails([row], [row], start=N_DOCUMENT)
        training_step(runtime, prefix, adapter, optimizer, batch, activations=activations)
        peaks.append(activations.peak)
    fixed = 2 * peaks[0] - peaks[1]
    own = sum(weight.nbytes for weight in adapter.parameters())
    assert abs(fixed) < own / 10
    assert abs(fixed) < peaks[0] / 20


def test_the_peak_is_that_of_the_largest_pass(runtime: Runtime, prefix: FrozenPrefix) -> None:
    activations, alone = Activations(runtime), peak(runtime, prefix, tails(30))
    for batch in (tails(4), tails(30), tails(4)):
        step(runtime, prefix, batch, activations=activations)
    assert activations.peak == alone


# ---------------------------------------------------------------- what must not happen


@pytest.mark.parametrize("poisoned", ["activations", "gradient"])
def test_a_loss_that_is_no_number_changes_nothing(
    runtime: Runtime, prefix: FrozenPrefix, poisoned: str
) -> None:
    adapter = make_adapter(runtime)
    optimizer = make_optimizer(adapter, AdaptationConfig(weight_decay=0.1), 0.1)
    training_step(runtime, prefix, adapter, optimizer, tails(5, 9))
    before, optimizer_before = adapter.state_dict(), repr(optimizer.state_dict())

    def spoil(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        if poisoned == "activations":
            return output * torch.nan
        output.register_hook(lambda gradient: gradient * torch.inf)
        return output

    hook = runtime.model.base_model.layers[1].mlp.register_forward_hook(spoil)
    with pytest.raises(NonFiniteLossError):
        training_step(runtime, prefix, adapter, optimizer, tails(5, 9), chunk=6)
    hook.remove()
    after = adapter.state_dict()
    assert all(torch.equal(before[name], weight) for name, weight in after.items())
    assert repr(optimizer.state_dict()) == optimizer_before
    assert any(weight.any() for weight in after.values())
    training_step(runtime, prefix, adapter, optimizer, tails(5, 9))  # And it can go on.
    assert all(weight.isfinite().all() for weight in adapter.parameters())


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_the_borrowed_model_gets_no_gradient(
    runtime: Runtime, prefix: FrozenPrefix, parametrization: str
) -> None:
    before = {name: weight.clone() for name, weight in runtime.model.state_dict().items()}
    adapter = make_adapter(runtime, parametrization)
    optimizer = make_optimizer(adapter, AdaptationConfig(weight_decay=0.1), 0.1)
    for batch in (tails(5, 9), in_place(3, 4, 30)):
        training_step(runtime, prefix, adapter, optimizer, batch, chunk=6)
    assert all(weight.requires_grad for weight in runtime.model.parameters())
    assert all(weight.grad is None for weight in runtime.model.parameters())
    after = runtime.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.grad is None for tensor in (*prefix.keys, *prefix.values))


def test_gradients_are_clipped_together(runtime: Runtime, prefix: FrozenPrefix) -> None:
    """To the norm of the whole step, however many passes it took."""
    adapter = make_adapter(runtime)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1.0)
    training_step(runtime, prefix, adapter, optimizer, tails(5, 9, 3), max_grad_norm=1e-3, chunk=5)
    moved = torch.cat([weight.detach().flatten() for weight in adapter.parameters()])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


# ---------------------------------------------------------------- drift

SUFFIXES = [tokens(n, seed=n).tolist() for n in (5, 2, 8)]


def plain_drift(model: PreTrainedModel, ids: torch.Tensor, adapter: QueryAdapter) -> float:
    """By the definition: every token by a full forward pass over everything before it.

    The document itself is read by the base: the adapted model's queries act behind it alone.
    """
    total, n_document = torch.zeros(()), len(ids)
    for suffix in SUFFIXES:
        row = torch.cat([ids, torch.tensor(suffix)])
        for _ in range(8):
            with torch.no_grad():
                base = model(row[None]).logits[0, -1].log_softmax(-1)
                cache = model(ids[None], use_cache=True).past_key_values
                with adapter.bound(model):
                    out = model(row[n_document:][None], past_key_values=cache)
            adapted = out.logits[0, -1].log_softmax(-1)
            total += (base.exp() * (base - adapted)).sum()
            row = torch.cat([row, base.argmax()[None]])
    return total.item() / (8 * len(SUFFIXES))


def test_drift_is_what_its_definition_says(runtime: Runtime, prefix: FrozenPrefix) -> None:
    adapter = make_adapter(runtime)
    assert measure_drift(runtime, prefix, SUFFIXES, adapter) == pytest.approx(0, abs=1e-6)
    optimizer = make_optimizer(adapter, AdaptationConfig(weight_decay=0.0), 0.05)
    training_step(runtime, prefix, adapter, optimizer, tails(12, 9))
    found = measure_drift(runtime, prefix, SUFFIXES, adapter)
    assert found == pytest.approx(plain_drift(runtime.model, tokens(N_DOCUMENT), adapter), rel=1e-4)
    assert found > 0.01
