"""The trained change to a model's queries, and its binding to one forward pass.

The model is borrowed: a bound adapter takes the place of the query projections for the length of
a `with` block and leaves nothing behind, so that two requests never see each other's adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from ttt_core.config import AdaptationConfig, Parametrization
from ttt_core.errors import ConfigError
from ttt_core.queries import QueryProjection

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ADAPTER = "default"
_PEFT_PREFIX = "base_model.model."


class QueryAdapter:
    """A change of W_Q in every layer, in fp32, for one model.

    `lora` uses PEFT's LoRA layers (scaled B A, B zero at first); `full` trains a dense change of
    the query rows, which together with the untouched base weight is the paper's fp32 copy of W_Q
    (arXiv 2512.13898, App. D), except that weight decay pulls towards the base and not to zero.
    """

    def __init__(
        self,
        parametrization: Parametrization,
        projections: tuple[QueryProjection, ...],
        layers: Mapping[str, nn.Module],
    ) -> None:
        self.parametrization = parametrization
        self._projections = projections
        self._layers = dict(layers)

    @classmethod
    def create(
        cls,
        projections: tuple[QueryProjection, ...],
        config: AdaptationConfig,
    ) -> QueryAdapter:
        """Make an adapter that changes nothing yet, seeded by `config.seed`.

        Raises:
            ConfigError: `layers_to_transform` names a layer that is not there.
        """
        projections = chosen_layers(projections, config)
        build = _lora_layer if config.parametrization == "lora" else _full_layer
        layers = {}
        # PEFT draws from the global generator, which is the caller's: lend it, then restore it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            for projection in projections:
                layers[projection.name] = build(projection.module, projection.rows, config)
        return cls(config.parametrization, projections, layers)

    def parameters(self) -> list[nn.Parameter]:
        """Return the trained weights, fp32, in a fixed order."""
        return [weight for _, weight in self._named_weights()]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return copies of the trained weights on the CPU; LoRA's under PEFT's names."""
        return {name: weight.detach().cpu().clone() for name, weight in self._named_weights()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set the trained weights.

        Raises:
            ValueError: Names or shapes are not this adapter's, or more than queries would change.
        """
        own = dict(self._named_weights())
        expected = {name: tuple(weight.shape) for name, weight in own.items()}
        found = {name: tuple(weight.shape) for name, weight in state.items()}
        if expected != found:
            odd = sorted(expected.items() ^ found.items())[:4]
            raise ValueError(f"adapter weights do not fit the model; they differ in {odd}")
        for name, rows in self._rows_that_stay().items():
            if state[name][rows].any():
                raise ValueError("adapter weights would change keys and values, too")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

    def query_rows(self) -> dict[str, tuple[int, tuple[tuple[int, int], ...]]]:
        """Say where the rows of `full` changes belong in projections that make keys, too.

        Returns:
            By the names of `state_dict`: the number of all output rows, and half-open ranges of
            those that are queries, ascending. Empty where every output row is a query.
        """
        if self.parametrization == "lora":  # Its matrices are as tall as the projection.
            return {}
        return {
            f"{_PEFT_PREFIX}{one.name}.delta": (one.module.out_features, _ranges(one.rows))
            for one in self._projections
            if one.rows is not None
        }

    @contextmanager
    def bound(self, model: PreTrainedModel) -> Iterator[None]:
        """Put the adapter into `model` for the length of the block."""
        slots = [projection.parent_and_attribute(model) for projection in self._projections]
        try:
            for (parent, attribute), projection in zip(slots, self._projections, strict=True):
                setattr(parent, attribute, self._layers[projection.name])
            yield
        finally:
            for (parent, attribute), projection in zip(slots, self._projections, strict=True):
                setattr(parent, attribute, projection.module)

    def _rows_that_stay(self) -> dict[str, torch.Tensor]:
        """Masks of those rows of LoRA's B that make keys and values, where a projection does."""
        masks = {}
        for one in self._projections if self.parametrization == "lora" else ():
            if one.rows is not None:
                stays = torch.ones(one.module.out_features, dtype=torch.bool)
                stays[one.rows.cpu()] = False
                masks[f"{_PEFT_PREFIX}{one.name}.lora_B.weight"] = stays
        return masks

    def _named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, layer in self._layers.items():
            for weight_name, weight in layer.named_parameters():
                if weight_name.startswith("base_layer."):
                    continue
                yield _PEFT_PREFIX + f"{name}.{weight_name.replace(f'.{_ADAPTER}', '')}", weight


def adapter_shapes(
    projections: tuple[QueryProjection, ...], config: AdaptationConfig
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of what `QueryAdapter.state_dict` returns; imports no PEFT."""
    shapes: dict[str, tuple[int, ...]] = {}
    for projection in chosen_layers(projections, config):
        name = _PEFT_PREFIX + projection.name
        n_out, n_in = projection.module.weight.shape
        if config.parametrization == "lora":
            shapes[f"{name}.lora_A.weight"] = (config.r, n_in)
            shapes[f"{name}.lora_B.weight"] = (n_out, config.r)
        else:
            rows = projection.rows
            shapes[f"{name}.delta"] = (n_out if rows is None else len(rows), n_in)
    return shapes


def chosen_layers(
    projections: tuple[QueryProjection, ...], config: AdaptationConfig
) -> tuple[QueryProjection, ...]:
    """Return the projections of the layers that a recipe trains.

    Raises:
        ConfigError: It names a layer that is not there.
    """
    layers = config.layers_to_transform
    if layers is None:
        return projections
    if layers[-1] >= len(projections):
        raise ConfigError(
            f"layers_to_transform names layer {layers[-1]}; the model has {len(projections)}, "
            f"counted from 0"
        )
    return tuple(projections[layer] for layer in layers)


def _ranges(rows: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """Write ascending indices as half-open ranges."""
    breaks = (torch.diff(rows) != 1).nonzero().flatten() + 1
    parts = torch.tensor_split(rows.cpu(), breaks.cpu())
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)


def _lora_layer(base: nn.Linear, rows: torch.Tensor | None, config: AdaptationConfig) -> nn.Module:
    # Importing peft takes seconds, so it waits until an adapter is really needed.
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    lora = LoraConfig(r=config.r, lora_alpha=config.lora_alpha, target_modules=["unused"])
    layer = Linear(base, _ADAPTER, lora, r=config.r, lora_alpha=config.lora_alpha)
    for matrix in (layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER]):
        matrix.float()  # PEFT casts to the base's dtype; bf16 rounds these updates away.
        matrix.eval()  # Not the layer: it holds the borrowed base, which is to stay as it is.
    if rows is not None:
        _train_rows_only(cast("nn.Parameter", layer.lora_B[_ADAPTER].weight), rows)
    return layer


def _train_rows_only(weight: nn.Parameter, rows: torch.Tensor) -> None:
    """Keep the other rows of a zero-initialised weight at zero: they make keys and values."""
    keep = torch.zeros(weight.shape[0], 1, device=weight.device, dtype=weight.dtype)
    keep[rows.to(weight.device)] = 1
    weight.register_hook(lambda gradient: gradient * keep)


def _full_layer(base: nn.Linear, rows: torch.Tensor | None, config: AdaptationConfig) -> nn.Module:
    return _FullQuery(base, rows)


class _FullQuery(nn.Module):
    """A linear layer plus a dense fp32 change of its query rows.

    Shape: input (..., in_features) to (..., out_features), as the base layer.
    """

    def __init__(self, base: nn.Linear, rows: torch.Tensor | None) -> None:
        super().__init__()
        self.base_layer = base
        weight = base.weight
        self._rows = None if rows is None else rows.to(weight.device)
        n_rows = base.out_features if rows is None else len(rows)
        self.delta = nn.Parameter(
            torch.zeros(n_rows, base.in_features, dtype=torch.float32, device=weight.device)
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base_layer(hidden)
        change = functional.linear(hidden.float(), self.delta)
        if self._rows is None:
            return (out.float() + change).to(out.dtype)
        return out.float().index_add(-1, self._rows, change).to(out.dtype)
