"""What a query adapter takes for its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig, ConfigError
from ttt_core.adapter import QueryAdapter, adapter_shapes
from ttt_core.queries import inspect_model


@pytest.mark.parametrize("name", ["phi3-fused-sliding", "gpt-neox-fused"])
def test_weights_that_would_change_keys_or_values_are_refused(
    name: str, make_model: Callable[..., PreTrainedModel]
) -> None:
    """An imported file can hold anything in the rows that training never touches."""
    projections = inspect_model(make_model(name)).projections
    adapter = QueryAdapter.create(projections, AdaptationConfig(r=2))
    state = adapter.state_dict()
    weight = state[next(key for key in state if key.endswith("lora_B.weight"))]
    rows = projections[0].rows
    assert rows is not None
    weight[rows] = 1.0
    adapter.load_state_dict(state)
    stays = next(row for row in range(len(weight)) if row not in rows)
    weight[stays, 0] = 1e-30
    with pytest.raises(ValueError, match="keys and values"):
        adapter.load_state_dict(state)
    assert all(torch.equal(adapter.state_dict()[key], value) for key, value in state.items()
               if value is not weight)  # fmt: skip


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_chosen_layers_alone_are_trained(
    make_model: Callable[..., PreTrainedModel], parametrization: Any
) -> None:
    model = make_model("qwen3")
    projections = inspect_model(model).projections
    config = AdaptationConfig(parametrization=parametrization, r=2, layers_to_transform=(0, 2))
    adapter = QueryAdapter.create(projections, config)
    shapes = {name: tuple(weight.shape) for name, weight in adapter.state_dict().items()}
    assert shapes == adapter_shapes(projections, config)
    assert {name.split(".layers.")[1][0] for name in shapes} == {"0", "2"}
    with adapter.bound(model):
        changed = [one.parent_and_attribute(model) for one in projections]
        kept = [
            getattr(*slot) is one.module for slot, one in zip(changed, projections, strict=True)
        ]
    assert kept == [False, True, False]


def test_a_layer_that_is_not_there_is_named(make_model: Callable[..., PreTrainedModel]) -> None:
    projections = inspect_model(make_model("qwen3")).projections
    config = AdaptationConfig(layers_to_transform=(1, 3))
    for use in (QueryAdapter.create, adapter_shapes):
        with pytest.raises(ConfigError, match="layer 3; the model has 3"):
            use(projections, config)
