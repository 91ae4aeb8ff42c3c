"""Whether shared-prefix attention computes what a model computes: tried on a few tokens.

Models that look their attention up by name may still call it in ways of their own (twice a layer,
with a bias, on part of a head). None is trusted: each must give the logits of its own forward pass
when it is read in one piece and answered in another, or its own attention is used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from ttt_core.queries import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ttt_core.attention.shared import SharedPrefixAttention

_READ, _BEHIND = 6, 3
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_OF_HALVES = 0.1


def is_right(attention: SharedPrefixAttention, model: PreTrainedModel) -> bool:
    """Compare a few logits with those of the model's own forward pass, relative to their size."""
    if input_device(model).type == "meta":
        return True  # Nothing can be computed, so nothing can be wrong.
    vocabulary = int(model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (_READ + _BEHIND,), generator=generator)
    try:
        expected = _own(model, ids)
    except (ImportError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return True  # Its own attention does not run here; ours may.
    try:
        found = _ours(attention, model, ids)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _say(model, type(error).__name__)
        return False
    apart = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-3)
    # "not >": what is not a number is not right, unless the model itself says so.
    right = bool(apart <= _TOLERANCE.get(model.dtype, _TOLERANCE_OF_HALVES))
    if not right:
        _say(model, f"logits differ by {apart:.2g}")
    return right or bool(expected.isnan().any())


@torch.no_grad()
def _own(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    out = model(input_ids=ids[None].to(input_device(model)), use_cache=False)
    logits: torch.Tensor = out.logits[0, _READ:].float()
    return logits


@torch.no_grad()
def _ours(
    attention: SharedPrefixAttention, model: PreTrainedModel, ids: torch.Tensor
) -> torch.Tensor:
    with attention.installed(model):
        reading = attention.prefill(ids[:_READ].tolist())
        reading.read(model, _READ)
        return attention.tails(reading.prefix).forward(
            model,
            input_ids=ids[_READ:],
            position_ids=torch.arange(_READ, len(ids)),
            segment_ids=torch.zeros(_BEHIND, dtype=torch.long),
            logits_at=torch.arange(_BEHIND),
        )


def _say(model: PreTrainedModel, why: str) -> None:
    logging.getLogger(__name__).info(
        "%s keeps its own attention, which is slower: %s", type(model).__name__, why
    )
