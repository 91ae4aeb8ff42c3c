"""What is one training step? Ours on three kinds of batches, and the same without this engine.

random_span   `--positions` consecutive tokens in place, from the document's middle: the mean
picked        as many tokens at random places, as recurrence supervision picks them
cloze         24 tails of 20 tokens behind the document, the last 10 of each labelled
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch.nn import functional

from bench.answering import cache_by_reference
from bench.options import Setting
from ttt_core.adapter import QueryAdapter
from ttt_core.config import AdaptationConfig
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.prefix import FrozenPrefix
from ttt_core.step import make_optimizer, training_step

_TAILS, _TAIL, _LABELLED = 24, 20, 10


def make_batches(setting: Setting, prefix: FrozenPrefix, positions: int) -> dict[str, PackedBatch]:
    """Return one batch of each kind."""
    last = len(prefix) - 1  # Has no successor to learn.
    start = (last - positions) // 2
    picked = random.Random(0).sample(range(last), positions)
    return {
        "random_span": in_place(prefix, range(start, start + positions)),
        "picked": in_place(prefix, sorted(picked)),
        "cloze": _tails(setting, prefix),
    }


def in_place(prefix: FrozenPrefix, positions: Sequence[int]) -> PackedBatch:
    """Train document tokens at `positions` to predict their successors."""
    ids = torch.tensor(prefix.input_ids)
    index = torch.tensor(list(positions))
    return PackedBatch(ids[index], index, ids[index + 1], None)


def _tails(setting: Setting, prefix: FrozenPrefix) -> PackedBatch:
    texts = setting.questions(_TAILS, _TAIL + 1)
    return PackedBatch.of_tails(
        [text[:-1] for text in texts],
        [[IGNORE] * (_TAIL - _LABELLED) + text[-_LABELLED:] for text in texts],
        start=len(prefix),
    )


class Trainer:
    """An adapter, its optimiser, and steps taken in different ways."""

    def __init__(self, setting: Setting, prefix: FrozenPrefix, config: AdaptationConfig) -> None:
        self._setting, self._prefix, self._config = setting, prefix, config
        self.adapter = QueryAdapter.create(setting.runtime.architecture.projections, config)
        self._optimizer = make_optimizer(self.adapter, config, 1e-4)

    def ours(self, batch: PackedBatch) -> float:
        """One step of this engine; returns its loss."""
        return training_step(
            self._setting.runtime,
            self._prefix,
            self.adapter,
            self._optimizer,
            batch,
            max_grad_norm=self._config.max_grad_norm,
        )

    def copied_cache(self, batch: PackedBatch) -> float:
        """The same step the obvious way: copy the cache, run the tokens behind the copy.

        Consecutive tokens go behind a copy cropped to what stands before them; all others need a
        mask over copy and tokens.
        """
        cache = copy.deepcopy(cache_by_reference(self._prefix))
        device, mask = self._setting.device, None
        start = int(batch.position_ids[0])
        if _consecutive(batch):
            cache.crop(start - len(self._prefix))
        else:
            mask = _mask(batch, len(self._prefix))[None, None].to(device)
        with self._own_attention(), torch.enable_grad():
            logits = self._setting.model(
                input_ids=batch.input_ids[None].to(device),
                position_ids=batch.position_ids[None].to(device),
                attention_mask=mask,
                past_key_values=cache,
                logits_to_keep=batch.labelled.to(device),
            ).logits[0]
            targets = batch.targets.to(device)
            return self._learn(functional.cross_entropy(logits.float(), targets))

    def whole_document(self) -> float:
        """One step on all of the document's tokens, without a cache, training the same weights."""
        ids = torch.tensor([self._prefix.input_ids], device=self._setting.device)
        with self._own_attention(), torch.enable_grad():
            logits = self._setting.model(input_ids=ids, use_cache=False).logits[0, :-1]
            return self._learn(functional.cross_entropy(logits.float(), ids[0, 1:]))

    def _own_attention(self) -> AbstractContextManager[None]:
        """Bind the adapter only: a turn of the runtime would install this engine's attention."""
        return self.adapter.bound(self._setting.model)

    def _learn(self, loss: torch.Tensor) -> float:
        parameters = self.adapter.parameters()
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(parameters, self._config.max_grad_norm)
        self._optimizer.step()
        return loss.item()


def _consecutive(batch: PackedBatch) -> bool:
    steps = batch.position_ids.diff()
    return batch.segment_ids is None and bool((steps == 1).all())


def _mask(batch: PackedBatch, prefix_tokens: int) -> torch.Tensor:
    """Which keys each token may read, of the copied prefix and of the batch itself."""
    positions = batch.position_ids
    prefix = torch.arange(prefix_tokens)[None] <= positions[:, None]
    own = torch.zeros(len(positions), len(positions), dtype=torch.bool)
    if batch.segment_ids is not None:
        same = batch.segment_ids[:, None] == batch.segment_ids[None]
        own = same & (positions[None] <= positions[:, None])
    return torch.cat([prefix, own], dim=1)
