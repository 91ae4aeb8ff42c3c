"""How long, how much memory? Interleaved timing and peak memory for all programs.

Time: peers take turns, round after round, in another order each round, so that the drift of a
shared machine hits all alike; figures are medians over the rounds. Memory is measured in a run of
its own before the timed rounds, which is also each peer's warm-up.

Memory on CUDA is the allocator's own peak. On Linux it is the growth of the process's resident set
to its high-water mark, as the kernel keeps it (/proc/self/clear_refs resets it): exact, with
nothing to poll. Freed memory that malloc holds back is returned first, or it would hide growth.
Elsewhere memory is not measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Timed(Generic[T]):
    """Seconds and results of one peer, a round each."""

    seconds: list[float] = field(default_factory=list)
    results: list[T] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds."""
        return median(self.seconds)


@dataclass(frozen=True)
class Memory:
    """Bytes beyond what was held before; None where they cannot be measured.

    Attributes:
        peak: The most at any moment.
        held: What is still held while the result lives.
    """

    peak: int | None
    held: int | None


def timed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Run `work` once; return its seconds, the device's queue included, and its result."""
    _synchronize(device)
    started = time.perf_counter()
    result = work()
    _synchronize(device)
    return time.perf_counter() - started, result


def interleaved(
    peers: Mapping[K, Callable[[int], T]], *, rounds: int, device: torch.device
) -> dict[K, Timed[T]]:
    """Time all peers in turn, `rounds` times; each is given the number of the round."""
    out: dict[K, Timed[T]] = {name: Timed() for name in peers}
    names = list(peers)
    for number in range(rounds):
        gc.collect()
        turn = number % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            seconds, result = timed(partial(peers[name], number), device)
            out[name].seconds.append(seconds)
            out[name].results.append(result)
    return out


def measured_memory(work: Callable[[], T], device: torch.device) -> tuple[Memory, T]:
    """Run `work` once and see what memory it took."""
    if device.type == "cuda":
        return _cuda_memory(work, device)
    _settle()
    try:
        before = _resident("VmRSS")
        _CLEAR.write_text("5")
    except (OSError, KeyError):
        return Memory(None, None), work()
    result = work()
    peak = _resident("VmHWM") - before
    _settle()
    return Memory(peak, _resident("VmRSS") - before), result


def _cuda_memory(work: Callable[[], T], device: torch.device) -> tuple[Memory, T]:
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = work()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    return Memory(peak, torch.cuda.memory_allocated(device) - before), result


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settle() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Not glibc.
        ctypes.CDLL(None).malloc_trim(0)


def _resident(name: str) -> int:
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024
