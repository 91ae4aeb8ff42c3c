"""How a model is run against a frozen prefix: the shared-prefix path, and the model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ttt_core.attention import shared
from ttt_core.attention.base import Attention, Prefilling, Tails
from ttt_core.attention.kernels import choose_kernel
from ttt_core.attention.masked import ModelAttention
from ttt_core.attention.shared import SharedPrefixAttention
from ttt_core.attention.trial import is_right
from ttt_core.config import AttentionName
from ttt_core.errors import ConfigError, UnsupportedModelError
from ttt_core.queries import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ttt_core.queries import Architecture

__all__ = [
    "Attention",
    "ModelAttention",
    "Prefilling",
    "SharedPrefixAttention",
    "Tails",
    "choose_attention",
]


def choose_attention(
    model: PreTrainedModel, architecture: Architecture, wanted: AttentionName = "auto"
) -> Attention:
    """Return the fastest path that is right for `model`.

    Args:
        model: The model.
        architecture: What `inspect_model` found.
        wanted: See `RuntimeConfig.attention`.

    Raises:
        ConfigError: The kernel that was asked for does not run here.
        UnsupportedModelError: The model's own attention cannot take a mask for every token either,
            or nothing but it would be right.
    """
    if wanted == "model":
        return ModelAttention(architecture, model)
    if wanted not in ("auto", "reference"):
        _check_kernel(model, architecture, wanted)
    attention = SharedPrefixAttention(architecture, kernel=wanted)
    if shared.supports(model) and is_right(attention, model):
        return attention
    if wanted == "auto":
        return ModelAttention(architecture, model)
    raise UnsupportedModelError(
        f"{type(model).__name__} attends in a way that attention={wanted!r} does not know; "
        f"'auto' and 'model' take its own attention"
    )


def _check_kernel(model: PreTrainedModel, architecture: Architecture, wanted: str) -> None:
    device, size = input_device(model), architecture.head_dim
    if choose_kernel(device, model.dtype, size, size, wanted).name != wanted:
        raise ConfigError(
            f"attention={wanted!r} does not run on {device.type} with {model.dtype} and "
            f"head_dim {size}; 'auto' takes what does"
        )
