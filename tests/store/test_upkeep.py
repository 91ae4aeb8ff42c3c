"""Beside putting and getting: limits are looked at, damage is repaired, waits end."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.store.samples import KEY, OTHER, age, file_of, make_entry, put, same
from ttt_core import AdapterStore
from ttt_core.store import adapter_store as module
from ttt_core.store.eviction import Limits, prune


@pytest.mark.parametrize("error", [TimeoutError, BrokenPipeError, KeyboardInterrupt])
def test_what_a_waiting_caller_raises_is_what_it_gets(
    store: AdapterStore, error: type[BaseException]
) -> None:
    """An OSError of the caller's says nothing about the store's disk."""
    store.prepare(KEY)

    def leave(seconds: float) -> None:
        raise error("nobody waits any more")

    with (
        store.alone(KEY, timeout=0) as held,
        pytest.raises(error, match="nobody waits"),
        store.alone(KEY, timeout=60, on_wait=leave),
    ):
        raise AssertionError("not alone")
    assert held


def test_age_is_looked_at_as_time_goes_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little is written, and however much would fit."""
    store = AdapterStore(tmp_path / "store", max_age=1000.0)
    clock = SimpleNamespace(now=time.monotonic())
    watch = SimpleNamespace(time=time.time, monotonic=lambda: clock.now)
    monkeypatch.setattr(module, "time", watch)
    put(store, 0)
    age(file_of(store, KEY), 2000.0)
    put(store, 1)
    assert file_of(store, KEY).exists(), "it was looked at just now"
    clock.now += 200.0
    put(store, 2)
    assert not file_of(store, KEY).exists()
    assert file_of(store, OTHER).exists()


def test_a_store_without_limits_is_swept_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "store"
    left = file_of(AdapterStore(path), KEY).with_suffix(".safetensors.0123.tmp")
    left.parent.mkdir(parents=True, mode=0o700)
    left.write_text("half of it")
    os.utime(left, (time.time() - 7200,) * 2)
    put(AdapterStore(path, max_bytes=None), 1)
    assert not left.exists()


def test_a_damaged_entry_is_replaced_by_who_brings_a_whole_one(store: AdapterStore) -> None:
    """Not only by who noticed: an import does not get before it puts."""
    path = file_of(store, KEY)
    put(store, 0)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())
    assert path.with_suffix(".damaged").exists()


def test_a_dry_run_leaves_out_what_is_in_use(store: AdapterStore) -> None:
    put(store, 0)
    put(store, 1)
    pin = store.pin(KEY)
    assert pin is not None
    told = store.prune(max_bytes=0, dry_run=True)
    assert [entry.key for entry in told.removed] == [OTHER]
    assert [entry.key for entry in told.kept_in_use] == [KEY]
    done = store.prune(max_bytes=0)
    assert [entry.key for entry in done.removed] == [OTHER]
    pin.close()


def test_who_asked_for_pruning_is_told_that_it_was_not_done(store: AdapterStore) -> None:
    put(store, 0)
    folder = store._folder
    with folder.maintenance() as mine, pytest.raises(TimeoutError, match="locked"):
        prune(folder, Limits(max_bytes=0), timeout=0.1)
    assert mine
    assert file_of(store, KEY).exists()
