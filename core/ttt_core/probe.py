"""The probe: clozes that are never trained on, compared before and after.

Plain held-out loss pointed the wrong way in our measurements (it rose while accuracy rose);
clozes measure what answers need. Their loss alone misleads too: a flatter model loses less where it
is wrong, so more of them must also be continued right. A third chooses the learning rate and when
to stop; the rest is looked at once, for the decision, so that the tests are unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from ttt_core.report import ProbeResult
from ttt_core.supervision import Cloze, Passage, TokenizedDocument, find_clozes, pack_clozes

if TYPE_CHECKING:
    from ttt_core.adapter import QueryAdapter
    from ttt_core.config import AdaptationConfig
    from ttt_core.prefix import FrozenPrefix
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


class ClozeScores(NamedTuple):
    """How well clozes were continued; both of shape (n_clozes,).

    Attributes:
        losses: Mean loss of each continuation, nats per token.
        right: 1 where every token of it was the likeliest one, else 0.
    """

    losses: torch.Tensor
    right: torch.Tensor


def score_clozes(
    runtime: Runtime,
    prefix: FrozenPrefix,
    document: TokenizedDocument,
    clozes: Sequence[Cloze],
    adapter: QueryAdapter | None,
) -> ClozeScores:
    """Score the continuations of `clozes` under the base model or an adapter."""
    losses, right = [torch.empty(0)], [torch.empty(0)]
    for start in range(0, len(clozes), _CLOZES_PER_FORWARD):
        some = clozes[start : start + _CLOZES_PER_FORWARD]
        batch = pack_clozes(document, some)
        with runtime.turn(adapter) as model, torch.no_grad():
            logits = runtime.attention.forward_batch(model, prefix, batch)
            labels = batch.targets.to(logits.device)
            tokens = functional.cross_entropy(logits, labels, reduction="none").cpu()
            hits = (logits.argmax(-1) == labels).float().cpu()
        sizes = [cloze.end - cloze.cut for cloze in some]
        losses.append(torch.stack([part.mean() for part in tokens.split(sizes)]))
        right.append(torch.stack([part.min() for part in hits.split(sizes)]))
    return ClozeScores(torch.cat(losses), torch.cat(right))


def sign_test(*, better: int, worse: int) -> float:
    """Return the probability of at least `better` heads in better + worse fair throws."""
    throws = better + worse
    tail = sum(math.comb(throws, heads) for heads in range(better, throws + 1))
    return float(tail / 2**throws)


def more_right(before: ClozeScores, after: ClozeScores) -> float:
    """Return the p-value of `after` continuing more clozes exactly: one-sided exact sign test."""
    return sign_test(
        better=int((after.right > before.right).sum()),
        worse=int((after.right < before.right).sum()),
    )


def paired_test(before: ClozeScores, after: ClozeScores) -> ProbeResult:
    """Test whether `after` loses less and continues more clozes right, paired; n >= 2."""
    gains = (before.losses - after.losses).double()
    mean, error = gains.mean().item(), gains.std().item() / len(gains) ** 0.5
    z = _z(mean, error)
    return ProbeResult(
        clozes=len(gains),
        before=before.losses.mean().item(),
        after=after.losses.mean().item(),
        right_before=before.right.mean().item(),
        right_after=after.right.mean().item(),
        right_p_value=more_right(before, after),
        gain=mean,
        z=z,
        p_value=1 - NormalDist().cdf(z),
    )


def _z(mean: float, error: float) -> float:
    """Return a mean gain over its standard error; what has none is no gain, but may be harm."""
    if error > 0:
        return mean / error
    # Not "mean < 0": a loss that is not a number is harm.
    return 0.0 if mean >= 0 else -math.inf
