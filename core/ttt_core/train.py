"""The adaptation of one document: hold out, tune, train, decide.

hold out ─▶ try each learning rate briefly ─▶ train on with the best ─▶ paired test ─▶ adapt
                                                                              └─▶ keep base
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ttt_core import flops
from ttt_core.adapter import QueryAdapter
from ttt_core.drift import measure_drift
from ttt_core.errors import AdaptationError
from ttt_core.probe import (
    FEWEST,
    ClozeScores,
    hold_out,
    paired_test,
    score_clozes,
    sign_test,
)
from ttt_core.progress import Progress, ProgressCallback, Stage, ignore_progress
from ttt_core.report import AdaptationReport, LearningRateTrial, ProbeResult
from ttt_core.step import Activations, NonFiniteLossError, make_optimizer, training_step
from ttt_core.supervision import Cloze, Supervision, TokenizedDocument, get_supervision

if TYPE_CHECKING:
    from ttt_core.config import AdaptationConfig
    from ttt_core.prefix import FrozenPrefix
    from ttt_core.runtime import Runtime

LADDERS = {"lora": (3e-3, 1e-3, 1e-4), "full": (1e-3, 1e-4, 1e-5)}
"""Learning rates tried by `auto`: the sandbox's best down to the paper's plateau."""

TRIAL_STEPS = 8
"""Steps of each trial; also how often early stopping looks."""

PATIENCE = 2
"""Looks without improvement before training stops."""


@dataclass
class _Costs:
    """Seconds and tokens, counted as they are spent."""

    activations: Activations
    steps: int = 0
    trained_tokens: int = 0
    probed_tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Task:
    """What is adapted to what, fixed for one adaptation.

    Attributes:
        runtime: The model.
        prefix: The document's keys and values.
        document: The document's tokens and passages.
        generic: Tokenised generic questions for the drift.
        config: The recipe.
        chunk: Tokens per forward and backward pass.
    """

    runtime: Runtime
    prefix: FrozenPrefix
    document: TokenizedDocument
    generic: Sequence[Sequence[int]]
    config: AdaptationConfig
    chunk: int = 1024


def adapt_queries(
    task: Task, *, on_progress: ProgressCallback = ignore_progress
) -> tuple[QueryAdapter | None, AdaptationReport]:
    """Train the queries on one document, and judge the result.

    Returns:
        The adapter, or None where the base is kept, and the report that says why.

    Raises:
        AdaptationError: Training ran, but no weight changed.
        OutOfMemoryError: The device is full.
    """
    with torch.inference_mode(False):  # A caller's would make tensors that cannot train.
        return _Adaptation(task, on_progress).run()


class _Run:
    """One sequence of optimiser steps at one learning rate, and the best weights on the way."""

    def __init__(
        self, task: Task, supervision: Supervision, learning_rate: float, costs: _Costs
    ) -> None:
        config = task.config
        self.learning_rate = learning_rate
        self.losses: list[float] = []
        self.best_step = 0
        self.best_loss = math.inf
        self._task = task
        self._costs = costs
        self.adapter = QueryAdapter.create(task.runtime.architecture.projections, config)
        self._best = self._initial = self.adapter.state_dict()
        self._optimizer = make_optimizer(
            self.adapter, learning_rate=learning_rate, weight_decay=config.weight_decay
        )
        self._batches = supervision.batches()

    @property
    def steps(self) -> int:
        return len(self.losses)

    def step(self) -> float:
        """Take one optimiser step and return its loss."""
        batch, task = next(self._batches), self._task
        first = None if self._costs.activations.peak else self._costs.activations
        loss = training_step(
            task.runtime,
            task.prefix,
            self.adapter,
            self._optimizer,
            batch,
            max_grad_norm=task.config.max_grad_norm,
            chunk=task.chunk,
            activations=first,  # Counting costs time, and every step keeps about the same.
        )
        self._costs.steps += 1
        self._costs.trained_tokens += len(batch.input_ids)
        self.losses.append(loss)
        return loss

    def look(self, loss: float) -> None:
        """Keep the weights if their held-out `loss` is the lowest so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.steps
            self._best = self.adapter.state_dict()

    def keep_best(self) -> None:
        """Return to the best weights seen."""
        self.adapter.load_state_dict(self._best)

    def changed(self) -> bool:
        """Whether any trained weight differs from where it began."""
        state = self.adapter.state_dict()
        return any(not torch.equal(state[name], self._initial[name]) for name in state)


class _Adaptation:
    """One call of `adapt_queries`."""

    def __init__(self, task: Task, on_progress: ProgressCallback) -> None:
        self._task = task
        self._config = task.config
        self._on_progress = on_progress
        self._costs = _Costs(Activations(task.runtime))
        self._held_out = hold_out(task.document, task.config)
        self._supervision = get_supervision(task.config.supervision)(
            task.document, held_out=self._held_out.passages, config=task.config
        )
        self._trials: list[LearningRateTrial] = []
        self._before: ClozeScores | None = None  # The base's scores, for the decision.

    def run(self) -> tuple[QueryAdapter | None, AdaptationReport]:
        config = self._config
        if config.steps == 0:
            return self._keep_base("no steps were asked for (steps=0)")
        if not self._has_material():
            return self._keep_base(
                f"the document is too short or too uniform for {config.supervision} supervision"
            )
        if config.gate and not self._held_out.can_decide:
            return self._keep_base(
                f"only {len(self._held_out.deciding)} held-out clozes, fewer than the {FEWEST} "
                f"needed to judge; the rule is to keep the base then "
                f"(AdaptationConfig(gate=False) overrides)"
            )
        if config.gate and (reason := self._nothing_to_mend()):
            return self._keep_base(reason)
        run = self._tune()
        if run is None:
            return self._keep_base("the loss was not finite at any learning rate")
        try:
            self._train(run)
        except NonFiniteLossError:
            return self._keep_base(
                f"the loss was not finite at step {run.steps + 1}; base restored", run
            )
        if not run.changed():
            raise AdaptationError(
                f"{run.steps} steps at learning rate {run.learning_rate:g} changed no weight; "
                f"raise learning_rate, or set it to 'auto'"
            )
        return self._decide(run)

    def _has_material(self) -> bool:
        return next(self._supervision.batches(), None) is not None

    def _nothing_to_mend(self) -> str | None:
        """Say so if the base is right too often for any training to show a gain."""
        with self._costs.stage("probe"):
            before = self._score(self._held_out.deciding, None)
        self._before = before
        wrong = int((before.right == 0).sum())
        if sign_test(better=wrong, worse=0) < self._config.significance:
            return None
        return (
            f"the base continues {before.right.mean():.0%} of {len(before.right)} held-out clozes "
            f"exactly: too few are left for a significant gain, so nothing was trained"
        )

    def _tune(self) -> _Run | None:
        """Start training at each learning rate, and return the run that did best."""
        rates = self._config.learning_rate
        ladder: tuple[float, ...] = (
            LADDERS[self._config.parametrization] if rates == "auto" else (rates,)
        )
        if len(ladder) > 1 and not self._held_out.choosing:
            ladder = ladder[len(ladder) // 2 :][:1]  # Nothing to choose by: a cautious rung.
        if len(ladder) == 1:
            return self._new_run(ladder[0])
        steps = min(TRIAL_STEPS, self._config.steps)
        before = self._choosing_loss(None)
        runs = []
        with self._costs.stage("tune"):
            for index, rate in enumerate(ladder):
                run, gain = self._new_run(rate), None
                try:
                    self._advance(run, steps, "tune", index * steps, len(ladder) * steps)
                    run.look(self._choosing_loss(run.adapter))
                    gain = before - run.best_loss
                except NonFiniteLossError:
                    run.best_loss = math.inf
                if math.isfinite(run.best_loss):
                    runs.append(run)
                self._trials.append(LearningRateTrial(learning_rate=rate, steps=steps, gain=gain))
        return min(runs, key=lambda run: run.best_loss, default=None)

    def _train(self, run: _Run) -> None:
        """Train on to the last step, or until held-out clozes stop improving."""
        total, waited = self._config.steps, 0
        watch = self._config.early_stopping and bool(self._held_out.choosing)
        with self._costs.stage("train"):
            while run.steps < total and waited < PATIENCE:
                self._advance(run, min(TRIAL_STEPS, total - run.steps), "train", run.steps, total)
                if watch:
                    run.look(self._choosing_loss(run.adapter))
                    waited = 0 if run.best_step == run.steps else waited + 1
        self._on_progress(Progress("train", total, total, loss=run.losses[-1]))
        if watch:
            run.keep_best()
        else:
            run.best_step = run.steps

    def _decide(self, run: _Run) -> tuple[QueryAdapter | None, AdaptationReport]:
        with self._costs.stage("probe"):
            probe = self._probe(run.adapter)
            task = self._task
            drift = measure_drift(task.runtime, task.prefix, task.generic, run.adapter)
        reasons, adopt = self._reasons(probe, drift)
        report = self._report(run, adopt, reasons, probe, drift)
        return (run.adapter if adopt else None), report

    def _reasons(self, probe: ProbeResult | None, drift: float) -> tuple[tuple[str, ...], bool]:
        config = self._config
        if not config.gate:
            return ("the gate is off (gate=False)",), True
        assert probe is not None
        gain = (
            f"held-out gain {probe.gain:+.3f} nats per token on {probe.clozes} clozes, "
            f"p = {probe.p_value:.3g}"
        )
        right = (
            f"continued exactly: {probe.right_before:.0%} before, {probe.right_after:.0%} after, "
            f"p = {probe.right_p_value:.3g}"
        )
        level = f"not significant at {config.significance:g}"
        exact = f"exact continuations: {level}"
        # "not <" and not ">=": a comparison with NaN must never adapt.
        if not probe.p_value < config.significance:
            return (gain, level), False
        if not probe.right_p_value < config.significance:
            return (gain, right, exact), False
        if not drift <= config.max_drift:
            limit = f"drift {drift:.2f} nats per token is above max_drift={config.max_drift:g}"
            return (gain, right, limit), False
        return (gain, right), True

    def _probe(self, adapter: QueryAdapter) -> ProbeResult | None:
        clozes = self._held_out.deciding
        if len(clozes) < 2:
            return None
        self._on_progress(Progress("probe", 0, len(clozes)))
        before = self._before or self._score(clozes, None)
        after = self._score(clozes, adapter)
        self._on_progress(Progress("probe", len(clozes), len(clozes)))
        return paired_test(before, after)

    def _advance(self, run: _Run, steps: int, stage: Stage, done: int, total: int) -> None:
        started, tokens = time.perf_counter(), self._costs.trained_tokens
        for step in range(1, steps + 1):
            loss = run.step()
            seconds = max(time.perf_counter() - started, 1e-9)
            speed = (self._costs.trained_tokens - tokens) / seconds
            self._on_progress(Progress(stage, done + step, total, speed, loss))

    def _choosing_loss(self, adapter: QueryAdapter | None) -> float:
        loss = self._score(self._held_out.choosing, adapter).losses.mean().item()
        return loss if math.isfinite(loss) else math.inf

    def _score(self, clozes: Sequence[Cloze], adapter: QueryAdapter | None) -> ClozeScores:
        task = self._task
        tail = len(task.document.answer_start)
        self._costs.probed_tokens += sum(end - start + tail for start, _, end in clozes)
        return score_clozes(task.runtime, task.prefix, task.document, clozes, adapter)

    def _new_run(self, learning_rate: float) -> _Run:
        return _Run(self._task, self._supervision, learning_rate, self._costs)

    def _keep_base(
        self, reason: str, run: _Run | None = None
    ) -> tuple[QueryAdapter | None, AdaptationReport]:
        return None, self._report(run, False, (reason,), None, None)

    def _report(
        self,
        run: _Run | None,
        adopt: bool,
        reasons: tuple[str, ...],
        probe: ProbeResult | None,
        drift: float | None,
    ) -> AdaptationReport:
        costs, architecture = self._costs, self._task.runtime.architecture
        tokens = len(self._task.prefix)
        spent = flops.training_flops(architecture, costs.trained_tokens, tokens)
        spent += flops.forward_flops(architecture, costs.probed_tokens, tokens)
        return AdaptationReport(
            decision="adapted" if adopt else "kept_base",
            reasons=reasons,
            parametrization=self._config.parametrization,
            supervision=self._config.supervision,
            document_tokens=tokens,
            steps=run.best_step if run else 0,
            steps_run=costs.steps,
            positions=costs.trained_tokens,
            probed_tokens=costs.probed_tokens,
            losses=tuple(run.losses) if run else (),
            attention=self._task.runtime.attention.name,
            activation_bytes=costs.activations.peak,
            learning_rate=run.learning_rate if run else None,
            trials=tuple(self._trials),
            probe=probe,
            drift=drift,
            seconds=dict(costs.seconds),
            flops=spent,
            thinking_tokens=flops.thinking_tokens(architecture, spent, tokens),
        )
