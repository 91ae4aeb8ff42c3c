"""How long work tells what it has done. A callback that raises cancels the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["load", "prefill", "tune", "train", "probe"]


@dataclass(frozen=True)
class Progress:
    """One report: `done` of `total` units of `stage`; tokens per second and loss where known."""

    stage: Stage
    done: int
    total: int
    tokens_per_second: float | None = None
    loss: float | None = None


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing; the default callback."""
