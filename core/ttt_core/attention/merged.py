"""One layer's attention over several blocks of keys, as one differentiable operation.

Each part answers alone and says its log-sum-exp; the answers are merged by it. The backward pass
needs only the merged output and log-sum-exp, so that nothing of the size of the scores is kept.
Parts of the frozen prefix have no gradient of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ttt_core.attention.base import Scoring
from ttt_core.attention.kernels import REFERENCE, Kernel
from ttt_core.attention.layout import Block, TailLayout
from ttt_core.attention.reference import (
    Attended,
    attend,
    attend_backward,
    merge,
)


@dataclass(frozen=True)
class Upstream:
    """What the backward pass of a part needs, for its tokens.

    Attributes:
        grad: Gradient of the merged output, shape (1, n_heads, n_tokens, value_dim).
        lse: Merged log-sum-exp, (1, n_heads, n_tokens).
        delta: Row sums of merged output x grad, (1, n_heads, n_tokens).
    """

    grad: torch.Tensor
    lse: torch.Tensor
    delta: torch.Tensor

    def of(self, tokens: slice) -> Upstream:
        """The same for some of the tokens."""
        return Upstream(self.grad[:, :, tokens], self.lse[:, :, tokens], self.delta[:, :, tokens])


class Part(Protocol):
    """Some tokens read one block of keys; queries have shape (1, n_heads, n_tokens, head_dim)."""

    @property
    def tokens(self) -> slice:
        """Which tokens of the forward pass."""
        ...

    def forward(self, query: torch.Tensor) -> Attended:
        """Attend; `out` has shape (1, n_heads, n_tokens, value_dim)."""
        ...

    def backward(self, query: torch.Tensor, upstream: Upstream) -> torch.Tensor:
        """Return the gradient of `query`."""
        ...


class PrefixPart:
    """A block of the frozen prefix, read once for all queries of each of its heads."""

    def __init__(
        self,
        block: Block,
        keys: Sequence[torch.Tensor],
        values: torch.Tensor,
        scoring: Scoring,
        kernel: Kernel,
    ) -> None:
        self.tokens = block.tokens
        self._keys = [part[:, :, block.keys] for part in keys]
        self._values = values[:, :, block.keys]
        self._block = block
        self._scoring = scoring
        plain = scoring.softcap is None and len(keys) == 1
        able = block.mask is None or (kernel.takes_masks and block.full_rows)
        self._kernel = kernel if plain and able else None

    @property
    def kernel_name(self) -> str:
        """What will read the block."""
        return self._kernel.name if self._kernel is not None else REFERENCE.name

    def forward(self, query: torch.Tensor) -> Attended:
        """See `Part`."""
        folded = self._fold(query)
        options = self._options(folded)
        if self._kernel is not None:
            scale, mask = options["scale"], options["mask"]
            attended = self._kernel.run(folded, self._keys[0], self._values, scale, mask)
        else:
            attended = attend(folded, self._keys, self._values, **options)
        heads = query.shape[1]
        return Attended(_unfold(attended.out, heads), _unfold(attended.lse, heads))

    def backward(self, query: torch.Tensor, upstream: Upstream) -> torch.Tensor:
        """See `Part`."""
        folded = self._fold(query)
        gradients = attend_backward(
            self._fold(upstream.grad),
            folded,
            self._keys,
            self._values,
            self._fold(upstream.lse),
            self._fold(upstream.delta),
            **self._options(folded),
        )
        return _unfold(gradients.query, query.shape[1])

    def _fold(self, tensor: torch.Tensor) -> torch.Tensor:
        return _fold(tensor, self._values.shape[1])

    def _options(self, folded: torch.Tensor) -> dict[str, Any]:
        mask = self._block.folded_mask(folded.shape[2], folded.device)
        return {"scale": self._scoring.scale, "softcap": self._scoring.softcap, "mask": mask}


class TailPart:
    """The tails: each row of padded tokens reads its own keys, which may be trained through."""

    def __init__(
        self,
        layout: TailLayout,
        keys: torch.Tensor,
        values: torch.Tensor,
        window: int | None,
        scoring: Scoring,
        kernel: Kernel,
    ) -> None:
        self._kernel = kernel if scoring.softcap is None and kernel.takes_masks else None
        self._layout = layout
        self._keys = keys  # (n_rows, n_kv_heads, n_keys, head_dim)
        self._values = values
        self._window = window
        self._scoring = scoring

    def forward(self, query: torch.Tensor) -> Attended:
        """See `Part`; all tokens take part."""
        folded = self._fold(query)
        options = self._options(folded)
        if self._kernel is not None:
            scale, mask = options["scale"], options["mask"]
            attended = self._kernel.run(folded, self._keys, self._values, scale, mask)
        else:
            attended = attend(folded, (self._keys,), self._values, **options)
        heads = query.shape[1]
        return Attended(
            self._layout.to_tokens(_unfold(attended.out, heads)),
            self._layout.to_tokens(_unfold(attended.lse, heads)),
        )

    def backward(
        self, query: torch.Tensor, upstream: Upstream
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return gradients of queries, keys and values; the latter two by row."""
        folded = self._fold(query)
        gradients = attend_backward(
            self._fold(upstream.grad),
            folded,
            (self._keys,),
            self._values,
            # An infinite log-sum-exp makes every weight of a padded place zero.
            self._fold(upstream.lse, padding=torch.inf),
            self._fold(upstream.delta),
            of_keys=True,
            **self._options(folded),
        )
        assert gradients.keys is not None
        assert gradients.values is not None
        to_query = self._layout.to_tokens(_unfold(gradients.query, query.shape[1]))
        return to_query, gradients.keys, gradients.values

    def _fold(self, tensor: torch.Tensor, padding: float | None = None) -> torch.Tensor:
        return _fold(self._layout.to_rows(tensor, padding=padding), self._keys.shape[1])

    def _options(self, folded: torch.Tensor) -> dict[str, Any]:
        mask = self._layout.folded_mask(self._window, folded.shape[2], folded.device)
        return {"scale": self._scoring.scale, "softcap": self._scoring.softcap, "mask": mask}


@dataclass(frozen=True)
class Merged:
    """Everything one layer's tokens read.

    Attributes:
        parts: Blocks of the prefix.
        tail: What is read behind it, if anything.
        sinks: Learned logits that take weight and answer nothing (gpt-oss), shape (n_heads,).
    """

    parts: Sequence[Part]
    tail: TailPart | None
    sinks: torch.Tensor | None

    def forward(self, query: torch.Tensor, value_dim: int) -> Attended:
        """Attend to everything; `out` has shape (1, n_heads, n_tokens, value_dim), fp32."""
        total = None if self.tail is None else self.tail.forward(query)
        for part in self.parts:
            attended = part.forward(query[:, :, part.tokens])
            if attended.lse.shape == query.shape[:3]:
                total = attended if total is None else merge(total, attended)
                continue
            total = total or _nothing(query, value_dim)
            before = Attended(*(tensor[:, :, part.tokens] for tensor in total))
            for tensor, merged in zip(total, merge(before, attended), strict=True):
                tensor[:, :, part.tokens] = merged
        assert total is not None
        return total if self.sinks is None else _drained(total, self.sinks)


class _Attention(torch.autograd.Function):
    """`Merged.forward` with its gradient for queries and for the keys and values of tails."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        keys: torch.Tensor | None,
        values: torch.Tensor | None,
        merged: Merged,
        value_dim: int,
    ) -> torch.Tensor:
        attended = merged.forward(query, value_dim)
        out = attended.out.to(query.dtype)
        # The tail's are reached through `merged`; saved, so that hooks see what is kept.
        ctx.save_for_backward(query, out, attended.lse, keys, values)
        ctx.merged = merged
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, out, lse, *_ = ctx.saved_tensors
        merged: Merged = ctx.merged
        upstream = Upstream(grad, lse, (grad.float() * out.float()).sum(-1))
        to_query = torch.zeros_like(query, dtype=torch.float32)
        to_keys = to_values = None
        if merged.tail is not None:
            to_query, to_keys, to_values = merged.tail.backward(query, upstream)
            to_keys, to_values = to_keys.to(query.dtype), to_values.to(query.dtype)
        for part in merged.parts:
            some = part.tokens
            to_query[:, :, some] += part.backward(query[:, :, some], upstream.of(some))
        return to_query.to(query.dtype), to_keys, to_values, None, None


def attend_merged(
    query: torch.Tensor,
    merged: Merged,
    tail: tuple[torch.Tensor, torch.Tensor] | None,
    value_dim: int,
) -> torch.Tensor:
    """Attend, differentiably where `query` asks for it.

    Args:
        query: Shape (1, n_heads, n_tokens, head_dim).
        merged: What the tokens read.
        tail: Keys and values that `merged.tail` reads, by row, so that gradients can reach them.
        value_dim: Size of a value.

    Returns:
        Shape (1, n_heads, n_tokens, value_dim), in the dtype of `query`.
    """
    if not (torch.is_grad_enabled() and query.requires_grad):
        return merged.forward(query, value_dim).out.to(query.dtype)
    out: torch.Tensor = _Attention.apply(query, *(tail or (None, None)), merged, value_dim)  # type: ignore[no-untyped-call]
    return out


def _nothing(query: torch.Tensor, value_dim: int) -> Attended:
    """The answer of no keys at all."""
    lse = query.new_full(query.shape[:3], -torch.inf, dtype=torch.float32)
    return Attended(lse.new_zeros((*lse.shape, value_dim)), lse)


def _drained(attended: Attended, sinks: torch.Tensor) -> Attended:
    lse = torch.logaddexp(attended.lse, sinks.float()[None, :, None])
    return Attended(attended.out * (attended.lse - lse).exp()[..., None], lse)


def _fold(tensor: torch.Tensor, n_kv_heads: int) -> torch.Tensor:
    """(rows, n_heads, n, ...) to (rows, n_kv_heads, group * n, ...)."""
    rows, heads, n = tensor.shape[:3]
    return tensor.reshape(rows, n_kv_heads, heads // n_kv_heads * n, *tensor.shape[3:])


def _unfold(tensor: torch.Tensor, n_heads: int) -> torch.Tensor:
    """The way back."""
    rows, kv_heads, folded = tensor.shape[:3]
    n = kv_heads * folded // n_heads
    return tensor.reshape(rows, n_heads, n, *tensor.shape[3:])
