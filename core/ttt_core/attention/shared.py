"""Shared-prefix attention: the document's keys and values exist once, whoever reads them.

All tokens of a forward pass read the frozen prefix together, each tail is read apart, and both are
merged by log-sum-exp. The model itself is not patched: attention is a function that transformers
looks up by name (`AttentionInterface`), and what it needs travels as a keyword argument that
`model.forward` hands down to it. No mask function is registered under that name, so that
transformers makes no masks either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface

from ttt_core.attention.base import Observer, Scoring, Seen
from ttt_core.attention.buffers import PrefixBuffers, TailBuffers
from ttt_core.attention.kernels import REFERENCE, Kernel, choose_kernel
from ttt_core.attention.latent import LatentPart, can_absorb
from ttt_core.attention.layout import Block, TailLayout, blocks_behind, blocks_in_place
from ttt_core.attention.merged import Merged, PrefixPart, TailPart, attend_merged
from ttt_core.errors import UnsupportedModelError
from ttt_core.packed import PackedBatch
from ttt_core.prefix import FrozenPrefix
from ttt_core.queries import Architecture, input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IMPLEMENTATION = "ttt_shared_prefix"
"""The name under which transformers finds the attention function."""

Extend = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Appends one layer's new keys and values to the tails, and returns all of those."""


def supports(model: PreTrainedModel) -> bool:
    """Whether `model` looks its attention up by name, and keeps keys and values that we can read.

    Latent attention whose expansion is quantised or biased is left to the model's own attention.
    """
    latent = [module for module in model.modules() if hasattr(module, "kv_b_proj")]
    return bool(model._supports_attention_backend) and all(map(can_absorb, latent))


class SharedPrefixAttention:
    """The fast path; see `ttt_core.attention.base.Attention`."""

    def __init__(self, architecture: Architecture, kernel: str = "auto") -> None:
        self.architecture = architecture
        self.kernel = kernel
        self._used: set[str] = set()

    @property
    def name(self) -> str:
        """`shared_prefix`, and the kernels that have read prefixes so far."""
        return _name(self._used)

    @contextmanager
    def installed(self, model: PreTrainedModel) -> Iterator[None]:
        """Name our function in the model's configuration for the length of the block."""
        config = model.config.get_text_config()
        before = config._attn_implementation
        config._attn_implementation = IMPLEMENTATION
        try:
            yield
        finally:
            config._attn_implementation = before

    def tails(self, prefix: FrozenPrefix) -> _Tails:
        """Begin behind `prefix`."""
        return _Tails(self, prefix)

    def prefill(self, input_ids: Sequence[int]) -> _Prefilling:
        """Begin to read a document."""
        return _Prefilling(self, input_ids)

    def forward_batch(
        self,
        model: PreTrainedModel,
        prefix: FrozenPrefix,
        batch: PackedBatch,
        *,
        observer: Observer | None = None,
    ) -> torch.Tensor:
        """Run a whole batch once; see `ttt_core.attention.base.Attention`."""
        layout = None
        if batch.segment_ids is not None:
            segments = batch.segment_ids.tolist()
            rows = {segment: row for row, segment in enumerate(dict.fromkeys(segments))}
            layout = TailLayout.of([rows[segment] for segment in segments], [0] * len(rows))
        work = _Pass(self, prefix, batch.position_ids, layout, observer=observer)
        logits = _run(model, work, batch.input_ids, batch.position_ids, batch.labelled)
        self.used(work.kernels)
        return logits

    def used(self, kernels: set[str]) -> None:
        """Remember for the report which kernels read a prefix."""
        self._used |= kernels


def _name(kernels: set[str]) -> str:
    return f"shared_prefix ({'+'.join(sorted(kernels))})" if kernels else "shared_prefix"


def _run(
    model: PreTrainedModel,
    work: _Pass,
    input_ids: torch.Tensor,
    position_ids: torch.Tensor,
    logits_at: torch.Tensor,
) -> torch.Tensor:
    """One forward pass of one packed row; logits in fp32, shape (n_logits, vocab_size)."""
    device = input_device(model)
    out = model(
        input_ids=input_ids[None].to(device),
        position_ids=position_ids[None].to(device),
        use_cache=False,
        logits_to_keep=logits_at.to(device),
        shared_prefix=work,
    )
    logits: torch.Tensor = out.logits[0].float()
    return logits


class _Pass:
    """One forward pass: what its tokens read in each layer."""

    def __init__(
        self,
        attention: SharedPrefixAttention,
        prefix: FrozenPrefix,
        positions: torch.Tensor,
        layout: TailLayout | None,
        extend: Extend | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._attention = attention
        self._prefix = prefix
        self._layout = layout
        self._extend = extend
        self._observer = observer
        self.kernels: set[str] = set()  # That have read the prefix.
        self._blocks: dict[int | None, list[Block]] = {}
        for window in set(attention.architecture.layer_windows):
            self._blocks[window] = (
                blocks_in_place(positions, window)
                if layout is None
                else blocks_behind(positions, len(prefix), window)
            )

    def attend(
        self,
        module: nn.Module,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scoring: Scoring,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attend in one layer; shapes (1, heads, n_tokens, dim) throughout."""
        layer: int = module.layer_idx  # type: ignore[assignment]
        window = self._attention.architecture.layer_windows[layer]
        if self._observer is not None:
            self._observer(self._seen(layer, query, keys, scoring, sinks))
        parts = [
            self._part(module, block, query, (keys.shape[1], values.shape[-1]), scoring)
            for block in self._blocks[window]
        ]
        tail = rows = None
        if self._layout is not None:
            rows = (self._layout.to_rows(keys), self._layout.to_rows(values))
            read = rows if self._extend is None else self._extend(layer, *rows)
            kernel = self._kernel(query, values.shape[-1])
            tail = TailPart(
                self._layout, read[0].detach(), read[1].detach(), window, scoring, kernel
            )
        return attend_merged(query, Merged(parts, tail, sinks), rows, values.shape[-1])

    def _seen(
        self,
        layer: int,
        query: torch.Tensor,
        own_keys: torch.Tensor,
        scoring: Scoring,
        sinks: torch.Tensor | None,
    ) -> Seen:
        keys = self._prefix.keys[layer]
        if (keys.shape[1], keys.shape[-1]) != (own_keys.shape[1], own_keys.shape[-1]):
            raise UnsupportedModelError(
                "attention can be looked into where a model caches its keys; this one caches "
                "latents"
            )
        window = self._attention.architecture.layer_windows[layer]
        return Seen(layer, query, keys, own_keys, scoring, window, sinks)

    def _kernel(self, query: torch.Tensor, value_dim: int) -> Kernel:
        wanted = self._attention.kernel
        return choose_kernel(query.device, query.dtype, query.shape[-1], value_dim, wanted)

    def _part(
        self,
        module: nn.Module,
        block: Block,
        query: torch.Tensor,
        expanded: tuple[int, int],
        scoring: Scoring,
    ) -> PrefixPart | LatentPart:
        layer: int = module.layer_idx  # type: ignore[assignment]
        keys, values = self._prefix.keys[layer], self._prefix.values[layer]
        if (keys.shape[1], values.shape[-1]) == expanded:
            kernel = self._kernel(query, values.shape[-1])
            part = PrefixPart(block, (keys,), values, scoring, kernel)
            self.kernels.add(part.kernel_name)
            return part
        # Latent attention: the cache's "keys" are latents, its "values" the rotated keys.
        self.kernels.add("latent reference")
        return LatentPart(module, PrefixPart(block, (keys, values), keys, scoring, REFERENCE))


class _Tails:
    """Growing tails; see `ttt_core.attention.base.Tails`."""

    def __init__(self, attention: SharedPrefixAttention, prefix: FrozenPrefix) -> None:
        self._attention = attention
        self._prefix = prefix
        self._buffers = TailBuffers(attention.architecture.n_layers)
        self._used: set[str] = set()

    @property
    def name(self) -> str:
        """What reports call the path that has run for these tails."""
        return _name(self._used)

    def forward(
        self,
        model: PreTrainedModel,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        segment_ids: torch.Tensor,
        logits_at: torch.Tensor,
    ) -> torch.Tensor:
        """Compute new tokens of any tails in one packed row."""
        writing = self._buffers.begin(segment_ids.tolist())
        work = _Pass(self._attention, self._prefix, position_ids, writing.layout, writing.extend)
        logits = _run(model, work, input_ids, position_ids, logits_at)
        writing.commit()
        self._used |= work.kernels
        return logits

    def drop(self, segment_id: int) -> None:
        """Forget a tail."""
        self._buffers.drop(segment_id)


class _Prefilling:
    """The chunk is the tail of what was read before; see `ttt_core.attention.base.Prefilling`."""

    def __init__(self, attention: SharedPrefixAttention, input_ids: Sequence[int]) -> None:
        self._attention = attention
        # The model caches what it would cache for itself: latents stay latents.
        self._buffers = PrefixBuffers(input_ids, attention.architecture.n_layers, whole=False)

    def read(self, model: PreTrainedModel, chunk: int) -> int:
        """Compute keys and values of the next `chunk` tokens; return how many are read by now."""
        buffers, prefix = self._buffers, self.prefix
        start, device = len(prefix), input_device(model)
        ids = torch.tensor(buffers.input_ids[start : start + chunk])
        positions = torch.arange(start, start + len(ids))
        layout = TailLayout.of([0] * len(ids), [0])
        model.base_model(
            input_ids=ids[None].to(device),
            position_ids=positions[None].to(device),
            past_key_values=buffers.cache,
            use_cache=True,
            shared_prefix=_Pass(self._attention, prefix, positions, layout),
        )
        return start + len(ids)

    @property
    def prefix(self) -> FrozenPrefix:
        """What has been read."""
        return self._buffers.prefix


def _attention_function(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    shared_prefix: _Pass | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer; shapes (1, heads, n_tokens, head_dim).

    Returns:
        Shape (1, n_tokens, n_heads, value_dim), and no weights.
    """
    if shared_prefix is None or position_bias is not None or attention_mask is not None:
        raise UnsupportedModelError(
            f"{type(module).__name__} attends in a way that shared-prefix attention does not know; "
            f"set RuntimeConfig(attention='model')"
        )
    scoring = Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap)
    out = shared_prefix.attend(module, query, key, value, scoring, s_aux)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(IMPLEMENTATION, _attention_function)
