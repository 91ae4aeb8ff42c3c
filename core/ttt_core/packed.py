"""Forward passes against a frozen prefix: any tokens, anywhere, in one packed row.

A frozen token depends on nothing but itself and the frozen keys and values, so one row of the
batch holds whatever is to be computed, told apart by position and segment:

    in place    tokens of the document at their own positions; they read the frozen K,V of
                everything up to themselves, and add none
    behind      private tails after the document (a cloze, a question, one row of a batch of
                answers); each reads all of the prefix, and of the tails only its own segment

Training, probing, decoding and batched decoding are all this one operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ttt_core.queries import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ttt_core.prefill import FrozenPrefix
    from ttt_core.queries import Architecture

IGNORE = -100
"""Label of a token on which nothing is trained, as everywhere in transformers."""

_SHARED = -1


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Tokens for one forward pass, and what to learn from them.

    Attributes:
        input_ids: Shape (n_tokens,).
        position_ids: Positions in the model's window, shape (n_tokens,).
        labels: The token that should come next, or IGNORE, shape (n_tokens,).
        segment_ids: Which tail a token belongs to, shape (n_tokens,); None: all in place.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    segment_ids: torch.Tensor | None

    @classmethod
    def of_tails(
        cls, tails: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, start: int
    ) -> PackedBatch:
        """Pack tails that all begin at position `start`."""
        return cls(
            input_ids=_flat(tails),
            position_ids=_flat([range(start, start + len(tail)) for tail in tails]),
            labels=_flat(labels),
            segment_ids=_flat([[index] * len(tail) for index, tail in enumerate(tails)]),
        )


class PackedContext:
    """What has been computed behind one frozen prefix so far; grows with every forward pass.

    The prefix's tensors are used by reference and never written to.
    """

    def __init__(self, architecture: Architecture, prefix: FrozenPrefix, *, in_place: bool) -> None:
        self._architecture = architecture
        self._in_place = in_place
        layer = _FrozenLayer if in_place else _TailLayer
        pairs = list(zip(prefix.keys, prefix.values, strict=True))
        self._cache = Cache(
            layers=[layer(*pair) for pair in pairs]
            or [DynamicLayer() for _ in range(architecture.n_layers)]
        )
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
        """Compute a packed row and return the logits at the asked tokens only.

        Args:
            model: The model, with the request's adapter bound.
            input_ids: Shape (n_tokens,); likewise `position_ids` and `segment_ids`.
            position_ids: Positions in the window.
            segment_ids: Tail of each token.
            logits_at: Indices into the row, shape (n_logits,).

        Returns:
            Logits in fp32, shape (n_logits, vocab_size).
        """
        if not self._in_place:
            self._positions = torch.cat([self._positions, position_ids])
            self._segments = torch.cat([self._segments, segment_ids])
        device = input_device(model)
        out = model(
            input_ids=input_ids[None].to(device),
            position_ids=position_ids[None].to(device),
            attention_mask=self._masks(model, position_ids, segment_ids, device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=logits_at.to(device),
        )
        logits: torch.Tensor = out.logits[0].float()
        return logits

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


def forward_batch(
    model: PreTrainedModel, architecture: Architecture, prefix: FrozenPrefix, batch: PackedBatch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one batch against `prefix`.

    Returns:
        The labelled tokens' logits, shape (n_labels, vocab_size), and their labels, (n_labels,).
    """
    in_place = batch.segment_ids is None
    segments = torch.zeros_like(batch.input_ids) if in_place else batch.segment_ids
    assert segments is not None
    labelled = (batch.labels != IGNORE).nonzero().squeeze(-1)
    logits = PackedContext(architecture, prefix, in_place=in_place).forward(
        model,
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        segment_ids=segments,
        logits_at=labelled,
    )
    return logits, batch.labels[labelled].to(logits.device)


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


def _flat(rows: Sequence[Sequence[int] | range]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.long)
