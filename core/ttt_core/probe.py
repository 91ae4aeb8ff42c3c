"""The probe: clozes that are never trained on, compared before and after.

Plain held-out loss pointed the wrong way in our measurements (it rose while accuracy rose);
clozes measure what answers need. A third of them chooses the learning rate and when to stop, the
rest is looked at once, for the decision, so that the test is unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from ttt_core.packed import forward_batch
from ttt_core.report import ProbeResult
from ttt_core.supervision import Cloze, Passage, TokenizedDocument, find_clozes, pack_clozes

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import AdaptationConfig
    from ttt_core.prefill import FrozenPrefix
    from ttt_core.runtime import Runtime

FEWEST = 16
"""Fewer deciding clozes than this judge nothing; the base is kept then."""

_MOST_HELD_OUT = 0.4  # of all clozes of the document
_CLOZES_PER_FORWARD = 32


@dataclass(frozen=True)
class HeldOut:
    """Clozes kept from training.

    Attributes:
        choosing: Choose the learning rate and the step; may be empty.
        deciding: Decide whether to adapt; may be empty.
    """

    choosing: tuple[Cloze, ...]
    deciding: tuple[Cloze, ...]

    @property
    def passages(self) -> list[Passage]:
        """The passages that must not be trained on."""
        return [Passage(cloze.start, cloze.end) for cloze in (*self.choosing, *self.deciding)]

    @property
    def can_decide(self) -> bool:
        """Whether there are enough clozes to judge by."""
        return len(self.deciding) >= FEWEST


def hold_out(document: TokenizedDocument, config: AdaptationConfig) -> HeldOut:
    """Set clozes aside, at most two fifths of the document's."""
    clozes = find_clozes(document, seed=config.seed)
    size = min(config.held_out, int(len(clozes) * _MOST_HELD_OUT))
    cut = size // 3
    return HeldOut(choosing=tuple(clozes[:cut]), deciding=tuple(clozes[cut:size]))


def cloze_losses(
    runtime: Runtime,
    prefix: FrozenPrefix,
    document: TokenizedDocument,
    clozes: Sequence[Cloze],
    adapter: QueryAdapter | None,
) -> torch.Tensor:
    """Return the mean loss of each cloze's continuation, nats per token, shape (n_clozes,)."""
    losses = [torch.empty(0)]
    for start in range(0, len(clozes), _CLOZES_PER_FORWARD):
        some = clozes[start : start + _CLOZES_PER_FORWARD]
        batch = pack_clozes(document, some)
        with runtime.turn(adapter) as model, torch.no_grad():
            logits, labels = forward_batch(model, runtime.architecture, prefix, batch)
            tokens = functional.cross_entropy(logits, labels, reduction="none").cpu()
        parts = tokens.split([cloze.end - cloze.cut for cloze in some])
        losses.append(torch.stack([part.mean() for part in parts]))
    return torch.cat(losses)


def paired_test(before: torch.Tensor, after: torch.Tensor) -> ProbeResult:
    """Test whether `after` is lower than `before`, paired; both of shape (n_clozes,), n >= 2."""
    gains = (before - after).double()
    mean, error = gains.mean().item(), gains.std().item() / len(gains) ** 0.5
    z = mean / error if error > 0 else 0.0
    return ProbeResult(
        clozes=len(gains),
        before=before.mean().item(),
        after=after.mean().item(),
        gain=mean,
        z=z,
        p_value=1 - NormalDist().cdf(z),
    )
