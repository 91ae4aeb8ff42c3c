"""What an optimiser step minimises: the loss of the next token, or where a question looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from ttt_core.attention.scores import prefix_scores
from ttt_core.packed import PackedBatch
from ttt_core.prefill import prefill

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
    A token whose window holds nothing of the passages is taught nothing.

    Args:
        passages: What was selected, at least one token.
        layer: The supervised layer.
        n_tokens: Length of the prefix.
    """

    def __init__(self, passages: Sequence[Passage], *, layer: int, n_tokens: int) -> None:
        self._layer = layer
        self._chosen = torch.zeros(n_tokens, dtype=torch.bool)
        for start, end in passages:
            self._chosen[start:end] = True

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
                tokens = self.taught(batch, seen.window)
                found.append(log_attention(seen, tokens, batch.position_ids))

        runtime.attention.forward_batch(model, prefix, batch, observer=observe)
        [attention] = found
        visible = ~attention.isneginf()
        target = soft_target(self._chosen.to(attention.device), visible)
        # What is hidden has no target, and its logarithm no gradient that would be a number.
        return (target * (target.clamp_min(1e-30).log() - attention.masked_fill(~visible, 0))).sum()

    def taught(self, batch: PackedBatch, window: int | None) -> torch.Tensor:
        """Return the labelled tokens that see something of the passages, shape (n_taught,).

        Args:
            batch: Tokens behind the prefix.
            window: How many tokens back the supervised layer sees; None: to the beginning.
        """
        last = int(self._chosen.nonzero().max())
        tokens = batch.labelled
        return tokens if window is None else tokens[batch.position_ids[tokens] - window < last]


def check_observable(runtime: Runtime) -> None:
    """See that the model's attention can be looked into, which costs two tokens.

    Raises:
        UnsupportedModelError: It cannot: the model keeps its own, or caches latents.
    """
    prefix = prefill(runtime, [0])
    with runtime.turn() as model, torch.no_grad():
        batch = attention_batch([0], start=len(prefix))
        runtime.attention.forward_batch(model, prefix, batch, observer=lambda _: None)


def attention_batch(tail: Sequence[int], *, start: int) -> PackedBatch:
    """Pack the tokens between document and answer; each of them is taught where to look."""
    # The labels only mark tokens: 0 is some token.
    return PackedBatch.of_tails([tail], [[0] * len(tail)], start=start)


def soft_target(chosen: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Return the attention to aim at, fp32, shape (n_tokens, n_prefix); each row sums to 1.

    Where the chosen are most of what can be seen, they get no less than an even share of it.

    Args:
        chosen: Which tokens of the prefix are to be looked at, shape (n_prefix,).
        visible: What each token sees, shape (n_tokens, n_prefix); something chosen is among it.
    """
    chosen = chosen & visible
    n_chosen, n_visible = chosen.sum(-1, keepdim=True), visible.sum(-1, keepdim=True)
    mass = (n_chosen / n_visible).clamp_min(TAUGHT_MASS)
    others = (1 - mass) / (n_visible - n_chosen).clamp_min(1)
    return torch.where(chosen, mass / n_chosen, others * visible)


def log_attention(seen: Seen, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return the log of how heads on average attend to the prefix, shape (n_tokens, n_prefix).

    Of all that a head looks at, the prefix alone counts: its masses add up to 1. -inf: hidden.

    Args:
        seen: One layer.
        tokens: Which tokens of the pass, shape (n_tokens,); each sees something of the prefix.
        positions: Positions of all tokens of the pass.
    """
    scores = prefix_scores(seen, tokens, positions)
    hidden = scores[0].isneginf()  # The same for every head.
    heads = scores.log_softmax(-1).masked_fill(hidden, 0)  # -inf has no gradient here.
    return (heads.logsumexp(0) - math.log(len(heads))).masked_fill(hidden, -math.inf)


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
