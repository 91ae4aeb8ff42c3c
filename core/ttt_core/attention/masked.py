"""The model's own attention under a mask for every token: slower, and right for any model.

Keys and values of tails are concatenated behind the prefix's, which copies the whole document in
every layer of every forward pass, and every pair of token and key has an entry in a mask. What
shared-prefix attention does is tested against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core.attention.buffers import PrefixBuffers
from ttt_core.errors import UnsupportedModelError
from ttt_core.queries import Architecture, check_attention_implementation, input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ttt_core.attention.base import Observer
    from ttt_core.packed import PackedBatch
    from ttt_core.prefix import FrozenPrefix

_SHARED = -1

_State: TypeAlias = "tuple[torch.Tensor, torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]"


class ModelAttention:
    """The correct path for every model; see `ttt_core.attention.base.Attention`."""

    def __init__(self, architecture: Architecture, model: PreTrainedModel) -> None:
        check_attention_implementation(model)
        self.architecture = architecture
        self.name = f"model ({model.config._attn_implementation})"

    def installed(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    def tails(self, prefix: FrozenPrefix) -> _Context:
        """Begin behind `prefix`."""
        return _Context(self.architecture, prefix, self.name, in_place=False)

    def forward_batch(
        self,
        model: PreTrainedModel,
        prefix: FrozenPrefix,
        batch: PackedBatch,
        *,
        observer: Observer | None = None,
    ) -> torch.Tensor:
        """Run a whole batch once; see `ttt_core.attention.base.Attention`."""
        if observer is not None:
            raise UnsupportedModelError(
                f"attention can be looked into where it is ours, and this model keeps its own "
                f"({self.name})"
            )
        in_place = batch.segment_ids is None
        segments = torch.zeros_like(batch.input_ids) if in_place else batch.segment_ids
        assert segments is not None
        return _Context(self.architecture, prefix, self.name, in_place=in_place).forward(
            model,
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            segment_ids=segments,
            logits_at=batch.labelled,
        )

    def prefill(self, input_ids: Sequence[int]) -> _Prefilling:
        """Begin to read a document."""
        return _Prefilling(input_ids, self.architecture.n_layers)


class _Prefilling:
    """See `ttt_core.attention.base.Prefilling`; transformers makes the masks."""

    def __init__(self, input_ids: Sequence[int], n_layers: int) -> None:
        self._buffers = PrefixBuffers(input_ids, n_layers, whole=True)

    def read(self, model: PreTrainedModel, chunk: int) -> int:
        """Compute keys and values of the next `chunk` tokens; return how many are read by now."""
        buffers, start = self._buffers, len(self.prefix)
        ids = torch.tensor([buffers.input_ids[start : start + chunk]], device=input_device(model))
        model.base_model(input_ids=ids, past_key_values=buffers.cache, use_cache=True)
        return start + ids.shape[1]

    @property
    def prefix(self) -> FrozenPrefix:
        """What has been read."""
        return self._buffers.prefix


class _Context:
    """What has been computed behind one frozen prefix so far; grows with every forward pass.

    The prefix's tensors are used by reference and never written to.
    """

    def __init__(
        self, architecture: Architecture, prefix: FrozenPrefix, name: str, *, in_place: bool
    ) -> None:
        self.name = name
        self._architecture = architecture
        self._in_place = in_place
        layer = _FrozenLayer if in_place else _TailLayer
        self._layers: list[DynamicLayer] = [layer(*pair) for pair in prefix.pairs]
        if not self._layers:
            self._layers = [DynamicLayer() for _ in range(architecture.n_layers)]
        self._positions = torch.arange(len(prefix))  # of every key so far
        self._segments = torch.full((len(prefix),), _SHARED)

    def forward(
        self,
        model: PreTrainedModel,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        logits_at: torch.Tensor,
    ) -> torch.Tensor:
        """Compute a packed row; nothing is kept if this raises."""
        before = self._state()
        if not self._in_place:
            self._positions = torch.cat([self._positions, position_ids])
            self._segments = torch.cat([self._segments, segment_ids])
        device = input_device(model)
        try:
            out = model(
                input_ids=input_ids[None].to(device),
                position_ids=position_ids[None].to(device),
                attention_mask=self._masks(model, position_ids, segment_ids, device),
                past_key_values=Cache(layers=list(self._layers)),
                use_cache=True,
                logits_to_keep=logits_at.to(device),
            )
        except BaseException:
            self._restore(before)
            raise
        logits: torch.Tensor = out.logits[0].float()
        return logits

    def drop(self, segment_id: int) -> None:
        """Forget a tail."""
        if not (self._segments == segment_id).any():
            return
        keep = (self._segments != segment_id).nonzero().squeeze(-1)
        positions, segments, pairs = self._state()
        pairs = [
            (
                keys.index_select(-2, keep.to(keys.device)),
                values.index_select(-2, keep.to(keys.device)),
            )
            for keys, values in pairs
        ]
        self._restore((positions[keep], segments[keep], pairs))

    def _pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        pairs = [(layer.keys, layer.values) for layer in self._layers if layer.is_initialized]
        return cast("list[tuple[torch.Tensor, torch.Tensor]]", pairs)

    def _state(self) -> _State:
        """Everything a forward pass changes: tensors are replaced, never written to."""
        return self._positions, self._segments, self._pairs()

    def _restore(self, state: _State) -> None:
        self._positions, self._segments, pairs = state
        if not pairs:
            self._layers = [DynamicLayer() for _ in self._layers]
        for layer, (keys, values) in zip(self._layers, pairs, strict=False):
            layer.keys, layer.values = keys, values

    def _masks(
        self,
        model: PreTrainedModel,
        positions: torch.Tensor,
        segments: torch.Tensor,
        device: torch.device,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        masks = {
            kind: self._mask(model, positions, segments, window, device)
            for kind, window in self._architecture.windows.items()
        }
        # Models with one kind of layer take the mask itself, those with several a mapping.
        return next(iter(masks.values())) if len(masks) == 1 else masks

    def _mask(
        self,
        model: PreTrainedModel,
        positions: torch.Tensor,
        segments: torch.Tensor,
        window: int | None,
        device: torch.device,
    ) -> torch.Tensor:
        """Which key each token may read: shape (1, 1, n_tokens, n_keys), as SDPA or eager want."""
        query, segment = positions[:, None].to(device), segments[:, None].to(device)
        keys, owners = self._positions[None].to(device), self._segments[None].to(device)
        allowed = (keys <= query) & ((owners == _SHARED) | (owners == segment))
        if window is not None:
            allowed &= keys > query - window
        allowed = allowed[None, None]
        if model.config._attn_implementation == "sdpa":
            return allowed
        lowest = torch.finfo(model.dtype).min
        return torch.zeros_like(allowed, dtype=model.dtype).masked_fill(~allowed, lowest)


class _TailLayer(DynamicLayer):
    """A growing cache layer that begins with the prefix's tensors, by reference.

    `DynamicLayer.update` concatenates out of place, so they are never written to.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._stored = keys, values


class _FrozenLayer(_TailLayer):
    """Returns the stored keys and values whatever it is given."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._stored
