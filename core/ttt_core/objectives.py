"""What an optimiser step minimises: the loss of the next token, or where a question looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from ttt_core.packed import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ttt_core.attention.base import Seen
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.runtime import Runtime
    from ttt_core.supervision import Passage

TAUGHT_MASS = 0.6
"""Share of the attention that the selected passages are to get (EASE-TTT)."""


class Objective(Protocol):
    """A sum over a batch's labelled tokens that an optimiser step makes smaller."""

    def __call__(
        self, runtime: Runtime, model: PreTrainedModel, prefix: FrozenPrefix, batch: PackedBatch
    ) -> torch.Tensor:
        """Return the sum over labelled tokens, nats, a scalar with a gradient."""
        ...


def next_token_loss(
    runtime: Runtime, model: PreTrainedModel, prefix: FrozenPrefix, batch: PackedBatch
) -> torch.Tensor:
    """Return the cross-entropy of the labels."""
    logits = runtime.attention.forward_batch(model, prefix, batch)
    return functional.cross_entropy(logits, batch.targets.to(logits.device), reduction="sum")


class AttentionObjective:
    """KL divergence of the question's attention in one layer from one that sees the evidence.

    EASE-TTT (arXiv 2606.06906) supervises the attention of layer 14 of 28 with a soft target that
    gives `TAUGHT_MASS` to the selected chunks. As far as it could be read, it does not say how the
    mass is spread: here evenly over the selected tokens, and over all others evenly, too. Heads are
    averaged; one layer is supervised, see `supervised_layer`; the batch's own tail is left out.

    Args:
        passages: What was selected, at least one token.
        layer: The supervised layer.
        n_tokens: Length of the prefix.
    """

    def __init__(self, passages: Sequence[Passage], *, layer: int, n_tokens: int) -> None:
        self._layer = layer
        self._target = soft_target(passages, n_tokens)

    def __call__(
        self, runtime: Runtime, model: PreTrainedModel, prefix: FrozenPrefix, batch: PackedBatch
    ) -> torch.Tensor:
        """Return the divergence summed over the labelled tokens, nats.

        Raises:
            UnsupportedModelError: The model's attention cannot be looked into.
        """
        found: list[torch.Tensor] = []

        def observe(seen: Seen) -> None:
            if seen.layer == self._layer:
                found.append(log_attention(seen, batch.labelled, batch.position_ids))

        runtime.attention.forward_batch(model, prefix, batch, observer=observe)
        [attention] = found
        target = self._target.to(attention.device).expand_as(attention)
        seen_keys = attention > -torch.inf  # What a window hides cannot be taught.
        divergence = target * (target.clamp_min(1e-30).log() - attention)
        return torch.where(seen_keys, divergence, divergence.new_zeros(())).sum()


def attention_batch(tail: Sequence[int], *, start: int) -> PackedBatch:
    """Pack the tokens between document and answer; each of them is taught where to look."""
    # The labels only mark tokens: 0 is some token.
    return PackedBatch.of_tails([tail], [[0] * len(tail)], start=start)


def soft_target(passages: Sequence[Passage], n_tokens: int) -> torch.Tensor:
    """Return the attention to aim at, shape (n_tokens,): sums to 1."""
    chosen = torch.zeros(n_tokens, dtype=torch.bool)
    for passage in passages:
        chosen[passage.start : passage.end] = True
    n_chosen = int(chosen.sum())
    if n_chosen == n_tokens:
        return torch.full((n_tokens,), 1.0 / n_tokens)
    rest = (1.0 - TAUGHT_MASS) / (n_tokens - n_chosen)
    return torch.where(chosen, TAUGHT_MASS / n_chosen, rest)


def log_attention(seen: Seen, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the log of how heads on average attend to the prefix, shape (n_tokens, n_prefix).

    Args:
        seen: One layer.
        tokens: Which tokens of the pass, shape (n_tokens,).
        positions: Positions of all tokens of the pass.
    """
    keys = seen.keys[0].float()
    at = tokens.to(keys.device)
    query = seen.query[0][:, at].float()
    grouped = query.unflatten(0, (keys.shape[0], -1))  # (kv heads, heads each, tokens, dim)
    scores = torch.einsum("kgnd,ktd->kgnt", grouped, keys).flatten(0, 1) * seen.scoring.scale
    if seen.scoring.softcap is not None:
        scores = seen.scoring.softcap * torch.tanh(scores / seen.scoring.softcap)
    if seen.window is not None:
        reach = positions[tokens].to(keys.device)[:, None] - seen.window
        hidden = torch.arange(keys.shape[1], device=keys.device)[None] <= reach
        scores = scores.masked_fill(hidden, -torch.inf)
    heads = scores.log_softmax(-1)
    return heads.logsumexp(0) - torch.tensor(float(len(heads))).log()


def supervised_layer(windows: Sequence[int | None], trained: Sequence[int] | None) -> int:
    """Return the layer whose attention is taught: the one nearest to the middle that can be.

    Args:
        windows: Of each layer, how far it sees; None: to the beginning, which is preferred.
        trained: Layers whose queries change; None: all. A layer before them cannot be taught.
    """
    first = 0 if trained is None else min(trained)
    middle = len(windows) // 2
    reachable = range(first, len(windows))
    return min(reachable, key=lambda layer: (windows[layer] is not None, abs(layer - middle)))
