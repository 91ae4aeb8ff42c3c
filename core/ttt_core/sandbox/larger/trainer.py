"""One update after the other: periodic sequences first, then lessons, until steps or time are over.

Weights are float32; on CUDA the forward pass computes in bfloat16. Not compiled: rows have all
lengths, and each would be compiled anew.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ttt_core.sandbox.larger.config import LargerConfig
from ttt_core.sandbox.larger.feed import Feed
from ttt_core.sandbox.larger.state import TrainState
from ttt_core.sandbox.recipe import batch_loss, make_optimizer
from ttt_core.sandbox.rows import TRUNK, PaddedRows, growing_order, periodic_batch

_LEARNED = 0.93
"""Accuracy at which the vocabulary of periodic rows grows, ..."""
_LEAST_STEPS = 20
"""... but not before the running accuracy has forgotten the smaller one."""
_COPY_EVERY = 10
_PERIODIC_LENGTH = 64


class LargerTrainer:
    """The model, its optimizer and where training is.

    Args:
        model: Trained in place, on the device where it is.
        tokenizer: Names the tokens of periodic rows.
        config: The recipe.
        say: Takes lines that tell how it goes.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        config: LargerConfig,
        *,
        say: Callable[[str], None],
    ) -> None:
        self.model = model
        self.optimizer = make_optimizer(model, config.learning_rate)
        self.state = TrainState()
        self._config = config
        self._say = say
        self._order = torch.tensor(growing_order(tokenizer, random.Random(config.data.seed)))

    def train(
        self,
        feed: Feed,
        *,
        seconds: float,
        save: Callable[[], None],
        save_every: float = 180.0,
    ) -> None:
        """Train until all is done or `seconds` are over, those before a resumption included.

        Args:
            feed: Batches of lessons.
            seconds: Bounds `state.seconds`.
            save: Called every `save_every` seconds and at the end.
            save_every: In seconds.
        """
        self.model.train()
        began, saved = time.monotonic() - self.state.seconds, self.state.seconds
        while self.state.steps < self._config.steps:
            self.state.plan(self._config, seconds=seconds)
            if self.state.finished() or self.state.seconds >= seconds:
                break
            loss = self.step(self._next_batch(feed))
            self.state.tick(time.monotonic() - began)
            if self.state.steps % 50 == 0:
                self._report(loss)
            if self.state.seconds - saved >= save_every:
                save()
                saved = self.state.seconds
        save()

    def step(self, parts: list[PaddedRows]) -> float:
        """Make one update from the parts of a batch, as if they were one; return their loss."""
        state, device = self.state, self.model.device
        for group in self.optimizer.param_groups:
            group["lr"] = state.rate(self._config)
        total = sum(float(part.weights[:, 1:].sum()) for part in parts)
        self.optimizer.zero_grad()
        losses: list[float] = []
        for part in parts:
            share = float(part.weights[:, 1:].sum()) / total
            batch = PaddedRows(*(each.to(device, non_blocking=True) for each in part)).with_mask()
            with self._precision():
                loss, accuracy = batch_loss(self.model, batch)
            (loss * share).backward()
            losses.append(loss.item() * share)
            state.accuracy += 0.1 / len(parts) * (accuracy - state.accuracy)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        state.steps += 1
        state.tokens += sum(int((part.branches >= TRUNK).sum()) for part in parts)
        return sum(losses)

    def _next_batch(self, feed: Feed) -> list[PaddedRows]:
        state = self.state
        if state.chat_from is None and self._copying_goes_on():
            state.steps_at_size += 1
            return self._periodic(state.vocabulary)
        if state.chat_from is None:
            state.chat_from = state.steps
        if (state.steps - state.chat_from) % _COPY_EVERY == _COPY_EVERY - 1:
            return self._periodic(len(self._order))
        state.batches += 1
        return feed(state.batches - 1)

    def _copying_goes_on(self) -> bool:
        """Let the vocabulary grow if copying works; tell whether the first phase goes on."""
        state, whole = self.state, len(self._order)
        if state.steps >= self._config.periodic_steps:
            return False
        if state.accuracy > _LEARNED and state.steps_at_size > _LEAST_STEPS:
            if state.vocabulary >= whole:
                return False
            state.vocabulary = min(2 * state.vocabulary, whole)
            state.steps_at_size = 0
        return True

    def _periodic(self, vocabulary: int) -> list[PaddedRows]:
        """Draw periodic rows; which ones depends on the step alone."""
        seed = self._config.data.seed * 1_000_003 + self.state.steps
        batch = periodic_batch(
            self._order[:vocabulary],
            rows=self._config.periodic_rows,
            length=_PERIODIC_LENGTH,
            generator=torch.Generator().manual_seed(seed),
        )
        trunk = torch.full_like(batch.input_ids, TRUNK)
        return [PaddedRows(batch.input_ids, batch.position_ids.clone(), batch.weights, trunk)]

    def _precision(self) -> AbstractContextManager[None]:
        if self.model.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _report(self, loss: float) -> None:
        state = self.state
        phase = f"copy {state.vocabulary}" if state.chat_from is None else "lessons"
        self._say(
            f"step {state.steps:6d}  {phase:10s}  loss {loss:6.3f}  accuracy {state.accuracy:.3f}  "
            f"rate {state.rate(self._config):.1e}  {state.tokens / state.seconds:9,.0f} tokens/s  "
            f"{state.seconds:5.0f} s"
        )
