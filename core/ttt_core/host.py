"""One model of this process: loaded when it is first needed, with what is held in its memory.

Engines for several namespaces share it. A forked child holds nothing of it: locks may be held by
threads that the child does not have, and what lives on an accelerator belongs to the parent. The
child loads the model again, if whoever made the host said how.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch

from ttt_core.config import RuntimeConfig
from ttt_core.errors import ReleasedError
from ttt_core.flights import SingleFlight
from ttt_core.learning import LearnedMemory
from ttt_core.loaded import LoadedModel
from ttt_core.memory import prefix_memory
from ttt_core.reading import Reader
from ttt_core.runtime import Runtime
from ttt_core.scheduler import Scheduler

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Loader = Callable[[], "tuple[PreTrainedModel, PreTrainedTokenizerBase]"]


class Resident(NamedTuple):
    """A loaded model with those who read and remember for it."""

    model: LoadedModel
    reader: Reader
    learned: LearnedMemory


class ModelHost:
    """Loads a model once and holds it, its documents and its adapters. Thread-safe.

    Args:
        loader: Returns model and tokenizer.
        config: Limits and chunk sizes.
        template_kwargs: Extra variables for the chat template.
        store: Folder of the adapter store; the disk level of keys and values, if any, is inside.
        reloads: Whether calling `loader` again, in another process, gives a model of its own.
    """

    def __init__(
        self,
        loader: Loader,
        config: RuntimeConfig,
        template_kwargs: dict[str, Any] | None,
        store: Path,
        *,
        reloads: bool,
    ) -> None:
        self.config = config
        self._loader = loader
        self._template_kwargs = template_kwargs
        self._store = store
        self._reloads = reloads
        self._resident: Resident | None = None
        self._closed = False
        self._start()
        _hosts.add(self)

    def resident(self) -> Resident:
        """Return the loaded model; loads it the first time.

        Raises:
            ReleasedError: This was closed, maybe while the model was being loaded.
        """
        with self._loading:
            if (resident := self._resident) is None:
                self._resident = resident = self._load()
            if self._closed:
                self._resident = None
                _closed_loader()
            return resident

    @property
    def loaded(self) -> Resident | None:
        """The loaded model, if it is."""
        return self._resident

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def clear(self) -> None:
        """Hold no document and no adapter; the store keeps what it has."""
        if (resident := self._resident) is not None:
            resident.reader.clear()
            resident.learned.clear()

    def close(self) -> None:
        """Hold nothing any more. Waits for nobody, not even for a model that is being loaded.

        Requests that compute are finished, and hold what they need until then.
        """
        self._closed, self._loader = True, _closed_loader
        self.clear()
        self._resident = None

    def _load(self) -> Resident:
        global _has_computed
        _has_computed = True
        model = LoadedModel(*self._loader(), self._template_kwargs, self.config.attention)
        prefixes = prefix_memory(self.config, model.runtime, self._store)
        return Resident(
            model,
            Reader(model, self.config, prefixes),
            LearnedMemory(self.config.max_adapter_bytes),
        )

    def _start(self) -> None:
        self._loading = threading.Lock()
        self.single_flight = SingleFlight()
        self.scheduler = Scheduler(self.config.max_batch_size)

    def _forget_parent(self) -> None:
        """Begin anew in a forked child."""
        self._start()
        resident, self._resident = self._resident, None
        if resident is None:
            return
        runtime = resident.model.runtime
        on_accelerator = _uses_accelerator(runtime)
        if on_accelerator:
            # Even to free its memory would touch the parent's device.
            _left_behind.append(resident)
        if not self._reloads and (on_accelerator or runtime.busy):
            self._loader = _lost_loader


_hosts: weakref.WeakSet[ModelHost] = weakref.WeakSet()
_left_behind: list[Resident] = []
_has_computed = False


def _uses_accelerator(runtime: Runtime) -> bool:
    """Whether any part is elsewhere than on the CPU; weights that wait for their turn count."""
    weights = {weight.device.type for weight in runtime.model.parameters()}
    return {runtime.device.type} | weights != {"cpu"}


def _forget_parents() -> None:
    if _has_computed:
        # OpenMP's worker threads stayed behind: who waits for them waits for ever. PyTorch's own
        # data loader does the same in its workers (https://github.com/pytorch/pytorch/issues/17199).
        torch.set_num_threads(1)
    for host in list(_hosts):
        host._forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)


def _closed_loader() -> NoReturn:
    raise ReleasedError("this engine was closed; make a new one")


def _lost_loader() -> NoReturn:
    raise ReleasedError(
        "this process was forked while the engine's model was on an accelerator or computing; "
        "make the engine in the child, or with TTTEngine.from_pretrained, which loads it again"
    )
