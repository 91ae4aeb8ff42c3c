"""Callers who share forward passes: the same answers in fewer passes, and nobody in another's way.

Threads are real and nothing is left to luck: the passes themselves wait for what a test is about.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ttt_core import AdaptationConfig, GenerationConfig, OutOfMemoryError, RuntimeConfig, TTTEngine
from ttt_core.adapter import QueryAdapter
from ttt_core.generate import Request, Row
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix
from ttt_core.runtime import Runtime
from ttt_core.scheduler import Scheduler

WAIT = 30  # Seconds after which a deadlock is a failure; nothing waits that long.
ANSWER = 10  # Tokens of an answer, where a test does not say otherwise.


@dataclass
class Pass:
    """One forward pass: whose tails, which of them, and how many tokens each."""

    tails: int
    segments: list[int]

    @property
    def rows(self) -> int:
        return len(set(self.segments))

    @property
    def reads(self) -> bool:
        return len(self.segments) > self.rows


@dataclass
class Passes:
    """Stands before the model: notes every forward pass, and may hold it up or break it."""

    runtime: Runtime
    log: list[Pass] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    joined: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    before: Callable[[Pass], None] = lambda one: None
    after: Callable[[Pass], None] = lambda one: None
    made: int = 0

    def tails(self, prefix: FrozenPrefix) -> Any:
        inner, number = self.inner(prefix), self.made
        self.made += 1

        def forward(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
            one = Pass(number, inputs["segment_ids"].tolist())
            self.log.append(one)
            self.before(one)
            logits: torch.Tensor = inner.forward(model, **inputs)
            self.after(one)
            return logits

        def drop(segment: int) -> None:
            self.dropped.append(segment)
            inner.drop(segment)

        return SimpleNamespace(name=inner.name, forward=forward, drop=drop)

    def inner(self, prefix: FrozenPrefix) -> Any:
        raise NotImplementedError

    def wait_for(self, callers: int) -> Callable[[Pass], None]:
        """Hold up the first pass until so many have joined."""

        def hold(one: Pass) -> None:
            if len(self.log) == 1:
                for _ in range(callers):
                    assert self.joined.acquire(timeout=WAIT)

        return hold


@pytest.fixture
def runtime(model: PreTrainedModel) -> Runtime:
    return Runtime(model)


@pytest.fixture
def passes(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Passes:
    return watch(runtime, monkeypatch)


def watch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Passes:
    import ttt_core.scheduler

    passes = Passes(runtime)
    passes.inner = runtime.attention.tails  # type: ignore[method-assign]
    join = ttt_core.scheduler._Batch.join

    def announced(*args: Any) -> None:
        join(*args)
        passes.joined.release()

    monkeypatch.setattr(runtime.attention, "tails", passes.tails)
    monkeypatch.setattr(ttt_core.scheduler._Batch, "join", announced)
    return passes


def tokens(n: int, *, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, 300, (n,), generator=generator).tolist()


def spell(ids: Sequence[int]) -> str:
    return "".join(chr(97 + token % 26) for token in ids)


@pytest.fixture
def request_(runtime: Runtime) -> Request:
    return Request(runtime, prefill(runtime, tokens(40)), None, spell, frozenset())


def row(request: Request, number: int = 0, *, n: int = ANSWER, **options: Any) -> Row:
    """Questions of different lengths, and different ones for different numbers."""
    suffix = tokens(5 + number % 7, seed=number + 1)
    return Row(request, suffix, GenerationConfig(**options), n)


def alone(one: Row) -> list[int]:
    """What a row becomes when nobody else asks."""
    other = Row(one.request, one.suffix, one.config, one.max_new_tokens)
    Scheduler(1).run([other])
    return other.ids


class Caller(threading.Thread):
    """A thread that keeps what its work raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self._work = work

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error


def call(*works: Callable[[], object]) -> list[BaseException | None]:
    """Run works at once, each in a thread of its own; return what each one raised."""
    callers = [Caller(work) for work in works]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(WAIT)
        assert not caller.is_alive(), "somebody waits for ever"
    return [caller.error for caller in callers]


def runs(scheduler: Scheduler, rows: Sequence[Row]) -> list[Callable[[], object]]:
    return [lambda one=one: scheduler.run([one]) for one in rows]  # type: ignore[misc]


# ---------------------------------------------------------------- together


def test_callers_at_once_share_passes_and_get_what_each_gets_alone(
    passes: Passes, request_: Request
) -> None:
    rows = [row(request_, number) for number in range(6)]
    expected = [alone(one) for one in rows]
    assert len(passes.log) == 6 * ANSWER
    passes.log.clear()
    passes.joined = threading.Semaphore(0)
    passes.before = passes.wait_for(6)
    assert call(*runs(Scheduler(64), rows)) == [None] * 6
    assert [one.ids for one in rows] == expected
    assert len(passes.log) <= ANSWER + 3
    assert max(one.rows for one in passes.log) == 6


def test_usage_and_timing_are_each_row_s_own(passes: Passes, request_: Request) -> None:
    rows = [row(request_, number, n=number + 1) for number in range(5)]
    Scheduler(64).run(rows)
    for one in rows:
        answer = one.answer()
        assert answer.finish_reason == "length"
        assert answer.usage.completion_tokens == one.max_new_tokens
        assert answer.usage.computed_tokens == len(one.suffix) + one.max_new_tokens - 1
        assert 0 < answer.timing.first_token <= answer.timing.total
        assert answer.timing.attention == request_.runtime.attention.name
    totals = [one.answer().timing.total for one in rows]
    assert totals == sorted(totals), "a row's clock stops with the row"


def test_rows_end_at_different_times(passes: Passes, request_: Request) -> None:
    lengths = [3, 12, 1, 7, 7, 2]
    rows = [row(request_, number, n=n) for number, n in enumerate(lengths)]
    Scheduler(64).run(rows)
    assert [len(one.ids) for one in rows] == lengths
    assert [one.rows for one in passes.log] == [6] + [
        sum(n > step for n in lengths) for step in range(1, 12)
    ]
    assert sorted(passes.dropped) == list(range(6))


def test_the_end_token_and_stop_strings_end_their_own_rows_only(request_: Request) -> None:
    free = [alone(row(request_, number)) for number in range(3)]
    request = replace(request_, eos_token_ids=frozenset([free[0][4]]))
    rows = [row(request, 0), row(request_, 1, stop=(spell(free[1][2:4]),)), row(request_, 2)]
    Scheduler(64).run(rows)
    assert rows[0].ids == free[0][: free[0].index(free[0][4])]
    assert spell(free[1]).startswith(rows[1].text)
    assert len(rows[1].ids) <= 4
    assert [one.finish_reason for one in rows] == ["stop", "stop", "length"]
    assert rows[2].ids == free[2]


def test_who_has_what_it_wants_does_not_wait_for_the_driver(
    passes: Passes, request_: Request
) -> None:
    scheduler, short = Scheduler(64), row(request_, 1, n=3)
    caller = Caller(lambda: scheduler.run([short]))

    def expect(one: Pass) -> None:
        if len(passes.log) == 1:
            caller.start()
            for _ in range(2):
                assert passes.joined.acquire(timeout=WAIT)
        if len(passes.log) == 10:
            caller.join(WAIT)
            assert not caller.is_alive()

    passes.before = expect
    scheduler.run([row(request_, 0, n=20)])
    assert short.finish_reason == "length"


def test_a_newcomer_joins_a_running_batch(passes: Passes, request_: Request) -> None:
    scheduler, first, late = Scheduler(64), row(request_, 0, n=20), row(request_, 1)
    expected = alone(first), alone(late)
    passes.log.clear()
    caller = Caller(lambda: scheduler.run([late]))

    def bring_newcomer(one: Pass) -> None:
        if len(passes.log) == 5:
            caller.start()
            assert passes.joined.acquire(timeout=WAIT)

    passes.before = bring_newcomer
    stream = scheduler.stream([first])
    next(stream)
    passes.joined = threading.Semaphore(0)  # Those so far were the first one itself.
    list(stream)
    caller.join(WAIT)
    assert (first.ids, late.ids) == expected
    assert [one.rows for one in passes.log[:5]] == [1] * 5
    assert passes.log[5].reads, "it is read in the very next step"
    assert passes.log[6].rows == 2
    assert len(passes.log) == 20 + 1, "only its question costs a step of its own"


def test_a_long_question_does_not_hold_up_answers(
    passes: Passes, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttt_core.scheduler._CHUNK", 16)
    scheduler, first = Scheduler(64), row(request_, 0, n=12)
    long = Row(request_, tokens(60, seed=9), GenerationConfig(), 3)
    expected = alone(first), alone(long)
    stream = scheduler.stream([first])
    next(stream)
    next(stream)
    passes.log.clear()
    scheduler.run([long])
    assert [one.reads for one in passes.log[:8]] == [True, False] * 4
    list(stream)
    assert (first.ids, long.ids) == expected


def test_documents_take_turns(passes: Passes, runtime: Runtime, request_: Request) -> None:
    other = replace(request_, prefix=prefill(runtime, tokens(30, seed=5)))
    rows = [row(request_, 0), row(other, 1)]
    expected = [alone(one) for one in rows]
    made = passes.made
    passes.log.clear()

    def until_both_queue(one: Pass) -> None:
        deadline = time.monotonic() + WAIT
        while len(runtime._queue.waiting) < 2 and not any(r.finish_reason for r in rows):
            assert time.monotonic() < deadline
            time.sleep(0.0005)

    passes.before = until_both_queue
    assert call(*runs(Scheduler(64), rows)) == [None, None]
    assert [one.ids for one in rows] == expected
    order = [one.tails - made for one in passes.log]
    assert order in ([0, 1] * ANSWER, [1, 0] * ANSWER)


def noisy(runtime: Runtime, seed: int) -> QueryAdapter:
    config = AdaptationConfig(r=2, seed=seed)
    adapter = QueryAdapter.create(runtime.architecture.projections, config)
    generator = torch.Generator().manual_seed(seed)
    state = adapter.state_dict()
    adapter.load_state_dict(
        {name: torch.randn(weight.shape, generator=generator) for name, weight in state.items()}
    )
    return adapter


def test_adapters_never_share_a_pass(passes: Passes, runtime: Runtime, request_: Request) -> None:
    adapters = [None, noisy(runtime, 1), noisy(runtime, 2)]
    requests = [replace(request_, adapter=adapter) for adapter in adapters]
    rows = [row(request, number) for request in requests for number in (0, 1)]
    expected = [alone(one) for one in rows]
    assert len({tuple(ids) for ids in expected[::2]}) == 3, "the adapters must matter"
    name = runtime.architecture.projections[0].name
    bound: dict[int, set[int]] = {}
    passes.log.clear()

    def note(one: Pass) -> None:
        bound.setdefault(one.tails, set()).add(id(runtime.model.get_submodule(name)))

    passes.before = note
    scheduler = Scheduler(64)
    in_turns([scheduler.stream([one]) for one in rows])
    assert [one.ids for one in rows] == expected
    assert [len(modules) for modules in bound.values()] == [1, 1, 1]
    assert len(set.union(*bound.values())) == 3
    assert max(one.rows for one in passes.log) == 2


def in_turns(streams: Sequence[Iterator[tuple[int, str]]]) -> None:
    """Read streams to their ends, one piece of each in turn."""
    active = list(streams)
    while active:
        active = [stream for stream in active if next(stream, None) is not None]


# ---------------------------------------------------------------- readers of streams


def test_a_stream_alone_computes_what_is_asked_for_and_no_more(
    passes: Passes, request_: Request
) -> None:
    one = row(request_)
    stream = Scheduler(64).stream([one])
    assert passes.log == []
    for n in range(1, ANSWER + 1):
        assert next(stream) == (0, one.text[-1:])
        assert len(passes.log) == len(one.ids) == n


def test_a_paused_reader_stops_nobody_and_is_not_computed_for(
    passes: Passes, request_: Request
) -> None:
    scheduler, paused, other = Scheduler(64), row(request_, 0, n=30), row(request_, 1, n=25)
    expected = alone(paused), alone(other)
    stream = scheduler.stream([paused])
    text = next(stream)[1] + next(stream)[1]
    scheduler.run([other])
    assert other.ids == expected[1]
    assert len(paused.ids) == 2 + 8
    text += "".join(piece for _, piece in stream)
    assert (paused.ids, text) == (expected[0], spell(expected[0]))


def test_text_that_is_held_back_does_not_count_as_unread(request_: Request) -> None:
    """A row that says nothing for many tokens must go on all the same."""
    free = alone(row(request_, 0, n=20))
    stop = spell(free)[:15] + "!"
    one = row(request_, 0, n=20, stop=(stop,))
    assert "".join(text for _, text in Scheduler(64).stream([one])) == spell(free)


def test_paused_readers_make_room(passes: Passes, request_: Request) -> None:
    scheduler = Scheduler(2)
    paused = [row(request_, number, n=30) for number in range(3)]
    other = row(request_, 3, n=25)
    expected = [alone(one) for one in (*paused, other)]
    passes.log.clear()
    streams = [scheduler.stream([one]) for one in paused]
    for stream in streams:
        next(stream)
    scheduler.run([other])
    assert other.ids == expected[3]
    in_turns(streams)
    assert [one.ids for one in paused] == expected[:3]
    assert max(one.rows for one in passes.log) == 2


def test_late_readers_take_part_in_every_pass(passes: Passes, request_: Request) -> None:
    rows = [row(request_, number) for number in range(4)]
    expected = [alone(one) for one in rows]
    passes.log.clear()
    scheduler = Scheduler(64)
    in_turns([scheduler.stream([one]) for one in rows])
    assert [one.ids for one in rows] == expected
    assert len(passes.log) <= 2 * ANSWER


# ---------------------------------------------------------------- cancelling


def close(stream: Any) -> None:
    stream.close()


def forget(stream: Any) -> None:
    """The test holds no reference but the list's, which `pop` took away."""


@pytest.mark.parametrize("end", [close, forget])
def test_one_that_is_closed_or_forgotten_leaves_the_others(
    passes: Passes, request_: Request, end: Callable[[Any], None]
) -> None:
    scheduler = Scheduler(64)
    rows = [row(request_, number, n=20) for number in range(3)]
    expected = [alone(one) for one in rows]
    passes.dropped.clear()
    streams = [scheduler.stream([one]) for one in rows]
    for stream in streams:
        next(stream)
    del stream
    end(streams.pop(1))
    assert passes.dropped == [1]
    said = list(rows[1].ids)
    passes.log.clear()
    in_turns(streams)
    assert rows[1].ids == said == expected[1][: len(said)]
    assert rows[1].answer().finish_reason == "cancelled"
    assert not any(1 in one.segments for one in passes.log)
    assert [rows[0].ids, rows[2].ids] == [expected[0], expected[2]]


def test_the_garbage_collector_may_come_while_the_batch_is_locked(
    passes: Passes, request_: Request
) -> None:
    scheduler, one, other = Scheduler(64), row(request_, 0), row(request_, 1)
    expected = alone(other)
    gc.disable()  # It should not come before.
    circle: list[Any] = [scheduler.stream([one])]
    next(circle[0])
    circle.append(circle)
    del circle

    def collect(ids: Sequence[int]) -> str:
        if len(other.ids) == 3:
            assert [batch._lock.locked() for batch in scheduler._batches.values()] == [True]
            gc.collect()
        return spell(ids)

    other = row(replace(request_, decode=collect), 1)
    try:
        assert call(lambda: scheduler.run([other])) == [None]
    finally:
        gc.enable()
    assert other.ids == expected
    assert len(one.ids) == 4, "computed ahead until it was collected"
    assert sorted(passes.dropped[-2:]) == [0, 1]


def test_a_batch_is_forgotten_with_its_last_caller(passes: Passes, request_: Request) -> None:
    scheduler = Scheduler(64)
    streams = [scheduler.stream([row(request_, number)]) for number in range(3)]
    for stream in streams:
        next(stream)
    assert len(scheduler._batches) == 1
    list(streams[0])
    streams[1].close()
    assert len(scheduler._batches) == 1
    del streams, stream
    assert len(scheduler._batches) == 0


# ---------------------------------------------------------------- faults


def test_an_error_reaches_everybody_in_the_step_and_the_batch_goes_on(
    passes: Passes, request_: Request
) -> None:
    rows = [row(request_, number) for number in range(4)]
    expected = alone(rows[0])
    passes.log.clear()
    passes.joined = threading.Semaphore(0)
    hold = passes.wait_for(4)

    def fail(one: Pass) -> None:
        hold(one)
        if one.rows == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    passes.before = fail
    scheduler = Scheduler(64)
    errors = call(*runs(scheduler, rows))
    assert [type(error) for error in errors] == [OutOfMemoryError] * 4
    assert len({id(error) for error in errors}) == 4
    assert len({str(error) for error in errors}) == 1
    assert all(error is not None and error.__cause__ is not None for error in errors)
    assert all(one.answer().finish_reason == "cancelled" for one in rows)
    again = row(request_)
    scheduler.run([again])
    assert again.ids == expected


class OddError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__("odd")
        self.code = code


def test_an_error_that_cannot_be_copied_is_raised_as_it_is(
    passes: Passes, request_: Request
) -> None:
    passes.joined = threading.Semaphore(0)
    hold = passes.wait_for(2)

    def fail(one: Pass) -> None:
        hold(one)
        if one.rows == 2:
            raise OddError(code=7)

    passes.before = fail
    errors = call(*runs(Scheduler(64), [row(request_, 0), row(request_, 1)]))
    assert [error.code for error in errors if isinstance(error, OddError)] == [7, 7]


def test_who_is_not_in_a_failed_step_goes_on(passes: Passes, request_: Request) -> None:
    scheduler, first = Scheduler(64), row(request_, 0)
    expected = alone(first)
    stream = scheduler.stream([first])
    next(stream)

    def fail(one: Pass) -> None:
        if one.reads:
            raise ValueError("no questions today")

    passes.before = fail
    with pytest.raises(ValueError, match="today"):
        scheduler.run([row(request_, 1)])
    list(stream)
    assert first.ids == expected


def test_a_row_that_cannot_choose_a_token_fails_alone(request_: Request) -> None:
    def refuse(ids: Sequence[int]) -> str:
        raise ValueError("no such token")

    scheduler, good = Scheduler(64), row(request_, 0)
    bad = row(replace(request_, decode=refuse), 1)
    expected = alone(good)
    stream = scheduler.stream([good])
    next(stream)
    with pytest.raises(ValueError, match="no such token"):
        scheduler.run([bad])
    list(stream)
    assert good.ids == expected


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_driver_takes_nobody_along(
    passes: Passes, request_: Request, moment: str
) -> None:
    rows = [row(request_, number) for number in range(4)]
    expected = [alone(one) for one in rows]
    passes.log.clear()
    passes.joined = threading.Semaphore(0)
    passes.before = hold = passes.wait_for(4)
    interrupted: list[Pass] = []

    def interrupt(one: Pass) -> None:
        if moment == "before":
            hold(one)
        if one.rows == 4 and not one.reads and not interrupted:
            interrupted.append(one)
            raise KeyboardInterrupt

    setattr(passes, moment, interrupt)
    errors = call(*runs(Scheduler(64), rows))
    assert len(interrupted) == 1
    [hit] = [number for number, error in enumerate(errors) if error is not None]
    assert isinstance(errors[hit], KeyboardInterrupt)
    for number, one in enumerate(rows):
        if number != hit:
            assert one.ids == expected[number]
            assert one.text == spell(one.ids)
            assert one.finish_reason == "length"


@pytest.mark.parametrize("at", [3, ANSWER])
def test_a_row_torn_by_another_caller_s_interrupt_is_whole_again(
    passes: Passes, request_: Request, at: int
) -> None:
    """The driver is interrupted in the middle of another caller's row."""
    driver, traps = threading.current_thread(), [at]

    def trap(ids: Sequence[int]) -> str:
        if threading.current_thread() is driver and joined and len(torn.ids) in traps:
            traps.clear()
            raise KeyboardInterrupt
        return spell(ids)

    torn = row(replace(request_, decode=trap), 1, logprobs=True)
    joined: list[Pass] = []
    expected = alone(torn)
    passes.joined = threading.Semaphore(0)
    scheduler = Scheduler(64)
    caller = Caller(lambda: scheduler.run([torn]))

    def join_once(one: Pass) -> None:
        if not joined:
            caller.start()
            for _ in range(2):
                assert passes.joined.acquire(timeout=WAIT)
            joined.append(one)

    passes.before = join_once
    with pytest.raises(KeyboardInterrupt):
        scheduler.run([row(request_, 0, n=30)])
    caller.join(WAIT)
    assert caller.error is None
    answer = torn.answer()
    assert (list(answer.token_ids), answer.text) == (expected, spell(expected))
    assert answer.logprobs is not None
    assert [entry.token for entry in answer.logprobs] == expected


def test_who_is_interrupted_while_waiting_leaves_the_others(
    passes: Passes, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    scheduler, rows = Scheduler(64), [row(request_, number) for number in range(2)]
    expected = alone(rows[0])
    passes.log.clear()
    errors: list[BaseException | None] = []

    def interrupt_other(one: Pass) -> None:
        if len(passes.log) == 3:
            with monkeypatch.context() as patch:
                patched = SimpleNamespace(Event=Interrupted, Lock=threading.Lock)
                patch.setattr("ttt_core.scheduler.threading", patched)
                errors.extend(call(lambda: scheduler.run([rows[1]])))

    passes.before = interrupt_other
    scheduler.run([rows[0]])
    assert [type(error) for error in errors] == [KeyboardInterrupt]
    assert rows[0].ids == expected
    assert not any(one.rows > 1 for one in passes.log)


# ---------------------------------------------------------------- many


def test_more_rows_than_places_wait_in_order(passes: Passes, request_: Request) -> None:
    rows = [row(request_, number, n=1 + number % 5) for number in range(200)]
    expected = [alone(one) for one in rows]
    passes.log.clear()
    Scheduler(8).run(rows)
    assert [one.ids for one in rows] == expected
    assert max(one.rows for one in passes.log) == 8
    assert len(passes.log) < sum(len(one.ids) for one in rows) / 3
    first = list(dict.fromkeys(segment for one in passes.log for segment in one.segments))
    assert first == list(range(200)), "first come, first served"


@dataclass(frozen=True)
class Asked:
    """One question of the random test."""

    number: int
    n: int
    options: tuple[tuple[str, Any], ...]

    def row(self, request: Request) -> Row:
        return row(request, self.number, n=self.n, **dict(self.options))


OPTIONS = st.sampled_from(
    [(), (("stop", ("e", "no")),), (("temperature", 1.0), ("seed", 3)), (("logprobs", True),)]
)
ASKED = st.builds(Asked, st.integers(0, 20), st.integers(1, 14), OPTIONS)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(ASKED, min_size=1, max_size=6),
    order=st.lists(st.integers(0, 5), max_size=40),
    size=st.integers(1, 4),
)
def test_any_order_of_arrival_gives_what_one_by_one_gives(
    request_: Request, asked: list[Asked], order: list[int], size: int
) -> None:
    request = replace(request_, eos_token_ids=frozenset(range(4, 24)))
    rows = [one.row(request) for one in asked]
    scheduler = Scheduler(size)
    streams = [scheduler.stream([one]) for one in rows]
    texts = [""] * len(rows)
    for number in [*order, *range(len(rows))]:
        if number < len(rows):
            texts[number] += next(streams[number], (0, ""))[1]
    for number, stream in enumerate(streams):
        texts[number] += "".join(text for _, text in stream)
    for one, text in zip(rows, texts, strict=True):
        expected = Row(request, one.suffix, one.config, one.max_new_tokens)
        Scheduler(1).run([expected])
        assert (one.ids, one.text, one.finish_reason) == (
            expected.ids, expected.text, expected.finish_reason
        )  # fmt: skip
        assert text == one.text
    assert len(scheduler._batches) == 0


def test_threads_in_any_order(passes: Passes, request_: Request) -> None:
    rows = [row(request_, number, n=1 + number % 9) for number in range(24)]
    expected = [alone(one) for one in rows]
    scheduler, start = Scheduler(5), threading.Barrier(8)

    def work(first: int) -> None:
        start.wait(WAIT)
        for number in range(first, 24, 8):
            if number % 2:
                scheduler.run([rows[number]])
            else:
                text = "".join(piece for _, piece in scheduler.stream([rows[number]]))
                assert text == rows[number].text

    assert call(*[lambda n=n: work(n) for n in range(8)]) == [None] * 8  # type: ignore[misc]
    assert [one.ids for one in rows] == expected
    assert max(one.rows for one in passes.log) <= 5


# ---------------------------------------------------------------- through the engine


def test_the_engine_batches_its_callers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = RuntimeConfig(max_batch_size=3)
    engine = TTTEngine(model, tokenizer, runtime=limits, store=tmp_path)
    read = engine.read("the cup is in the hall and the map is in the car")
    questions = [f"where is {n}?" for n in range(5)]
    expected = [engine.generate(read, question, max_new_tokens=8).text for question in questions]
    passes = watch(engine._resident().model.runtime, monkeypatch)
    passes.before = passes.wait_for(5)
    found: dict[str, str] = {}

    def ask(question: str) -> None:
        found[question] = engine.generate(read, question, max_new_tokens=8).text

    works = [lambda question=question: ask(question) for question in questions]
    assert call(*works) == [None] * 5  # type: ignore[comparison-overlap]
    assert [found[question] for question in questions] == expected
    assert max(one.rows for one in passes.log) == 3
    passes.before = lambda one: None
    batch = engine.generate_batch(read, questions, max_new_tokens=8)
    assert [answer.text for answer in batch] == expected


def test_a_stream_that_is_closed_says_so(engine: TTTEngine) -> None:
    stream = engine.stream(engine.read("the cup is in the hall"), "where?", max_new_tokens=20)
    next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.answer.finish_reason == "cancelled"
    assert stream.answer.text
