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

import torch

from ttt_core import flops
from ttt_core.adapter import QueryAdapter
from ttt_core.drift import ending_tokens, measure_drift, measure_ending_loss
from ttt_core.errors import AdaptationError
from ttt_core.gate import Measured, judge
from ttt_core.lazy import lazy_property
from ttt_core.lesson import Lesson, Task
from ttt_core.probe import (
    FEWEST,
    ClozeScores,
    hold_out,
    more_right,
    paired_test,
    score_clozes,
    sign_test,
)
from ttt_core.progress import Progress, ProgressCallback, Stage, ignore_progress
from ttt_core.report import AdaptationReport, LearningRateTrial
from ttt_core.step import Activations, NonFiniteLossError, make_optimizer, training_step
from ttt_core.supervision import Cloze

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

    def __init__(self, task: Task, lesson: Lesson, learning_rate: float, costs: _Costs) -> None:
        config = task.config
        self.learning_rate = learning_rate
        self.losses: list[float] = []
        self.best_step = 0
        self.best_loss = math.inf
        self._task = task
        self._costs = costs
        self.adapter = task.new_adapter()
        self._best = self._initial = self.adapter.state_dict()
        self._optimizer = make_optimizer(self.adapter, config, learning_rate)
        self._objective = lesson.objective
        self._batches = lesson.batches()

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
            objective=self._objective,
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
        self._trials: list[LearningRateTrial] = []
        self._before: ClozeScores | None = None  # The base's scores, for the decision.

    def run(self) -> tuple[QueryAdapter | None, AdaptationReport]:
        config = self._config
        if config.steps == 0:
            return self._refuse("no steps were asked for (steps=0)")
        if self._must_gain and (reason := self._cannot_show_a_gain()):
            return self._refuse(reason)
        if next(self._lesson.batches(), None) is None:
            return self._refuse(self._lesson.nothing)
        if self._must_gain and not self._held_out.deciding:
            return self._refuse(self._too_few)
        run = self._tune()
        if run is None:
            return self._refuse("the loss was not finite at any learning rate")
        try:
            self._train(run)
        except NonFiniteLossError:
            return self._refuse(
                f"the loss was not finite at step {run.steps + 1}; base restored", run
            )
        if not run.changed():
            raise AdaptationError(
                f"{run.steps} steps at learning rate {run.learning_rate:g} changed no weight; "
                f"raise learning_rate, or set it to 'auto'"
            )
        return self._decide(run)

    @lazy_property
    def _lesson(self) -> Lesson:
        """Made when it is needed: some supervisions let the model write first."""
        with self._costs.stage("prepare"):
            return Lesson(self._task, self._held_out.passages)

    def _cannot_show_a_gain(self) -> str | None:
        """Say so if there are too few clozes, or the base is right too often to show a gain.

        Where there are none at all, it is more to the point to ask for material first.
        """
        if not self._held_out.deciding:
            return None
        if not self._held_out.can_decide:
            return self._too_few
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

    @property
    def _too_few(self) -> str:
        return (
            f"only {len(self._held_out.deciding)} held-out clozes, fewer than the {FEWEST} needed "
            f"to judge; the rule is to keep the base then (AdaptationConfig(gate=False) overrides)"
        )

    def _tune(self) -> _Run | None:
        """Start training at each learning rate, and return the run that did best."""
        rates = self._config.learning_rate
        ladder: tuple[float, ...] = (
            LADDERS[self._config.parametrization] if rates == "auto" else (rates,)
        )
        if self._for_question:
            ladder = ladder[-1:]  # What was published for it: nothing here measures a question.
        elif not self._can_choose:
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
        watch = self._config.early_stopping and self._can_choose
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
            measured = self._measure(run.adapter)
        verdict = judge(self._config, measured, for_question=self._for_question)
        adapter = run.adapter if verdict.adopt else self._kept
        reasons = verdict.reasons
        if self._lesson.fallback:
            reasons = (*reasons, "the supervision found nothing of its own; see its fallback")
        if adapter is not run.adapter and adapter is not None:
            reasons = (*reasons, "what the document alone taught is kept")
        return adapter, self._report(run, adapter, reasons, measured)

    def _measure(self, adapter: QueryAdapter) -> Measured:
        task, clozes = self._task, self._held_out.deciding
        scores, ending = self._probe(adapter), None
        if clozes:
            self._costs.probed_tokens += ending_tokens(task.document, clozes)
            ending = measure_ending_loss(task.runtime, task.prefix, task.document, clozes, adapter)
        drift = measure_drift(task.runtime, task.prefix, task.generic, adapter)
        if scores is None:
            return Measured(None, drift, ending)
        before, after = scores
        return Measured(paired_test(before, after), drift, ending, more_right(after, before))

    @property
    def _for_question(self) -> bool:
        return self._task.question is not None

    @property
    def _can_choose(self) -> bool:
        """Whether held-out clozes tell how well training goes: not if it is for a question."""
        return bool(self._held_out.choosing) and not self._for_question

    @property
    def _must_gain(self) -> bool:
        """Whether held-out clozes have to show a gain; for a question they only show harm."""
        return self._config.gate and not self._for_question

    @property
    def _kept(self) -> QueryAdapter | None:
        """What is left where training is refused: the document's own adapter, or the base."""
        return self._task.new_adapter() if self._task.start is not None else None

    def _probe(self, adapter: QueryAdapter) -> tuple[ClozeScores, ClozeScores] | None:
        """Score the deciding clozes before and after; None: too few to compare."""
        clozes = self._held_out.deciding
        if len(clozes) < 2:
            return None
        self._on_progress(Progress("probe", 0, len(clozes)))
        before = self._before or self._score(clozes, self._kept)
        after = self._score(clozes, adapter)
        self._on_progress(Progress("probe", len(clozes), len(clozes)))
        return before, after

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
        return _Run(self._task, self._lesson, learning_rate, self._costs)

    def _refuse(
        self, reason: str, run: _Run | None = None
    ) -> tuple[QueryAdapter | None, AdaptationReport]:
        kept = self._kept
        return kept, self._report(run, kept, (reason,), None)

    def _report(
        self,
        run: _Run | None,
        adapter: QueryAdapter | None,
        reasons: tuple[str, ...],
        measured: Measured | None,
    ) -> AdaptationReport:
        costs, architecture = self._costs, self._task.runtime.architecture
        tokens = len(self._task.prefix)
        spent = flops.training_flops(architecture, costs.trained_tokens, tokens)
        forward = costs.probed_tokens + self._task.base.computed_tokens
        spent += flops.forward_flops(architecture, forward, tokens)
        return AdaptationReport(
            decision="adapted" if adapter is not None else "kept_base",
            reasons=reasons,
            parametrization=self._config.parametrization,
            supervision=self._config.supervision,
            document_tokens=tokens,
            fallback=run is not None and self._lesson.fallback,
            kept_document=adapter is not None and (run is None or adapter is not run.adapter),
            steps=run.best_step if run else 0,
            steps_run=costs.steps,
            positions=costs.trained_tokens,
            probed_tokens=forward,
            losses=tuple(run.losses) if run else (),
            attention=self._task.runtime.attention.name,
            activation_bytes=costs.activations.peak,
            learning_rate=run.learning_rate if run else None,
            trials=tuple(self._trials),
            probe=measured.probe if measured else None,
            drift=measured.drift if measured else None,
            ending_loss=measured.ending_loss if measured else None,
            seconds=dict(costs.seconds),
            flops=spent,
            thinking_tokens=flops.thinking_tokens(architecture, spent, tokens),
        )
