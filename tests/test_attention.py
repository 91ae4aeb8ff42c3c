"""Attention without models: the arithmetic, the kernels, who reads what, and where tails are kept.

Everything is compared with one dense softmax whose mask is written out by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch.nn import functional

from ttt_core.attention import kernels, layout, reference
from ttt_core.attention.base import Scoring
from ttt_core.attention.buffers import TailBuffers, Writing
from ttt_core.attention.kernels import Kernel, choose_kernel
from ttt_core.attention.layout import TailLayout, blocks_behind, blocks_in_place
from ttt_core.attention.merged import Merged, PrefixPart, TailPart, attend_merged
from ttt_core.attention.reference import Attended, attend, attend_backward, merge

few = settings(max_examples=30)
CPU = torch.device("cpu")
ROWS, HEADS, QUERIES, KEYS, DIM, VALUE_DIM = 2, 3, 5, 150, 6, 4
SMALL_TILES = {"cpu": 1}
"""A tile has 64 keys at least, so that `KEYS` make three."""


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int, seed: int = 0, share: float = 0.6) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def operands(n_keys: int = KEYS, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        randn(ROWS, HEADS, QUERIES, DIM, seed=seed),
        randn(ROWS, HEADS, n_keys, DIM, seed=seed + 1),
        randn(ROWS, HEADS, n_keys, VALUE_DIM, seed=seed + 2),
    )


def dense(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    scale: float,
    mask: torch.Tensor | None = None,
    softcap: float | None = None,
) -> Attended:
    """The formula, in one piece."""
    scores = query @ keys.transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return Attended(scores.softmax(-1) @ values, scores.logsumexp(-1))


def close(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor], atol: float = 1e-5) -> None:
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-4)


@pytest.fixture(params=["one tile", "several tiles"])
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "several tiles":
        monkeypatch.setattr(reference, "_TILE_SCORES", SMALL_TILES)
        monkeypatch.setattr(reference, "_FEWEST_KEYS", 64)


@pytest.fixture
def _fresh_choice() -> Iterator[None]:
    """Kernels are tried once in a process: forget what earlier tests found, and what these do."""
    choose_kernel.cache_clear()
    yield
    choose_kernel.cache_clear()


# ---------------------------------------------------------------- the reference


@given(
    rows=st.integers(1, 3),
    heads=st.integers(1, 3),
    n_queries=st.integers(1, 9),
    n_keys=st.integers(1, 200),
    value_dim=st.sampled_from([1, 6, 9]),
    masked=st.booleans(),
    tiled=st.booleans(),
    seed=st.integers(0, 99),
)
@few
def test_reference_is_scaled_dot_product_attention(
    rows: int,
    heads: int,
    n_queries: int,
    n_keys: int,
    value_dim: int,
    masked: bool,
    tiled: bool,
    seed: int,
) -> None:
    query, keys = randn(rows, heads, n_queries, DIM, seed=seed), randn(rows, heads, n_keys, DIM)
    values = randn(rows, heads, n_keys, value_dim, seed=seed + 1)
    mask = random_mask(rows, 1, n_queries, n_keys, seed=seed) if masked else None
    if mask is not None:
        mask[..., -1] = True
    with pytest.MonkeyPatch.context() as patch:
        if tiled:
            patch.setattr(reference, "_TILE_SCORES", SMALL_TILES)
            patch.setattr(reference, "_FEWEST_KEYS", 64)
        found = attend(query, (keys,), values, scale=0.7, mask=mask)
    expected = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=0.7
    )
    close(found, (expected, dense(query, keys, values, scale=0.7, mask=mask).lse))


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_not_rounded_on_the_way(dtype: torch.dtype) -> None:
    query, keys, values = (tensor.to(dtype) for tensor in operands())
    found = attend(query, (keys,), values, scale=1.0)
    assert (found.out.dtype, found.lse.dtype) == (torch.float32, torch.float32)
    close(found, dense(query.float(), keys.float(), values.float(), scale=1.0))


def test_tiles_cover_the_keys_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    query, _, values = operands(1000)
    monkeypatch.setattr(reference, "_TILE_SCORES", {"cpu": 100 * ROWS * HEADS * QUERIES})
    monkeypatch.setattr(reference, "_FEWEST_KEYS", 64)
    tiles = list(reference._tiles(query, values))
    assert [key for tile in tiles for key in range(1000)[tile]] == list(range(1000))
    assert [tile.stop - tile.start for tile in tiles] == [100] * 10


@pytest.mark.usefixtures("_tiles")
def test_keys_in_two_parts_are_joined() -> None:
    query, keys, values = operands()
    found = attend(query, (keys[..., :4], keys[..., 4:]), values, scale=0.5)
    close(found, dense(query, keys, values, scale=0.5))


@pytest.mark.usefixtures("_tiles")
def test_soft_cap_is_the_formula() -> None:
    query, keys, values = operands()
    mask = random_mask(ROWS, 1, QUERIES, KEYS)
    found = attend(query, (keys,), values, scale=2.0, mask=mask, softcap=3.0)
    close(found, dense(query, keys, values, scale=2.0, mask=mask, softcap=3.0))
    assert (found.out - attend(query, (keys,), values, scale=2.0, mask=mask).out).abs().max() > 0.01


@pytest.mark.usefixtures("_tiles")
def test_queries_that_see_no_key_answer_nothing() -> None:
    """Whether in the first tiles only, or in none."""
    query, keys, values = operands()
    mask = torch.ones(QUERIES, KEYS, dtype=torch.bool)
    mask[1] = False
    mask[2, : KEYS - 5] = False
    found = attend(query, (keys,), values, scale=1.0, mask=mask)
    assert found.lse[..., 1].isneginf().all()
    assert not found.out[..., 1, :].any()
    others = [0, 2, 3, 4]
    expected = dense(query[..., others, :], keys, values, scale=1.0, mask=mask[others])
    close((found.out[..., others, :], found.lse[..., others]), expected)


@given(data=st.data(), n_keys=st.integers(1, 30))
@few
def test_blocks_in_any_order_merge_to_all_at_once(data: st.DataObject, n_keys: int) -> None:
    query, keys, values = operands(n_keys, seed=n_keys)
    mask = random_mask(QUERIES, n_keys, seed=n_keys)
    mask[:, 0] = True
    cuts = sorted(data.draw(st.sets(st.integers(1, n_keys))) | {0, n_keys})
    blocks = [slice(*pair) for pair in pairwise(cuts)]
    parts = [
        attend(query, (keys[..., block, :],), values[..., block, :], scale=1.0, mask=mask[:, block])
        for block in data.draw(st.permutations(blocks))
    ]
    total = parts[0]
    for part in parts[1:]:
        total = merge(total, part)
    close(total, dense(query, keys, values, scale=1.0, mask=mask))


def test_merging_with_nothing_changes_nothing() -> None:
    some = attend(*_one_block(), scale=1.0)
    nothing = Attended(torch.zeros_like(some.out), torch.full_like(some.lse, -torch.inf))
    for merged in (merge(some, nothing), merge(nothing, some)):
        close(merged, some, atol=0)
    close(merge(nothing, nothing), nothing, atol=0)


def _one_block() -> tuple[torch.Tensor, tuple[torch.Tensor], torch.Tensor]:
    query, keys, values = operands()
    return query, (keys,), values


# ---------------------------------------------------------------- its gradient


def expected_gradients(
    grad: torch.Tensor, *operands: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in operands]
    return torch.autograd.grad(dense(*leaves, **options).out, leaves, grad)


OPTIONS: list[dict[str, Any]] = [
    {"scale": 0.5},
    {"scale": 0.5, "mask": random_mask(QUERIES, KEYS)},
    {"scale": 2.0, "softcap": 3.0},
    {"scale": 2.0, "softcap": 3.0, "mask": random_mask(ROWS, 1, QUERIES, KEYS)},
]
NAMES = ["plain", "masked", "capped", "masked and capped"]


@pytest.mark.usefixtures("_tiles")
@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_gradient_is_that_of_the_dense_formula(options: dict[str, Any]) -> None:
    query, keys, values = operands()
    grad = randn(ROWS, HEADS, QUERIES, VALUE_DIM, seed=9)
    out, lse = attend(query, (keys,), values, **options)
    delta = (out * grad).sum(-1)
    found = attend_backward(grad, query, (keys,), values, lse, delta, of_keys=True, **options)
    close(found, expected_gradients(grad, query, keys, values, **options))  # type: ignore[arg-type]
    alone = attend_backward(grad, query, (keys[..., :2], keys[..., 2:]), values, lse, delta,
                            **options)  # fmt: skip
    assert (alone.keys, alone.values) == (None, None)
    close([alone.query], [found.query])


@pytest.mark.parametrize("softcap", [None, 3.0])
@given(cuts=st.sets(st.integers(1, KEYS - 1), max_size=4), seed=st.integers(0, 99))
@few
def test_gradient_block_by_block_is_that_of_all_at_once(
    softcap: float | None, cuts: set[int], seed: int
) -> None:
    query, keys, values = operands(seed=seed)
    mask, grad = random_mask(QUERIES, KEYS), randn(ROWS, HEADS, QUERIES, VALUE_DIM, seed=seed + 9)
    options: dict[str, Any] = {"scale": 1.0, "softcap": softcap}
    out, lse = dense(query, keys, values, mask=mask, **options)
    to_query, to_keys, to_values = torch.zeros_like(query), [], []
    edges = [0, *sorted(cuts), KEYS]
    for start, stop in pairwise(edges):
        some = slice(start, stop)
        part = attend_backward(
            grad, query, (keys[..., some, :],), values[..., some, :], lse, (out * grad).sum(-1),
            mask=mask[:, some], of_keys=True, **options,
        )  # fmt: skip
        assert part.keys is not None
        assert part.values is not None
        to_query += part.query
        to_keys.append(part.keys)
        to_values.append(part.values)
    expected = expected_gradients(grad, query, keys, values, mask=mask, **options)
    close((to_query, torch.cat(to_keys, -2), torch.cat(to_values, -2)), expected, atol=3e-5)


# ---------------------------------------------------------------- kernels


@pytest.mark.usefixtures("_fresh_choice")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_this_cpu_has_a_fast_kernel_and_it_is_right(dtype: torch.dtype) -> None:
    kernel = choose_kernel(CPU, dtype, 16, 16)
    assert kernel.name == "cpu_flash"
    query, keys, values = (randn(2, 3, n, 16, seed=n).to(dtype) for n in (5, 201, 202))
    values = values[:, :, :201]
    found = kernel.run(query, keys, values, 0.3, None)
    expected = dense(query.float(), keys.float(), values.float(), scale=0.3)
    close(found, expected, atol=1e-5 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("band", [5, 700, 3000])
def test_the_fast_kernel_takes_masks_that_leave_it_whole_tiles_of_nothing(
    band: int, dtype: torch.dtype
) -> None:
    kernel = choose_kernel(CPU, dtype, 16, 16)
    assert kernel.takes_masks
    query, keys, values = (randn(1, 2, n, 16, seed=n).to(dtype) for n in (40, 2000, 2001))
    ends = torch.arange(40)[:, None] * 50 + 20
    mask = (torch.arange(2000) <= ends) & (torch.arange(2000) > ends - band)
    found = kernel.run(query, keys, values[:, :, :2000], 0.3, mask[None, None])
    expected = attend(query, (keys,), values[:, :, :2000], scale=0.3, mask=mask)
    close(found, expected, atol=1e-5 if dtype == torch.float32 else 2e-2)


def wrong_lse(kernel: Kernel) -> Callable[..., Attended]:
    def run(*args: Any) -> Attended:
        out, lse = kernel.run(*args)
        return Attended(out, lse + 0.01)

    return run


def wrong_out(kernel: Kernel) -> Callable[..., Attended]:
    def run(*args: Any) -> Attended:
        out, lse = kernel.run(*args)
        return Attended(out * 1.01, lse)

    return run


def wrong_shape(kernel: Kernel) -> Callable[..., Attended]:
    def run(*args: Any) -> Attended:
        out, lse = kernel.run(*args)
        return Attended(out, lse[..., None])

    return run


def not_numbers(kernel: Kernel) -> Callable[..., Attended]:
    return lambda *args: Attended(*(tensor * torch.nan for tensor in kernel.run(*args)))


def blind_to_masks(kernel: Kernel) -> Callable[..., Attended]:
    return lambda *args: kernel.run(*args[:4], None)


def absent(kernel: Kernel) -> Callable[..., Attended]:
    def run(*args: Any) -> Attended:
        raise NotImplementedError("no such operator")

    return run


FAULTS = [wrong_lse, wrong_out, wrong_shape, not_numbers, blind_to_masks, absent]


@pytest.mark.usefixtures("_fresh_choice")
@pytest.mark.parametrize("wanted", ["auto", "cpu_flash"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_refused(
    fault: Callable[[Kernel], Callable[..., Attended]],
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Kernel("cpu_flash", fault(kernels._KERNELS["cpu_flash"]), takes_masks=True)
    monkeypatch.setitem(kernels._KERNELS, "cpu_flash", broken)
    assert choose_kernel(CPU, torch.float32, 8, 8, wanted) is kernels.REFERENCE


@pytest.mark.usefixtures("_fresh_choice")
@pytest.mark.parametrize("wanted", ["reference", "cuda_flash", "cuda_efficient"])
def test_a_kernel_that_is_not_for_this_device_is_refused(wanted: str) -> None:
    assert choose_kernel(CPU, torch.float32, 8, 8, wanted) is kernels.REFERENCE


@pytest.mark.parametrize(
    ("name", "value_dim"), [("cuda_flash", 16), ("cuda_efficient", 16), ("cuda_efficient", 24)]
)
def test_cuda_operators_take_and_give_what_is_expected(name: str, value_dim: int) -> None:
    """There is no GPU here; PyTorch knows the shapes all the same."""
    shapes = ((2, 3, 5, 16), (2, 3, 67, 16), (2, 3, 67, value_dim))
    query, keys, values = (torch.empty(s, device="meta", dtype=torch.bfloat16) for s in shapes)
    out, lse = kernels._KERNELS[name].run(query, keys, values, 0.25, None)
    assert (out.shape, out.dtype) == ((2, 3, 5, value_dim), torch.float32)
    assert (lse.shape, lse.dtype) == ((2, 3, 5), torch.float32)


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        ("_scaled_dot_product_flash_attention_for_cpu", "query key value dropout_p is_causal"),
        ("_scaled_dot_product_flash_attention", "query key value dropout_p is_causal"),
        (
            "_scaled_dot_product_efficient_attention",
            "query key value attn_bias compute_log_sumexp dropout_p is_causal",
        ),
    ],
)
def test_private_operators_have_the_signature_we_call(operator: str, arguments: str) -> None:
    schema = getattr(torch.ops.aten, operator).default._schema
    names = [argument.name for argument in schema.arguments]
    assert names[: len(arguments.split())] == arguments.split()
    assert "scale" in names
    assert all(a.has_default_value() for a in schema.arguments if a.name not in arguments.split())


# ---------------------------------------------------------------- who reads what


def covered(blocks: Sequence[layout.Block], n_tokens: int, n_keys: int) -> torch.Tensor:
    """How often each (token, key) pair is read."""
    counts = torch.zeros(n_tokens, n_keys, dtype=torch.long)
    for block in blocks:
        tokens, keys, mask = block.tokens, block.keys, block.mask
        if mask is not None:
            assert mask.shape == counts[tokens, keys].shape
            assert mask.any(-1).all() or not block.full_rows
        counts[tokens, keys] += 1 if mask is None else mask.long()
    return counts


def allowed(positions: torch.Tensor, n_keys: int, window: int | None) -> torch.Tensor:
    return torch.tensor(
        [[j <= i and (window is None or i - j < window) for j in range(n_keys)]
         for i in positions.tolist()]
    ).long()  # fmt: skip


windows = st.none() | st.integers(1, 40)


@given(positions=st.sets(st.integers(0, 150), min_size=1), window=windows)
@settings(max_examples=100)
def test_tokens_in_place_read_what_lies_before_them_once(
    positions: set[int], window: int | None
) -> None:
    ascending = torch.tensor(sorted(positions))
    found = covered(blocks_in_place(ascending, window), len(ascending), 151)
    assert torch.equal(found, allowed(ascending, 151, window))


@given(
    n_prefix=st.integers(0, 80),
    ahead=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    window=windows,
)
@few
def test_tokens_behind_read_all_of_the_prefix_once(
    n_prefix: int, ahead: list[int], window: int | None
) -> None:
    positions = torch.tensor(ahead) + n_prefix
    found = covered(blocks_behind(positions, n_prefix, window), len(ahead), n_prefix)
    assert torch.equal(found, allowed(positions, n_prefix, window).view_as(found))


@given(start=st.integers(0, 5000), span=st.integers(1, 200))
@few
def test_masks_of_a_span_do_not_grow_with_the_document(start: int, span: int) -> None:
    blocks = blocks_in_place(torch.arange(start, start + span), None)
    masks = [block.mask for block in blocks if block.mask is not None]
    assert all(max(mask.shape) <= span for mask in masks)
    assert len(blocks) <= 2


@pytest.mark.parametrize(("n", "total"), [(64, 2048), (200, 2048), (512, 4096)])
def test_positions_all_over_the_document_compute_half_of_the_pairs(n: int, total: int) -> None:
    positions = torch.arange(n) * total // n
    blocks = blocks_in_place(positions, None)
    pairs = sum((b.tokens.stop - b.tokens.start) * (b.keys.stop - b.keys.start) for b in blocks)
    assert pairs < 0.75 * n * total


# ---------------------------------------------------------------- ragged tails as rows


@st.composite
def ragged(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Tokens of several rows in any interleaving, and how many keys each row has already."""
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    if draw(st.booleans()):
        rows = draw(st.permutations(rows))
    starts = draw(st.lists(st.integers(0, 9), min_size=len(counts), max_size=len(counts)))
    return rows, starts


@given(ragged())
@few
def test_rows_and_tokens_are_the_same_things(tails: tuple[list[int], list[int]]) -> None:
    rows, starts = tails
    plan = TailLayout.of(rows, starts)
    tokens = randn(1, 2, len(rows), 3)
    padded = plan.to_rows(tokens, padding=7.0)
    assert padded.shape == (len(starts), 2, max(map(rows.count, rows)), 3)
    for row in range(len(starts)):
        own = tokens[0][:, [index for index, of in enumerate(rows) if of == row]]
        assert torch.equal(padded[row, :, : own.shape[1]], own)
        assert (padded[row, :, own.shape[1] :] == 7.0).all()
    assert torch.equal(plan.to_tokens(padded), tokens)
    assert torch.equal(plan.to_tokens(plan.to_rows(tokens)), tokens)


@given(ragged(), st.none() | st.integers(1, 8))
@few
def test_masks_of_tails_are_causal_by_slot(
    tails: tuple[list[int], list[int]], window: int | None
) -> None:
    rows, starts = tails
    plan = TailLayout.of(rows, starts)
    assert plan.n_keys == max(start + rows.count(row) for row, start in enumerate(starts))
    mask = plan.mask(window)
    for row, start in enumerate(starts):
        own = torch.arange(start, start + rows.count(row))
        expected = allowed(own, plan.n_keys, window).bool()
        found = torch.ones_like(expected) if mask is None else mask[row, : len(own)]
        assert torch.equal(found, expected)


def test_tails_of_one_length_need_no_padding_and_one_token_no_mask() -> None:
    even = TailLayout.of([0, 0, 1, 1], [3, 3])
    assert (even.pad, even.unpad) == (None, None)
    assert TailLayout.of([0, 1], [4, 4]).mask(None) is None
    assert TailLayout.of([0, 1], [4, 3]).mask(None) is not None


# ---------------------------------------------------------------- where tails are kept

LAYERS = 2
names = st.integers(0, 5)
passes = st.lists(names, min_size=1, max_size=8)


class TailBuffersMachine(RuleBasedStateMachine):
    """Against a dictionary of lists. Every key is a number that is never used again."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers = TailBuffers(LAYERS)
        self.model: dict[int, list[float]] = {}
        self.written: dict[int, set[float]] = {}  # What its row may hold, failed passes included.
        self.used = 0

    @rule(segments=passes)
    def append(self, segments: list[int]) -> None:
        new, writing = self.begin(segments)
        for layer in range(LAYERS):
            self.extend(layer, segments, new, writing)
        writing.commit()
        for segment, number in zip(segments, new, strict=True):
            self.model.setdefault(segment, []).append(number)

    @rule(segments=passes, layers=st.integers(0, LAYERS))
    def fail(self, segments: list[int], layers: int) -> None:
        """A forward pass that ends after some layers."""
        new, writing = self.begin(segments)
        for layer in range(layers):
            self.extend(layer, segments, new, writing)

    @rule(segment=names)
    def drop(self, segment: int) -> None:
        self.buffers.drop(segment)
        self.model.pop(segment, None)
        self.written.pop(segment, None)

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def drop_one_of_several(self, data: st.DataObject) -> None:
        self.drop(data.draw(st.sampled_from(sorted(self.model))))

    @invariant()
    def tails_are_as_long_as_they_should_be(self) -> None:
        found = {segment: n for segment, n in self.buffers._lengths.items() if n}
        assert found == {segment: len(tail) for segment, tail in self.model.items()}

    def begin(self, segments: list[int]) -> tuple[list[float], Writing]:
        new = [float(self.used + index + 1) for index in range(len(segments))]
        self.used += len(segments)
        for segment, number in zip(segments, new, strict=True):
            self.written.setdefault(segment, set()).add(number)
        return new, self.buffers.begin(segments)

    def extend(self, layer: int, segments: list[int], new: list[float], writing: Writing) -> None:
        plan, states = writing.layout, torch.tensor(new)[None, None, :, None]
        keys, values = writing.extend(
            layer,
            plan.to_rows(states.expand(1, 2, -1, 3) * (layer + 1)),
            plan.to_rows(states.expand(1, 2, -1, 5) * -(layer + 1)),
        )
        places = range(len(segments)) if plan.unpad is None else plan.unpad.tolist()
        row_of = {s: place // plan.length for s, place in zip(segments, places, strict=True)}
        assert sorted(row_of.values()) == list(range(len(keys)))
        for segment, row in row_of.items():
            added = [number for s, number in zip(segments, new, strict=True) if s == segment]
            tail = torch.tensor(self.model.get(segment, []) + added) * (layer + 1)
            own = slice(0, len(tail))
            assert torch.equal(keys[row, :, own], tail[None, :, None].expand(2, -1, 3))
            assert torch.equal(values[row, :, own], -tail[None, :, None].expand(2, -1, 5))
            # Behind its end nothing is visible, but what another left there could be NaN.
            rest = (keys[row, :, len(tail) :] / (layer + 1)).unique().tolist()
            assert set(rest) <= {0.0, *self.written[segment]}


def test_tail_buffers_are_a_dictionary_of_lists() -> None:
    few_steps = settings(max_examples=60, stateful_step_count=20)
    run_state_machine_as_test(TailBuffersMachine, settings=few_steps)


def test_a_tail_can_be_dropped_after_a_pass_that_failed_early() -> None:
    buffers, states = TailBuffers(LAYERS), torch.ones(1, 2, 1, 3)
    for layers, segment in ((LAYERS, 0), (1, 1)):
        writing = buffers.begin([segment])
        for layer in range(layers):
            writing.extend(layer, states, states)
        if layers == LAYERS:
            writing.commit()
    buffers.drop(0)
    writing = buffers.begin([1])
    keys, _ = writing.extend(1, states * 2, states)
    assert torch.equal(keys, states * 2)


def test_capacities_double() -> None:
    """Of slots, then of rows: few reallocations, so that copying stays linear."""
    buffers, states = TailBuffers(1), torch.ones(1, 2, 1, 3)
    sizes = []
    for segment in [0] * 1000 + list(range(1, 64)):
        writing = buffers.begin([segment])
        writing.extend(0, states, states)
        writing.commit()
        assert buffers._layers[0] is not None
        sizes.append(buffers._layers[0][0].shape[::2])
    assert len(dict.fromkeys(sizes)) <= 12
    assert sizes[-1][0] < 128
    assert sizes[-1][1:] == sizes[999][1:]


# ---------------------------------------------------------------- everything merged

N_HEADS, N_KV_HEADS, N_PREFIX = 6, 2, 100


@pytest.fixture(params=["reference", "reference in tiles", "cpu_flash"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """What may compute it in turn."""
    if request.param.endswith("in tiles"):
        monkeypatch.setattr(reference, "_TILE_SCORES", SMALL_TILES)
    return kernels._KERNELS[request.param.split()[0]]


def value_dim(kernel: Kernel) -> int:
    """The reference's values may have a size of their own."""
    return VALUE_DIM if kernel is kernels.REFERENCE else DIM


def token_tensors(n: int, kernel: Kernel) -> list[torch.Tensor]:
    """Queries, keys and values of new tokens, as a model would make them."""
    heads = (N_HEADS, DIM), (N_KV_HEADS, DIM), (N_KV_HEADS, value_dim(kernel))
    return [randn(1, h, n, d, seed=n + h).requires_grad_() for h, d in heads]


def frozen_tensors(kernel: Kernel) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a prefix."""
    shape = 1, N_KV_HEADS, N_PREFIX
    return randn(*shape, DIM), randn(*shape, value_dim(kernel), seed=1)


def prefix_parts(
    blocks: Sequence[layout.Block],
    frozen: tuple[torch.Tensor, torch.Tensor],
    scoring: Scoring,
    kernel: Kernel,
) -> list[PrefixPart]:
    return [PrefixPart(block, frozen[:1], frozen[1], scoring, kernel) for block in blocks]


def by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scoring: Scoring,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One softmax over all keys, heads repeated, the sinks in a column of their own."""
    keys, values = (t.repeat_interleave(N_HEADS // N_KV_HEADS, 1) for t in (keys, values))
    scores = query @ keys.transpose(-1, -2) * scoring.scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        column = sinks[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    return scores.softmax(-1)[..., : keys.shape[-2]] @ values


variants = pytest.mark.parametrize(
    ("softcap", "sinks", "window"),
    [
        (None, None, None),
        (3.0, None, None),
        (None, randn(N_HEADS), None),
        (3.0, randn(N_HEADS), 6),
        (None, None, 6),
        (None, None, 2),
        (None, None, 104),
    ],
)


@variants
@given(tails=ragged())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tails_behind_a_prefix_are_one_dense_attention(
    kernel: Kernel,
    softcap: float | None,
    sinks: torch.Tensor | None,
    window: int | None,
    tails: tuple[list[int], list[int]],
) -> None:
    rows, scoring, frozen = tails[0], Scoring(0.8, softcap), frozen_tensors(kernel)
    plan = TailLayout.of(rows, [0] * len(tails[1]))
    slots = torch.tensor([rows[:index].count(row) for index, row in enumerate(rows)])
    positions, owners = N_PREFIX + slots, torch.tensor(rows)
    query, keys, values = token_tensors(len(rows), kernel)
    by_row = plan.to_rows(keys), plan.to_rows(values)
    parts = prefix_parts(blocks_behind(positions, N_PREFIX, window), frozen, scoring, kernel)
    part = TailPart(plan, by_row[0].detach(), by_row[1].detach(), window, scoring, kernel)
    found = attend_merged(query, Merged(parts, part, sinks), by_row, values.shape[-1])

    everyone = torch.cat([torch.arange(N_PREFIX), positions])
    mask = everyone <= positions[:, None]
    mask[:, N_PREFIX:] &= owners == owners[:, None]
    if window is not None:
        mask &= everyone > positions[:, None] - window
    all_keys, all_values = (
        torch.cat([old, new], 2) for old, new in zip(frozen, (keys, values), strict=True)
    )
    expected = by_hand(query, all_keys, all_values, mask, scoring, sinks)
    compare(found, expected, [query, keys, values])


@variants
@given(chosen=st.sets(st.integers(0, N_PREFIX - 1), min_size=1, max_size=20))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_in_place_are_one_dense_attention(
    kernel: Kernel,
    softcap: float | None,
    sinks: torch.Tensor | None,
    window: int | None,
    chosen: set[int],
) -> None:
    positions, scoring = torch.tensor(sorted(chosen)), Scoring(0.8, softcap)
    frozen, query = frozen_tensors(kernel), token_tensors(len(chosen), kernel)[0]
    parts = prefix_parts(blocks_in_place(positions, window), frozen, scoring, kernel)
    found = attend_merged(query, Merged(parts, None, sinks), None, value_dim(kernel))
    mask = allowed(positions, N_PREFIX, window).bool()
    compare(found, by_hand(query, *frozen, mask, scoring, sinks), [query])


def compare(found: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """Values and gradients."""
    close([found], [expected])
    grad = randn(*found.shape, seed=5)
    close(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        atol=3e-5,
    )


def test_without_a_gradient_nothing_is_kept_and_the_answer_is_the_same(kernel: Kernel) -> None:
    query, frozen = token_tensors(3, kernel)[0], frozen_tensors(kernel)
    blocks = blocks_behind(torch.arange(3) + N_PREFIX, N_PREFIX, None)
    merged = Merged(prefix_parts(blocks, frozen, Scoring(0.8, None), kernel), None, None)
    training = attend_merged(query, merged, None, value_dim(kernel))
    with torch.no_grad():
        asking = attend_merged(query, merged, None, value_dim(kernel))
    assert training.grad_fn is not None
    assert asking.grad_fn is None
    assert torch.equal(training, asking)
