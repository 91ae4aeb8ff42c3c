"""How long work tells what it has done. A callback that raises cancels the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Stage = Literal["load", "prefill", "prepare", "tune", "train", "probe", "documents", "wait"]


@dataclass(frozen=True)
class Progress:
    """One report: `done` of `total` units of `stage`; tokens per second and loss where known.

    Where many documents are read one by one, the stage `documents` counts those that are done,
    and all others say which document, counted from 1, of how many is being read. `wait` counts
    seconds: somebody else reads the same document, or adapts to it.
    """

    stage: Stage
    done: int
    total: int
    tokens_per_second: float | None = None
    loss: float | None = None
    document: int | None = None
    documents: int | None = None


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing; the default callback."""


def numbered(callback: ProgressCallback, document: int, documents: int) -> ProgressCallback:
    """Add to every report which document, counted from 1, of how many it is about."""
    return lambda report: callback(replace(report, document=document, documents=documents))


def waiting(callback: ProgressCallback, total: float = 0) -> Callable[[float], None]:
    """Return a function that reports the seconds waited so far; `total`: at most, if known."""
    return lambda seconds: callback(Progress("wait", int(seconds), int(total)))
