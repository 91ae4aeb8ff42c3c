"""A model and the right to use it: one forward pass at a time, an adapter bound for that pass only.

Whoever computes holds a turn for one step (a chunk of prefill, an optimiser step, one decoded
token) and gives it back. A paused consumer therefore holds nothing, and nothing is left on the
model between two steps of different requests.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from ttt_core.adapter import QueryAdapter
from ttt_core.attention import choose_attention
from ttt_core.config import AttentionName
from ttt_core.errors import OutOfMemoryError
from ttt_core.queries import input_device, inspect_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Runtime:
    """One model, its architecture, and the queue of those who want to use it."""

    def __init__(self, model: PreTrainedModel, *, attention: AttentionName = "auto") -> None:
        self.model = model
        self.architecture = inspect_model(model)
        self._queue = _queue_of(model)
        # Walked once: the tree is as deep as the model, and a turn is as short as one token.
        self._modules = tuple(model.modules())
        with self._alone():
            self.attention = choose_attention(model, self.architecture, attention)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs belong."""
        return input_device(self.model)

    @property
    def busy(self) -> bool:
        """Whether somebody computes with the model or waits for it."""
        return bool(self._queue.waiting)

    @contextmanager
    def turn(self, adapter: QueryAdapter | None = None) -> Iterator[PreTrainedModel]:
        """Wait for the device, then lend the model with `adapter` bound to it.

        Raises:
            OutOfMemoryError: The device ran out of memory inside the block.
        """
        binding = nullcontext() if adapter is None else adapter.bound(self.model)
        with self._alone(), self.attention.installed(self.model), binding, _memory_errors():
            yield self.model

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait for the model, then have it to oneself, in the mode that computing needs."""
        # A caller's inference mode would mark what other callers go on with, and cannot train.
        with self._queue.turn(), torch.inference_mode(False), _dropout_off(self._modules):
            yield


_queues: WeakKeyDictionary[PreTrainedModel, _Queue] = WeakKeyDictionary()
_queues_lock = threading.Lock()


def _forget_queues() -> None:
    """In a forked child nobody waits, and whoever held the lock is not there to give it back."""
    global _queues_lock
    _queues_lock = threading.Lock()
    _queues.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_queues)


def _queue_of(model: PreTrainedModel) -> _Queue:
    """One queue a model: two engines that borrow the same one wait for each other, too."""
    with _queues_lock:
        return _queues.setdefault(model, _Queue())


class _Queue:
    """A lock that serves in order of arrival; `threading.Lock` lets one thread starve the rest."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        mine = threading.Event()
        with self._guard:
            self.waiting.append(mine)
            if self.waiting[0] is mine:
                mine.set()
        try:
            mine.wait()
            yield
        finally:
            with self._guard:
                self.waiting.remove(mine)
                if self.waiting:
                    self.waiting[0].set()


@contextmanager
def _dropout_off(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Turn dropout off, and put every module back the way it was."""
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory() from error
    except RuntimeError as error:
        # The CPU allocator has no error class of its own.
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _out_of_memory() from error
        raise


def _out_of_memory() -> OutOfMemoryError:
    return OutOfMemoryError(
        "the device ran out of memory; model and store are unchanged. Lower "
        "RuntimeConfig.prefill_chunk, train_chunk, max_batch_size or max_kv_bytes, or read a "
        "shorter document."
    )
