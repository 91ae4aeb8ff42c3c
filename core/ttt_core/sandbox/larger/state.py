"""Where training is, and what follows from it: the learning rate, and when to stop.

What depends on the clock (when the rate begins to fall) is decided once and then part of the state,
so that a resumed run does what the interrupted one would have done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttt_core.sandbox.larger.config import LargerConfig


@dataclass
class TrainState:
    """All that training knows besides the weights and the optimizer's moments.

    Attributes:
        steps: Updates made.
        vocabulary: Tokens that periodic rows are made of, as of now.
        steps_at_size: Steps since it grew.
        accuracy: Running accuracy over what is fully weighted.
        chat_from: The step at which lessons began; None: not yet.
        batches: Batches of lessons used.
        decay_from: The step at which the rate began to fall; None: not yet.
        decay_steps: Over how many steps it falls.
        seconds: Time spent training.
        step_seconds: What a step takes, running mean; lessons take longer than periodic rows.
        tokens: Tokens trained on, padding not counted.
    """

    steps: int = 0
    vocabulary: int = 256
    steps_at_size: int = 0
    accuracy: float = 0.0
    chat_from: int | None = None
    batches: int = 0
    decay_from: int | None = None
    decay_steps: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    tokens: int = 0

    def rate(self, config: LargerConfig) -> float:
        """Return the learning rate of the next step."""
        rate = config.learning_rate * min(1.0, (self.steps + 1) / config.warmup_steps)
        if self.decay_from is None:
            return rate
        done = min(1.0, (self.steps - self.decay_from) / self.decay_steps)
        return rate * 0.5 * (1.0 + math.cos(math.pi * done))

    def tick(self, seconds: float) -> None:
        """Note that a step was over after `seconds` of training."""
        weight = max(0.05, 1.0 / max(1, self.steps))  # At first, the mean of all steps.
        self.step_seconds += weight * (seconds - self.seconds - self.step_seconds)
        self.seconds = seconds

    def plan(self, config: LargerConfig, *, seconds: float) -> None:
        """Begin to let the rate fall if the last share of the steps or of the time has begun.

        Args:
            config: The steps.
            seconds: The time for all of the training.
        """
        if self.decay_from is not None:
            return
        left, share = config.steps - self.steps, 1.0 - config.decay_share
        if self.seconds >= share * seconds:
            left = min(left, int((seconds - self.seconds) / max(self.step_seconds, 1e-9)))
        elif self.steps < share * config.steps:
            return
        self.decay_from, self.decay_steps = self.steps, max(1, left)

    def finished(self) -> bool:
        """Tell whether the rate has fallen to nothing."""
        return self.decay_from is not None and self.steps >= self.decay_from + self.decay_steps
