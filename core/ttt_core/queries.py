"""Where a model's queries are made. Knows model structure; changes nothing.

Every supported decoder layer has one attention block whose queries come out of one `nn.Linear`:

    q_proj            Llama, Mistral, Qwen2/3, Qwen3-MoE, Gemma 2/3, OLMo-2, SmolLM3, ...
    q_b_proj          DeepSeek's latent attention (MLA), or q_proj where it has no query rank
    qkv_proj          Phi-3: rows are [queries | keys | values]
    query_key_value   GPT-NeoX: rows are [q | k | v] for each head in turn
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ttt_core.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUPPORTED = (
    "decoder-only models with softmax attention in every layer: Llama, Mistral, Qwen2, Qwen3, "
    "Qwen3-MoE, Gemma 2, Gemma 3 (text), Phi-3, GPT-NeoX, OLMo-2, SmolLM3, gpt-oss, DeepSeek-V3 "
    "and models built like them"
)

_FULL, _SLIDING = "full_attention", "sliding_attention"
_MASKED_ATTENTION = ("sdpa", "eager")


@dataclass(frozen=True, eq=False)
class QueryProjection:
    """One layer's query projection.

    Attributes:
        name: Dotted name of the linear module inside the model.
        module: The module itself. Kept here because, while another request's adapter is bound,
            something else goes by its name.
        rows: Output rows that are queries, or None when all are; shape (n_query_rows,).
    """

    name: str
    module: nn.Linear
    rows: torch.Tensor | None = None

    def parent_and_attribute(self, model: nn.Module) -> tuple[nn.Module, str]:
        """Return the module that holds the projection, and its attribute name there."""
        parent, _, attribute = self.name.rpartition(".")
        return model.get_submodule(parent), attribute


@dataclass(frozen=True)
class Architecture:
    """What the engine must know of a model.

    Attributes:
        projections: The query projections, first layer first.
        windows: For each kind of attention layer, its sliding window in tokens (None: no limit).
        layer_windows: The sliding window of each layer in turn.
        window: The most positions the model was made for.
        head_dim: Size of a query of one head.
        hidden_size: Width of the residual stream.
        mlp_ratio: MLP width over hidden size.
    """

    projections: tuple[QueryProjection, ...]
    windows: dict[str, int | None]
    layer_windows: tuple[int | None, ...]
    window: int
    head_dim: int
    hidden_size: int
    mlp_ratio: float

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.projections)


def inspect_model(model: PreTrainedModel) -> Architecture:
    """Find the query projections and the kinds of attention of `model`.

    Raises:
        UnsupportedModelError: The model is an encoder-decoder, keeps no K,V per token in some
            layer, or builds its queries in a way that is not known.
    """
    config = model.config.get_text_config()
    name = f"{type(model).__name__} (model_type {config.model_type!r})"
    if getattr(config, "is_encoder_decoder", False):
        raise _unsupported(name, "it is an encoder-decoder")
    projections = tuple(_projections(model, config, name))
    kinds = _layer_kinds(config, name, len(projections))
    sliding: int | None = getattr(config, "sliding_window", None)
    windows = {kind: (sliding if kind == _SLIDING else None) for kind in sorted(set(kinds))}
    return Architecture(
        projections=projections,
        windows=windows,
        layer_windows=tuple(windows[kind] for kind in kinds),
        window=int(getattr(config, "max_position_embeddings", 0) or 2**31),
        head_dim=_head_dim(config),
        hidden_size=int(config.hidden_size),
        mlp_ratio=float(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
        / config.hidden_size,
    )


def check_attention_implementation(model: PreTrainedModel) -> None:
    """Refuse attention kernels that cannot take the masks that frozen training needs.

    Raises:
        UnsupportedModelError: Neither SDPA nor eager attention is in use.
    """
    found = model.config._attn_implementation
    if found not in _MASKED_ATTENTION:
        raise UnsupportedModelError(
            f"attention implementation {found!r} cannot take per-token masks; load the model with "
            f"attn_implementation='sdpa' (or 'eager')"
        )


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device on which `model` expects its input ids."""
    return cast("torch.Tensor", model.get_input_embeddings().weight).device


def _layer_kinds(config: Any, name: str, n_layers: int) -> list[str]:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [_SLIDING if getattr(config, "sliding_window", None) else _FULL] * n_layers
    odd = sorted(set(kinds) - {_FULL, _SLIDING})
    if odd:
        raise _unsupported(name, f"it has layers of kind {', '.join(map(repr, odd))}")
    if getattr(config, "num_kv_shared_layers", 0):
        raise _unsupported(name, "some of its layers share the keys and values of others")
    return list(kinds[:n_layers])


def _projections(model: PreTrainedModel, config: Any, name: str) -> Iterator[QueryProjection]:
    names = {id(module): path for path, module in model.named_modules()}
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
        raise _unsupported(name, "it has no list of decoder layers")
    for index, layer in enumerate(layers):
        attention = _attention_block(layer)
        found = _find(attention, config) if attention is not None else None
        if found is None:
            kinds = ", ".join(type(child).__name__ for child in layer.children())
            raise _unsupported(name, f"layer {index} has no known query projection ({kinds})")
        module, rows = found
        yield QueryProjection(names[id(module)], module, rows)


def _attention_block(layer: nn.Module) -> nn.Module | None:
    for attribute in ("self_attn", "attention", "attn"):
        block = getattr(layer, attribute, None)
        if isinstance(block, nn.Module):
            return block
    return None


def _find(attention: nn.Module, config: Any) -> tuple[nn.Linear, torch.Tensor | None] | None:
    for attribute in ("q_b_proj", "q_proj"):
        module = getattr(attention, attribute, None)
        if isinstance(module, nn.Linear):
            return module, None
    heads, head_dim = config.num_attention_heads, _head_dim(config)
    module = getattr(attention, "qkv_proj", None)
    if isinstance(module, nn.Linear):
        return module, torch.arange(heads * head_dim)
    module = getattr(attention, "query_key_value", None)
    if isinstance(module, nn.Linear) and config.model_type == "gpt_neox":
        per_head = torch.arange(module.out_features).view(heads, 3, head_dim)
        return module, per_head[:, 0].reshape(-1)
    return None


def _head_dim(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _unsupported(name: str, found: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{name} cannot be adapted: {found}. Supported are {SUPPORTED}.")
