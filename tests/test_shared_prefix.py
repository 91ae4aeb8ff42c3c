"""Shared-prefix attention inside models: no copies, no worse rounding, nothing left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import AdaptationConfig, RuntimeConfig, TTTEngine, UnsupportedModelError
from ttt_core.adapter import QueryAdapter
from ttt_core.attention import ModelAttention, SharedPrefixAttention, Tails, reference
from ttt_core.attention.shared import IMPLEMENTATION
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefill import prefill
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.runtime import Runtime

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MakeModel = Callable[..., PreTrainedModel]
TOLERANCE = 2e-5  # fp32, relative to logits of order one

both_paths = pytest.mark.parametrize("attention", ["auto", "model"])


def tokens(n: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(seed))


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    assert left.shape == right.shape
    return (left - right).abs().max().item() / max(right.abs().max().item(), 1.0)


def full_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids[None]).logits[0].float()


def advance(
    runtime: Runtime, tails: Tails, start: int, new: dict[int, tuple[int, torch.Tensor]]
) -> torch.Tensor:
    """Compute tokens of some tails, `{segment: (tokens it has already, new tokens)}`."""
    ids = torch.cat([part for _, part in new.values()])
    ranges = [torch.arange(len(part)) + start + before for before, part in new.values()]
    segments = [torch.full((len(part),), segment) for segment, (_, part) in new.items()]
    with runtime.turn() as model, torch.no_grad():
        return tails.forward(
            model,
            input_ids=ids,
            position_ids=torch.cat(ranges),
            segment_ids=torch.cat(segments),
            logits_at=torch.arange(len(ids)),
        )


def two_tails(start: int) -> PackedBatch:
    rows = [tokens(n, seed=n).tolist() for n in (3, 2)]
    labels = [[IGNORE, *row[1:]] for row in rows]
    return PackedBatch.of_tails(rows, labels, start=start)


def in_place(ids: torch.Tensor) -> PackedBatch:
    positions = torch.tensor([7, 8, 20, len(ids) - 9, len(ids) - 2])
    return PackedBatch(ids[positions], positions, ids[positions + 1], None)


def train_once(runtime: Runtime, prefix: FrozenPrefix, batch: PackedBatch) -> None:
    adapter = QueryAdapter.create(runtime.architecture.projections, AdaptationConfig(r=4))
    with runtime.turn(adapter) as model:
        logits = runtime.attention.forward_batch(model, prefix, batch)
        functional.cross_entropy(logits, batch.targets).backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in adapter.parameters())
    runtime.model.zero_grad()


def step(runtime: Runtime, prefix: FrozenPrefix, ids: torch.Tensor, work: str) -> None:
    """One of the things that are done with a document."""
    if work == "decode":
        tails = runtime.attention.tails(prefix)
        advance(runtime, tails, len(prefix), {0: (0, tokens(3)), 1: (0, tokens(2))})
        advance(runtime, tails, len(prefix), {0: (3, tokens(1)), 1: (2, tokens(1))})
        advance(runtime, tails, len(prefix), {1: (3, tokens(1))})
    else:
        train_once(runtime, prefix, two_tails(len(prefix)) if work == "tails" else in_place(ids))


# ---------------------------------------------------------------- the document is there once

N_DOCUMENT = 450
LARGE = 400  # Nothing else in these models is that long, their vocabulary included.


class NewMemory(TorchDispatchMode):
    """Records the shape of everything that is computed into memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[str, torch.Size]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = _storages((args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and not given & _storages(tensor):
                self.shapes.append((str(function), tensor.shape))
        return result


def _storages(tree: Any) -> set[int]:
    leaves = tree_leaves(tree)
    return {leaf.untyped_storage().data_ptr() for leaf in leaves if isinstance(leaf, torch.Tensor)}


def copies(memory: NewMemory, prefix: FrozenPrefix) -> list[tuple[str, torch.Size]]:
    """What looks like the keys or values of a document, whole or transposed or flattened."""
    widths = {tensor.shape[-1] for pair in prefix.pairs for tensor in pair}
    widths |= {sum(tensor.shape[-1] for tensor in pair) for pair in prefix.pairs}  # Joined latents.
    sizes = {tensor.numel() for pair in prefix.pairs for tensor in pair}

    def is_copy(shape: torch.Size) -> bool:
        *_, rows, columns = (1, 1, *shape)
        narrow, long = sorted((rows, columns))
        return shape.numel() in sizes or (long > LARGE and narrow in widths)

    return [(function, shape) for function, shape in memory.shapes if is_copy(shape)]


@pytest.fixture
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PyTorch may join or convert a tile of the keys at a time: make tiles small."""
    monkeypatch.setattr(reference, "_TILE_SCORES", {"cpu": 1})


WORK = ["decode", "tails", "in place"]
COPIED_FROM = ["llama", "gemma2-mixed-softcap", "gpt-oss-sinks", "deepseek-v3-mla"]


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("name", COPIED_FROM)
def test_the_document_is_never_copied(name: str, work: str, make_model: MakeModel) -> None:
    runtime, ids = Runtime(make_model(name)), tokens(N_DOCUMENT)
    prefix = prefill(runtime, ids.tolist())
    before = [tensor.clone() for pair in prefix.pairs for tensor in pair]
    with NewMemory() as memory:
        step(runtime, prefix, ids, work)
    assert len(memory.shapes) > 100
    assert copies(memory, prefix) == []
    after = [tensor for pair in prefix.pairs for tensor in pair]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("name", COPIED_FROM)
def test_the_check_for_copies_finds_those_of_the_models_own_attention(
    name: str, make_model: MakeModel
) -> None:
    runtime, ids = Runtime(make_model(name), attention="model"), tokens(N_DOCUMENT)
    prefix = prefill(runtime, ids.tolist())
    with NewMemory() as memory:
        step(runtime, prefix, ids, "decode")
    assert len(copies(memory, prefix)) >= 2 * runtime.architecture.n_layers


@pytest.mark.parametrize("work", WORK)
def test_a_training_pass_runs_backward_under_the_check(work: str, make_model: MakeModel) -> None:
    """The check would be worth nothing if the backward pass went by unseen."""
    runtime, ids = Runtime(make_model("llama")), tokens(N_DOCUMENT)
    prefix = prefill(runtime, ids.tolist())
    with NewMemory() as memory:
        step(runtime, prefix, ids, work)
    seen = any("backward" in function for function, _ in memory.shapes)
    assert seen == (work != "decode")


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("work", ["tails", "in place"])
def test_half_precision_is_as_exact_as_the_models_own(
    any_model: PreTrainedModel, work: str
) -> None:
    """Both against the model in fp32, on the same rounded weights."""
    half = any_model.bfloat16()
    whole = copy.deepcopy(half).float()
    ids = tokens(40)
    batch = two_tails(40) if work == "tails" else in_place(ids)
    logits = []
    for model, attention in ((whole, "model"), (half, "model"), (half, "auto")):
        runtime = Runtime(model, attention=attention)  # type: ignore[arg-type]
        prefix = prefill(runtime, ids.tolist())
        with runtime.turn() as lent, torch.no_grad():
            logits.append(runtime.attention.forward_batch(lent, prefix, batch))
    exact, own, shared = logits
    mean = (own - exact).abs().mean(), (shared - exact).abs().mean()
    assert mean[0] > 0
    assert mean[1] <= 2 * mean[0] + 1e-3


# ---------------------------------------------------------------- which path, and its name

THINGS = ["key", "cup", "map", "pen", "hat"] * 4
TEXT = "\n".join(f"the {thing} is in room {i}." for i, thing in enumerate(THINGS))
QUESTION = "where is the cup?"
QUICK = AdaptationConfig(steps=2, learning_rate=1e-3, gate=False, r=4, clozes_per_step=4)
NAMES = {
    "auto": "shared_prefix (cpu_flash)",
    "reference": "shared_prefix (reference)",
    "model": "model (sdpa)",
}


def test_the_path_changes_names_in_reports_and_no_answers(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    answers = {}
    for attention, name in NAMES.items():
        settings = RuntimeConfig(attention=attention)  # type: ignore[arg-type]
        with TTTEngine(
            make_model("llama"), tokenizer, runtime=settings, store=tmp_path / attention,
            adaptation=QUICK,
        ) as engine:  # fmt: skip
            adapted = engine.adapt(TEXT)
            assert adapted.report is not None
            assert adapted.report.attention == name
            answer = engine.generate(adapted, QUESTION, max_new_tokens=12)
            assert answer.timing.attention == name
            answers[attention] = answer.token_ids
    assert len(answers["auto"]) > 1
    assert len(set(answers.values())) == 1


def test_a_model_that_finds_its_attention_otherwise_keeps_its_own(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = []
    for name in ("shared_prefix", "model"):
        with TTTEngine(model, tokenizer, store=tmp_path) as engine:
            answer = engine.generate(engine.read(TEXT), QUESTION, max_new_tokens=12)
        assert answer.timing.attention.startswith(name)
        answers.append(answer.token_ids)
        monkeypatch.setattr(type(model), "_supports_attention_backend", False)
    assert len(answers[0]) > 1
    assert answers[0] == answers[1]


class Quantised(nn.Linear):
    """Stands for layers whose `weight` is not the matrix."""


@pytest.mark.parametrize("kind", ["plain", "biased", "quantised"])
def test_latent_attention_that_cannot_be_absorbed_keeps_its_own(
    kind: str, make_model: MakeModel
) -> None:
    model = make_model("deepseek-v3-mla")
    for layer in model.base_model.layers:
        old = layer.self_attn.kv_b_proj
        shape = old.in_features, old.out_features
        new = {"plain": nn.Linear, "biased": nn.Linear, "quantised": Quantised}[kind](
            *shape, bias=kind == "biased"
        )
        new.weight = old.weight
        layer.self_attn.kv_b_proj = new
    runtime, ids = Runtime(model), tokens(30)
    expected_path = SharedPrefixAttention if kind == "plain" else ModelAttention
    assert isinstance(runtime.attention, expected_path)
    prefix = prefill(runtime, ids[:20].tolist())
    found = advance(runtime, runtime.attention.tails(prefix), 20, {0: (0, ids[20:])})
    assert distance(found, full_logits(model, ids)[20:]) < TOLERANCE


def test_attention_that_nobody_knows_is_refused(model: PreTrainedModel) -> None:
    """As that of a model that calls it without handing down what we give it."""
    with Runtime(model).turn() as lent, pytest.raises(UnsupportedModelError, match="'model'"):
        lent(tokens(3)[None])


# ---------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_models_own_attention_comes_back(implementation: str, make_model: MakeModel) -> None:
    model, ids = make_model("gemma3-mixed", attn_implementation=implementation), tokens(20)
    runtime, before = Runtime(model), full_logits(model, ids)
    config = model.config.get_text_config()
    with runtime.turn():
        assert config._attn_implementation == IMPLEMENTATION
    assert config._attn_implementation == implementation
    with pytest.raises(KeyError), runtime.turn():
        raise KeyError
    assert config._attn_implementation == implementation
    assert torch.equal(full_logits(model, ids), before)


def test_the_owner_may_use_the_model_between_turns(model: PreTrainedModel) -> None:
    ids, runtime = tokens(30), Runtime(model)
    expected = full_logits(model, ids)
    written = model.generate(ids[None], attention_mask=torch.ones(1, 30), max_new_tokens=5)
    prefix = prefill(runtime, ids[:20].tolist(), chunk=20)
    tails = runtime.attention.tails(prefix)
    found = []
    for start in range(20, 30):
        found.append(advance(runtime, tails, 20, {0: (start - 20, ids[start : start + 1])}))
        assert torch.equal(full_logits(model, ids), expected)
    again = model.generate(ids[None], attention_mask=torch.ones(1, 30), max_new_tokens=5)
    assert torch.equal(again, written)
    assert distance(torch.cat(found), expected[20:]) < TOLERANCE


# ---------------------------------------------------------------- passes that fail, tails that go


@contextmanager
def failing(model: PreTrainedModel, layer: int = 2) -> Iterator[None]:
    """One layer raises, after those before it have written their keys and values."""

    def fail(*args: Any) -> None:
        raise KeyError("mine")

    hook = model.base_model.layers[layer].register_forward_pre_hook(fail)
    try:
        with pytest.raises(KeyError, match="mine"):
            yield
    finally:
        hook.remove()


@both_paths
@pytest.mark.parametrize("n_prefix", [0, 20])
@pytest.mark.parametrize("name", ["qwen3", "gpt-oss-sinks", "deepseek-v3-mla"])
def test_a_failed_pass_leaves_the_tails_as_they_were(
    name: str, n_prefix: int, attention: Any, make_model: MakeModel
) -> None:
    runtime = Runtime(make_model(name), attention=attention)
    prefix = prefill(runtime, tokens(n_prefix).tolist())
    steps: list[dict[int, tuple[int, torch.Tensor]]] = [
        {0: (0, tokens(4)), 5: (0, tokens(2, seed=1))},
        {5: (2, tokens(3, seed=2)), 1: (0, tokens(3, seed=3))},
        {0: (4, tokens(1, seed=4)), 1: (3, tokens(1, seed=5)), 5: (5, tokens(2, seed=6))},
    ]
    smooth, rough = runtime.attention.tails(prefix), runtime.attention.tails(prefix)
    for new in steps:
        expected = advance(runtime, smooth, n_prefix, new)
        for layer in (0, 2):
            with failing(runtime.model, layer):
                advance(runtime, rough, n_prefix, new)
        assert torch.equal(advance(runtime, rough, n_prefix, new), expected)


@both_paths
def test_a_dropped_tail_was_never_there(any_model: PreTrainedModel, attention: Any) -> None:
    runtime, ids = Runtime(any_model, attention=attention), tokens(20)
    prefix = prefill(runtime, ids.tolist())
    parts = {segment: tokens(9, seed=segment) for segment in range(4)}
    tails = runtime.attention.tails(prefix)
    advance(runtime, tails, 20, {s: (0, parts[s][: 3 + s]) for s in range(3)})
    tails.drop(0)
    tails.drop(7)  # There is none of that name.
    advance(runtime, tails, 20, {3: (0, parts[3][:2])})
    tails.drop(2)
    # And its name is free again.
    news = {3: (2, parts[3][2:]), 1: (4, parts[1][4:]), 2: (0, parts[2][1:])}
    found = advance(runtime, tails, 20, news)
    rows = (parts[3], 2), (parts[1], 4), (parts[2][1:], 0)
    expected = [
        full_logits(any_model, torch.cat([ids, row]))[20 + before :] for row, before in rows
    ]
    assert distance(found, torch.cat(expected)) < TOLERANCE


@both_paths
def test_a_failed_newcomer_does_not_keep_others_from_leaving(
    model: PreTrainedModel, attention: Any
) -> None:
    runtime = Runtime(model, attention=attention)
    tails = runtime.attention.tails(EMPTY_PREFIX)
    advance(runtime, tails, 0, {0: (0, tokens(4))})
    with failing(model):
        advance(runtime, tails, 0, {1: (0, tokens(3, seed=1))})
    tails.drop(0)
    found = advance(runtime, tails, 0, {1: (0, tokens(3, seed=1))})
    assert distance(found, full_logits(model, tokens(3, seed=1))) < TOLERANCE


def test_a_tail_that_is_not_a_number_spoils_no_other(model: PreTrainedModel) -> None:
    """Not beside it, and not in its place once it has gone."""
    runtime, poison = Runtime(model), 2  # A token that `tokens` never draws.
    prefix = prefill(runtime, tokens(20).tolist())
    tails, embeddings = runtime.attention.tails(prefix), model.get_input_embeddings().weight
    advance(runtime, tails, 20, {0: (0, tokens(2)), 1: (0, tokens(5))})
    with torch.no_grad():
        embeddings[poison] = torch.nan
    beside = advance(runtime, tails, 20, {9: (0, torch.full((8,), poison)), 0: (2, tokens(1))})
    assert beside[:8].isnan().all()
    assert beside[8:].isfinite().all()
    tails.drop(9)
    advance(runtime, tails, 20, {2: (0, tokens(1))})
    after = advance(runtime, tails, 20, {0: (3, tokens(1)), 1: (5, tokens(3)), 2: (1, tokens(1))})
    assert after.isfinite().all()


# ---------------------------------------------------------------- windows

FAR = 20


@both_paths
@pytest.mark.parametrize("n_prefix", [3, 6, 7, 8, 40])
@pytest.mark.parametrize("name", ["mistral-sliding", "gemma3-mixed", "phi3-fused-sliding"])
def test_decoding_walks_out_of_the_window(
    name: str, n_prefix: int, attention: Any, make_model: MakeModel
) -> None:
    """From documents shorter and longer than it (7), one token at a time, and beside another."""
    runtime, ids = Runtime(make_model(name), attention=attention), tokens(n_prefix + FAR)
    prefix = prefill(runtime, ids[:n_prefix].tolist(), chunk=5)
    tails = runtime.attention.tails(prefix)
    other = tokens(FAR, seed=1)
    advance(runtime, tails, n_prefix, {1: (0, other[:4])})
    found = []
    for done in range(FAR):
        one = {0: (done, ids[n_prefix + done :][:1])}
        also = {1: (4 + done, other[4 + done :][:1])} if done < FAR - 4 else {}
        found.append(advance(runtime, tails, n_prefix, {**one, **also})[0])
    assert distance(torch.stack(found), full_logits(runtime.model, ids)[n_prefix:]) < TOLERANCE


@both_paths
@pytest.mark.parametrize("n_prefix", [5, 40])
def test_a_long_tail_reads_its_window_at_once(
    n_prefix: int, attention: Any, make_model: MakeModel
) -> None:
    runtime = Runtime(make_model("mistral-sliding"), attention=attention)
    ids = tokens(n_prefix + 30)
    prefix = prefill(runtime, ids[:n_prefix].tolist())
    found = advance(runtime, runtime.attention.tails(prefix), n_prefix, {0: (0, ids[n_prefix:])})
    assert distance(found, full_logits(runtime.model, ids)[n_prefix:]) < TOLERANCE


@pytest.mark.parametrize("name", ["DiffLlama", "Nemotron"])
def test_models_that_attend_in_ways_of_their_own_keep_them(name: str) -> None:
    """They look attention up by name, but call it twice a layer, or with a mask of their own."""
    config = getattr(transformers, f"{name}Config")(**SMALL)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    runtime, ids = Runtime(model), tokens(30)
    assert runtime.attention.name.startswith("model")
    prefix = prefill(runtime, ids[:20].tolist(), chunk=7)
    found = advance(runtime, runtime.attention.tails(prefix), 20, {0: (0, ids[20:])})
    with torch.no_grad():
        expected = model(ids[None]).logits[0, 20:]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(UnsupportedModelError):
        Runtime(model, attention="reference")
