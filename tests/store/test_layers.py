"""An adapter of some layers only: stored, exported, loaded by PEFT, imported back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import AdaptationConfig, AdaptedDocument, AdapterStore, TTTEngine

# PEFT 0.21 asks a model for it by the name that transformers 5.23 gave up.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)

MakeModel = Callable[..., PreTrainedModel]
TEXT = "\n".join(f"the {key} is in room {i}." for i, key in enumerate(["key", "cup", "map", "pen"]))
IDS = torch.arange(3, 40)[None]


def recipe(*layers: int, **options: Any) -> AdaptationConfig:
    return AdaptationConfig(
        steps=3, learning_rate=1e-2, gate=False, r=4, layers_to_transform=layers or None, **options
    )


def learned(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    store: AdapterStore,
    config: AdaptationConfig,
) -> AdaptedDocument:
    adapted = TTTEngine(model, tokenizer, adaptation=config, store=store).adapt(TEXT)
    assert adapted.adapter is not None
    return adapted


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("parametrization", ["lora", "full"])
@pytest.mark.parametrize("layers", [(1,), (0, 2)])
def test_peft_changes_those_layers_and_no_others(
    layers: tuple[int, ...],
    parametrization: Any,
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    model, store = make_model("qwen3"), AdapterStore(tmp_path / "store")
    config = recipe(*layers, parametrization=parametrization)
    adapted = learned(model, tokenizer, store, config)
    assert adapted.adapter is not None
    store.export(adapted.key, tmp_path / "peft", rank=32 if parametrization == "full" else None)
    loaded: Any = PeftModel.from_pretrained(make_model("qwen3"), tmp_path / "peft")
    with adapted.adapter.bound(model):
        ours = logits(model)
    torch.testing.assert_close(logits(loaded), ours, rtol=1e-4, atol=1e-4)
    assert (ours - logits(model)).abs().max() > 1e-3
    changed = [
        index
        for index, layer in enumerate(loaded.base_model.model.model.layers)
        if any(weight.any() for name, weight in layer.named_parameters() if "lora_B" in name)
    ]
    assert changed == list(layers)


def test_an_import_is_found_under_its_recipe_and_no_other(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, store = make_model("qwen3"), AdapterStore(tmp_path / "store")
    before = learned(model, tokenizer, store, recipe(1))
    store.export(before.key, tmp_path / "peft")
    other = AdapterStore(tmp_path / "other")
    other.import_(tmp_path / "peft")
    again = learned(model, tokenizer, other, recipe(1))
    assert (again.source, again.key) == ("store", before.key)
    assert before.adapter is not None
    assert again.adapter is not None
    state = before.adapter.state_dict()
    assert {name.split(".")[4] for name in state} == {"1"}
    assert all(torch.equal(again.adapter.state_dict()[name], state[name]) for name in state)
    assert learned(model, tokenizer, other, recipe()).source == "trained"
