"""What a query adapter takes for its weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from ttt_core import AdaptationConfig
from ttt_core.adapter import QueryAdapter
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
