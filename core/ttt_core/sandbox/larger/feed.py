"""Batches ahead of time: made by other processes while the device computes.

Python makes some hundred rows a second on one core, a GPU reads more. Threads would share one
core; so these are processes, each with a tokenizer of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from ttt_core.sandbox.larger.config import DataConfig
from ttt_core.sandbox.larger.rows import RowSource
from ttt_core.sandbox.larger.tokenizer import load_tokenizer
from ttt_core.sandbox.rows import PaddedRows

if TYPE_CHECKING:
    import numpy

_AHEAD = 4
"""Batches in the making for each process."""


class Feed(Protocol):
    """Gives batches by number, in rising order."""

    def __call__(self, index: int) -> list[PaddedRows]:
        """Return batch `index`, on the CPU."""
        ...


@contextmanager
def feeding(folder: Path, config: DataConfig, *, workers: int) -> Iterator[Feed]:
    """Make batches, in `workers` other processes; none: here, when asked for.

    Args:
        folder: Where the tokenizer is saved.
        config: What rows look like.
        workers: The batches do not depend on how many there are.
    """
    if workers == 0:
        yield _open(folder, config).batch
        return
    # Not forked: CUDA does not survive it.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start, (folder, config))
    try:
        yield partial(_ahead, pool, {}, workers * _AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


_Sent = list[tuple["numpy.ndarray[tuple[int, ...], numpy.dtype[numpy.generic]]", ...]]


def _ahead(
    pool: ProcessPoolExecutor, pending: dict[int, Future[_Sent]], ahead: int, index: int
) -> list[PaddedRows]:
    """Return a batch, having asked for the next ones."""
    for each in range(index, index + ahead):
        if each not in pending:
            pending[each] = pool.submit(_make, each)
    return [PaddedRows(*map(torch.from_numpy, part)) for part in pending.pop(index).result()]


_source: RowSource | None = None
"""In a worker process: what it makes batches with."""


def _start(folder: Path, config: DataConfig) -> None:
    global _source
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    _source = _open(folder, config)


def _open(folder: Path, config: DataConfig) -> RowSource:
    return RowSource(load_tokenizer(folder), config)


def _make(index: int) -> _Sent:
    # Arrays, not tensors: those would be sent as open files, of which there can be too many.
    assert _source is not None
    return [tuple(each.numpy() for each in part) for part in _source.batch(index)]
