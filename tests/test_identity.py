"""What an adapter belongs to: any change of model, tokenizer, prefix or recipe is another key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.fingerprint import (
    text_fingerprint,
    vocabulary_fingerprint,
    weights_fingerprint,
)
from ttt_core.identity import AdapterIdentity, hash_tokens, prefix_key
from ttt_core.namespace import Namespace

Make = Callable[..., PreTrainedModel]
MakeTokenizer = Callable[..., PreTrainedTokenizerFast]

CHANGES: dict[str, Any] = {
    "parametrization": "full",
    "r": 8,
    "lora_alpha": 8,
    "layers_to_transform": (1,),
    "supervision": "recurrence",
    "objective": "attention",
    "warm_start": False,
    "optimizer": "sgd",
    "steps": 7,
    "span_length": 7,
    "positions_per_step": 256,
    "clozes_per_step": 7,
    "learning_rate": 1e-3,
    "weight_decay": 0.5,
    "max_grad_norm": 0.5,
    "gate": False,
    "significance": 0.01,
    "early_stopping": False,
    "held_out": 7,
    "max_drift": 0.5,
    "max_ending_loss": 0.5,
    "seed": 1,
}
BESIDE: dict[str, dict[str, Any]] = {
    "objective": {"supervision": "retrieved"},
    "optimizer": {"learning_rate": 1e-2},
}
"""What a change cannot be without."""


def key(**changes: Any) -> str:
    own = {
        "base": "b",
        "tokenizer": "t",
        "template": "c",
        "prefix": "p",
        "config": AdaptationConfig(),
    }
    return AdapterIdentity(**{**own, **changes}).key(Namespace())


def kv_key(**changes: Any) -> str:
    own = {"base": "b", "dtype": "float32", "library": "5.20", "input_ids": (1, 2, 3)}
    return prefix_key(Namespace(), **{**own, **changes})


@cache
def small_model() -> PreTrainedModel:
    """One tiny Llama for all examples; each puts back what it changes."""
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


@given(data=st.data())
def test_every_bit_of_every_weight_counts(data: st.DataObject) -> None:
    model = small_model()
    before = weights_fingerprint(model)
    state = dict(model.named_parameters())
    name = data.draw(st.sampled_from(sorted(state)))
    words = state[name].detach().view(-1).view(torch.int32)
    at = data.draw(st.integers(0, len(words) - 1))
    bit = data.draw(st.integers(0, 31))
    mask = torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)
    words[at] ^= mask
    try:
        assert weights_fingerprint(model) != before
    finally:
        words[at] ^= mask
    assert weights_fingerprint(model) == before


@given(data=st.data())
def test_order_of_rows_and_columns_counts(data: st.DataObject) -> None:
    model = small_model()
    before = weights_fingerprint(model)
    weight = model.get_submodule("model.layers.0.mlp.up_proj").weight
    dim, i = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 7))
    j = data.draw(st.integers(0, 7).filter(lambda j: j != i))
    order = list(range(8))
    order[i], order[j] = j, i
    original = weight.data.clone()
    weight.data = original.index_select(dim, torch.tensor(order))
    try:
        assert weights_fingerprint(model) != before
    finally:
        weight.data = original


def test_exchanged_tensors_count(make_model: Make) -> None:
    model = make_model("llama")
    before = weights_fingerprint(model)
    mlp = model.get_submodule("model.layers.0.mlp")
    mlp.up_proj, mlp.gate_proj = mlp.gate_proj, mlp.up_proj
    assert weights_fingerprint(model) != before


def test_equal_across_save_and_load(any_model: PreTrainedModel, tmp_path: Path) -> None:
    """Else what was learned in one process would never be found by the next."""
    before = weights_fingerprint(any_model)
    any_model.save_pretrained(tmp_path)
    once = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert weights_fingerprint(once) == weights_fingerprint(any_model) == before
    again = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert weights_fingerprint(again) == before


def test_dtypes_are_different_models(make_model: Make) -> None:
    """Also where the bits are the same, as for zeros."""
    found = set()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = make_model("llama").to(dtype)
        for parameter in model.parameters():
            parameter.data.zero_()
        found.add(weights_fingerprint(model))
    assert len(found) == 3


def test_configuration_counts(make_model: Make) -> None:
    """The same weights with another rotation are another model."""
    plain = make_model("llama")
    other = make_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True)
    )
    assert weights_fingerprint(plain) != weights_fingerprint(other)


def test_key_is_a_file_name() -> None:
    assert len(key()) == 64
    assert set(key()) <= set("0123456789abcdef")
    assert key() == key()


def test_every_field_of_the_recipe_is_tried() -> None:
    assert CHANGES.keys() == AdaptationConfig.model_fields.keys()
    assert all(getattr(AdaptationConfig(), name) != value for name, value in CHANGES.items())


def test_every_part_of_an_identity_is_tried() -> None:
    tried = {"algorithm", "base", "tokenizer", "template", "prefix", "question", "config"}
    assert tried == AdapterIdentity.model_fields.keys()


def test_every_change_is_another_key() -> None:
    beside = [AdaptationConfig(**fields) for fields in BESIDE.values()]
    changed = [
        AdaptationConfig(**{name: value, **BESIDE.get(name, {})}) for name, value in CHANGES.items()
    ]
    recipes = [{"config": config} for config in (*beside, *changed)]
    names = ("base", "tokenizer", "template", "prefix", "question")
    parts = [{name: "other"} for name in names]
    changes = [{}, {"algorithm": 2}, *parts, *recipes]
    assert len({key(**change) for change in changes}) == len(changes)


def test_values_in_each_other_s_place_are_another_key() -> None:
    """Else a tokenizer's hash could pass for a template's."""
    assert len({key(), key(tokenizer="c", template="t"), key(base="t", tokenizer="b")}) == 3


def test_an_identity_that_was_stored_gives_the_same_key() -> None:
    config = AdaptationConfig()
    identity = AdapterIdentity(base="b", tokenizer="t", template="c", prefix="p", config=config)
    stored = AdapterIdentity.model_validate_json(identity.model_dump_json())
    assert stored == identity
    assert stored.key(Namespace()) == identity.key(Namespace())


@given(st.lists(st.integers(0, 2**40), max_size=5), st.lists(st.integers(0, 2**40), max_size=5))
def test_hashes_of_tokens_are_equal_exactly_when_the_tokens_are(
    left: list[int], right: list[int]
) -> None:
    for namespace in (Namespace(), Namespace("a", b"s" * 16)):
        found = hash_tokens(namespace, left), hash_tokens(namespace, tuple(right))
        assert (found[0] == found[1]) == (left == right)


def test_the_hash_of_tokens_is_the_same_on_every_machine() -> None:
    """SHA-256 of signed 64-bit little-endian integers."""
    ids = (1, 258, 2**40)
    words = b"".join(number.to_bytes(8, "little", signed=True) for number in ids)
    assert hash_tokens(Namespace(), ids) == hashlib.sha256(words).hexdigest()


def test_every_change_is_another_key_of_keys_and_values() -> None:
    changes = [{}, {"base": "B"}, {"dtype": "bfloat16"}, {"library": "5.21"}]
    changes += [{"input_ids": ids} for ids in ((), (1, 2), (1, 3, 2), (1, 2, 3, 0))]
    assert len({kv_key(**change) for change in changes}) == len(changes)


def test_an_adapter_s_key_is_no_key_of_keys_and_values() -> None:
    assert not {key()} & set(kv_key().split("-"))


def test_tokenizers_differ_by_their_tokens_and_templates_by_their_text(
    make_tokenizer: MakeTokenizer,
) -> None:
    more = make_tokenizer()
    more.add_tokens(["extra"])
    assert vocabulary_fingerprint(make_tokenizer()) == vocabulary_fingerprint(make_tokenizer("x"))
    assert vocabulary_fingerprint(make_tokenizer()) != vocabulary_fingerprint(more)
    found = {text_fingerprint(text) for text in ("", "a", "b", "a\n", "\ud800")}
    assert len(found) == 5


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if not enable_thinking %}<think></think>{% endif %}"
)


def test_template_variables_that_change_what_is_trained_count(
    model: PreTrainedModel, make_tokenizer: MakeTokenizer, tmp_path: Path
) -> None:
    """The prefix is the same, but clozes are trained behind another assistant start."""
    keys = set()
    for thinking in (False, True):
        options = {"enable_thinking": thinking}
        tokenizer = make_tokenizer(THINKING)
        with TTTEngine(model, tokenizer, store=tmp_path, template_kwargs=options) as engine:
            keys.add(engine.adapt("some words", config=AdaptationConfig(steps=0)).key)
    assert len(keys) == 2
