"""Clocks that jump: nothing is lost that is within the limits, and nobody waits for longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.samples import age, file_of, key_of, make_entry, put, same, start
from ttt_core import AdapterStore
from ttt_core.store.format import encode

DAY = 86400.0
YEARS = 3e8
SIZE = len(encode(make_entry(), key_of()))


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the wall clock of this process be off by that much."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


def keys_in(store: AdapterStore) -> set[str]:
    return {entry.key for entry in store.entries()}


@pytest.mark.parametrize("seconds", [-YEARS, -DAY, DAY, YEARS])
def test_what_is_within_the_limits_stays_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    store = AdapterStore(tmp_path / "store", max_bytes=4 * SIZE)
    put(store, 0), put(store, 1)
    with monkeypatch.context() as patched:
        set_clock(patched, seconds)
        for number in range(2, 4):
            age(put(store, number), -seconds)
        store.prune()
        assert all(same(store.get(key_of(number)), make_entry(number)) for number in range(4))
    store.prune(max_bytes=4 * SIZE)
    assert all(same(store.get(key_of(number)), make_entry(number)) for number in range(4))


def test_what_was_just_put_stays_although_all_others_are_from_the_future(tmp_path: Path) -> None:
    """As after a clock that was ahead is set right."""
    store = AdapterStore(tmp_path / "store", max_bytes=2 * SIZE)
    for number, seconds in ((0, YEARS), (1, YEARS + DAY)):
        age(put(store, number), -seconds)
    put(store, 2)
    assert keys_in(store) == {key_of(1), key_of(2)}


def test_a_time_in_the_future_is_set_right_by_the_next_use(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    path = put(store)
    age(path, -YEARS)
    assert same(store.get(key_of()), make_entry())
    assert abs(time.time() - path.stat().st_mtime) < 60


def test_a_clock_that_was_set_back_makes_nothing_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store", max_age=DAY)
    put(store, 0)
    set_clock(monkeypatch, -YEARS)
    put(store, 1)
    assert store.prune(max_age=DAY).removed == ()
    assert keys_in(store) == {key_of(0), key_of(1)}


def test_what_was_just_put_stays_although_the_disk_s_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server's, for example: new files are too old at once."""
    store = AdapterStore(tmp_path / "store", max_age=DAY)
    set_clock(monkeypatch, 2 * DAY)
    path = put(store)
    assert time.time() - path.stat().st_mtime > DAY
    assert same(store.get(key_of()), make_entry())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    ages=st.lists(st.floats(-YEARS, YEARS), min_size=1, max_size=5),
    offset=st.floats(-YEARS, YEARS),
    max_age=st.floats(0, YEARS),
)
def test_exactly_what_was_not_used_for_too_long_goes(
    tmp_path_factory: pytest.TempPathFactory, ages: list[float], offset: float, max_age: float
) -> None:
    store = AdapterStore(tmp_path_factory.mktemp("clock") / "store")
    for number, seconds in enumerate(ages):
        age(put(store, number), seconds)
    used = {entry.key: entry.used for entry in store.entries()}
    with pytest.MonkeyPatch.context() as patched:
        now = time.time() + offset
        patched.setattr(time, "time", lambda: now)
        store.prune(max_age=max_age)
    assert keys_in(store) == {key for key in used if now - used[key] <= max_age}


def test_a_live_writer_s_file_that_is_swept_by_a_clock_that_is_ahead_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, link, swept = AdapterStore(tmp_path / "store"), os.link, []

    def swept_before(*args: Path) -> None:
        if not swept:
            with monkeypatch.context() as patched:
                set_clock(patched, DAY)
                before = len(list(store.path.rglob("*.tmp")))
                store.prune()
                swept.append(before - len(list(store.path.rglob("*.tmp"))))
        link(*args)

    put(store, 1)
    monkeypatch.setattr(os, "link", swept_before)
    put(store)
    assert swept == [1]
    assert same(store.get(key_of()), make_entry())
    assert not list(store.path.rglob("*.tmp"))


@pytest.mark.parametrize("seconds", [2 * DAY, -2 * DAY])
def test_what_dead_writers_left_goes_also_if_their_clock_was_off(
    tmp_path: Path, seconds: float
) -> None:
    store = AdapterStore(tmp_path / "store")
    put(store)
    left_over = file_of(store).with_suffix(".safetensors.0123.tmp")
    left_over.write_bytes(b"half")
    age(left_over, seconds)
    store.prune()
    assert not left_over.exists()


HOLD = """
import sys
from ttt_core.store import AdapterStore
with AdapterStore(sys.argv[1]).alone(sys.argv[2], timeout=60):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_waiting_ends_in_time_although_the_clock_goes_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store")
    store.prepare(key_of())
    with start(HOLD, store.path, key_of()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        calls = iter(range(10**9))
        monkeypatch.setattr(time, "time", lambda: 1e9 - 3600.0 * next(calls))
        started, waited = time.monotonic(), []
        with store.alone(key_of(), timeout=0.6, on_wait=waited.append) as alone:
            assert not alone
        assert time.monotonic() - started < 30
        assert waited == sorted(waited)
        assert all(0 <= seconds < 30 for seconds in waited)
        process.kill()
