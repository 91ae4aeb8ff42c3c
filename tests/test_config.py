"""Settings values: closed, bounded, frozen."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ttt_core import AdaptationConfig, GenerationConfig, RuntimeConfig
from ttt_core.config import Settings
from ttt_core.sampling import Sampler

CONFIGS = [AdaptationConfig, GenerationConfig, RuntimeConfig]


@pytest.mark.parametrize(
    ("config", "typo", "meant"),
    [
        (AdaptationConfig, "learningrate", "learning_rate"),
        (AdaptationConfig, "step", "steps"),
        (AdaptationConfig, "loraalpha", "lora_alpha"),
        (GenerationConfig, "temprature", "temperature"),
        (GenerationConfig, "max_tokens", "max_new_tokens"),
        (RuntimeConfig, "prefil_chunk", "prefill_chunk"),
    ],
)
def test_unknown_option_names_the_meant_one(config: type[Settings], typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"{typo}.*did you mean '{meant}'"):
        config(**{typo: 1})


@pytest.mark.parametrize("config", CONFIGS)
def test_option_like_no_other_lists_all(config: type[Settings]) -> None:
    with pytest.raises(ValueError, match="unknown option 'zzz'") as caught:
        config(zzz=1)
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in config.model_fields)


@pytest.mark.parametrize(
    ("config", "name", "bad", "good"),
    [
        (AdaptationConfig, "r", 0, 1),
        (AdaptationConfig, "lora_alpha", 0, 1),
        (AdaptationConfig, "steps", -1, 0),
        (AdaptationConfig, "span_length", 0, 1),
        (AdaptationConfig, "clozes_per_step", 0, 1),
        (AdaptationConfig, "learning_rate", 0.0, 1e-6),
        (AdaptationConfig, "learning_rate", 1.0, 0.5),
        (AdaptationConfig, "learning_rate", -1e-3, 1e-3),
        (AdaptationConfig, "learning_rate", "fast", "auto"),
        (AdaptationConfig, "weight_decay", -0.1, 0.0),
        (AdaptationConfig, "max_grad_norm", 0.0, 0.1),
        (AdaptationConfig, "significance", 0.0, 0.01),
        (AdaptationConfig, "significance", 0.5, 0.49),
        (AdaptationConfig, "held_out", 1, 2),
        (AdaptationConfig, "max_drift", 0.0, 0.1),
        (AdaptationConfig, "seed", -1, 0),
        (AdaptationConfig, "parametrization", "qlora", "full"),
        (AdaptationConfig, "supervision", "spans", "random_span"),
        (GenerationConfig, "max_new_tokens", 0, 1),
        (GenerationConfig, "temperature", -0.1, 0.0),
        (GenerationConfig, "top_p", 0.0, 0.1),
        (GenerationConfig, "top_p", 1.1, 1.0),
        (GenerationConfig, "top_k", -1, 0),
        (GenerationConfig, "min_p", 1.1, 1.0),
        (GenerationConfig, "repetition_penalty", 0.0, 0.5),
        (GenerationConfig, "top_logprobs", 21, 20),
        (RuntimeConfig, "max_batch_size", 0, 1),
        (RuntimeConfig, "train_chunk", 0, 1),
        (RuntimeConfig, "prefill_chunk", 0, 1),
        (RuntimeConfig, "answer_reserve", 0, 1),
        (RuntimeConfig, "on_overflow", "truncate", "keep_end"),
        (RuntimeConfig, "max_kv_bytes", -1, 0),
        (RuntimeConfig, "max_host_kv_bytes", -1, 0),
        (RuntimeConfig, "max_disk_kv_bytes", -1, 0),
        (RuntimeConfig, "max_adapter_bytes", -1, 0),
    ],
)
def test_bounds(config: type[Settings], name: str, bad: Any, good: Any) -> None:
    assert getattr(config(**{name: good}), name) == good
    with pytest.raises(ValidationError, match=name):
        config(**{name: bad})


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (config, name)
        for config in CONFIGS
        for name, field in config.model_fields.items()
        if "float" in str(field.annotation)
    ],
)
def test_nan_is_no_setting(config: type[Settings], name: str) -> None:
    with pytest.raises(ValidationError):
        config(**{name: math.nan})


@pytest.mark.parametrize("config", CONFIGS)
def test_frozen(config: type[Settings]) -> None:
    settings = config()
    name, value = next(iter(settings.model_dump().items()))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, value)


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_settings_are_one_dictionary_key(config: type[Settings]) -> None:
    same = config.model_validate(config().model_dump())
    assert len({config(), same}) == 1


def test_different_settings_differ() -> None:
    assert len({AdaptationConfig(), AdaptationConfig(seed=1), AdaptationConfig(steps=1)}) == 3


@given(
    learning_rate=st.just("auto") | st.floats(1e-9, 0.99),
    weight_decay=st.floats(0, 10),
    seed=st.integers(0, 2**63 - 1),
)
def test_dump_is_stable(learning_rate: Any, weight_decay: float, seed: int) -> None:
    """The dump is part of a stored adapter's key: a round trip must give the same bytes."""
    config = AdaptationConfig(learning_rate=learning_rate, weight_decay=weight_decay, seed=seed)
    dump = json.dumps(config.model_dump(mode="json"))
    again = AdaptationConfig.model_validate(json.loads(dump))
    assert again == config
    assert json.dumps(again.model_dump(mode="json")) == dump


def test_stop_is_several_strings() -> None:
    assert GenerationConfig(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="stop"):
        GenerationConfig(stop="END")  # type: ignore[arg-type]  # Not E, N and D.


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValidationError, match="empty string"):
        GenerationConfig(stop=("a", ""))


@given(st.integers(-(2**70), 2**70))
def test_every_accepted_seed_can_be_used(seed: int) -> None:
    try:
        config = GenerationConfig(seed=seed)
    except ValidationError:
        return
    assert Sampler(config)
