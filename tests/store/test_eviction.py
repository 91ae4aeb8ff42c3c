"""Limits: who has been used least recently goes, and nobody who is in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.samples import age, files_in
from ttt_core import files
from ttt_core.locks import pin
from ttt_core.store.eviction import Limits, Pruned, prune
from ttt_core.store.folder import StoreFolder

NAMESPACE = "0f" * 16
DAY = 86400.0


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path / "store", NAMESPACE)


def key(number: int) -> str:
    return f"{number * 0x1111:064x}"[::-1]


def fill(folder: StoreFolder, ages: list[float], *, size: int = 100) -> list[Path]:
    """One file for each age, in seconds since its last use."""
    paths, now = [], time.time()
    for number, seconds in enumerate(ages):
        folder.create(key(number), bytes(size))
        paths.append(folder.file(key(number)))
        os.utime(paths[-1], (now - seconds, now - seconds))
    return paths


def left(folder: StoreFolder) -> list[str]:
    return sorted(entry.key for entry in folder.scan())


def keys(*numbers: int) -> list[str]:
    return sorted(map(key, numbers))


def gone(pruned: Pruned) -> list[str]:
    return [entry.key for entry in pruned.removed]


def test_the_least_recently_used_go_first_and_no_more_than_have_to(folder: StoreFolder) -> None:
    fill(folder, [30, 10, 40, 20])
    pruned = prune(folder, Limits(max_bytes=250))
    assert gone(pruned) == [key(2), key(0)]
    assert pruned.bytes == 200
    assert left(folder) == keys(1, 3)


def test_a_touch_moves_a_file_to_the_end_of_the_line(folder: StoreFolder) -> None:
    paths = fill(folder, [30, 20, 10])
    os.utime(paths[0])
    assert gone(prune(folder, Limits(max_bytes=200))) == [key(1)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    max_bytes=st.integers(0, 200),
)
def test_what_stays_is_within_the_limit_and_was_used_after_all_that_went(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], order, max_bytes: int
) -> None:
    folder = StoreFolder(tmp_path_factory.mktemp("store"), NAMESPACE)
    ages = [10.0 * number for number in range(len(sizes))]
    order.shuffle(ages)
    for number, (size, seconds) in enumerate(zip(sizes, ages, strict=True)):
        folder.create(key(number), bytes(size))
        age(folder.file(key(number)), seconds)
    before = list(folder.scan())
    pruned = prune(folder, Limits(max_bytes=max_bytes))
    after = list(folder.scan())
    assert sum(entry.bytes for entry in after) <= max_bytes
    assert sorted(map(hash, (*after, *pruned.removed))) == sorted(map(hash, before))
    if after and pruned.removed:
        assert max(e.used for e in pruned.removed) <= min(e.used for e in after)
    if pruned.removed:  # The last one had to go.
        kept_and_last = sum(entry.bytes for entry in (*after, pruned.removed[-1]))
        assert kept_and_last > max_bytes


def test_what_was_not_used_for_too_long_goes_however_small_the_store(folder: StoreFolder) -> None:
    fill(folder, [3 * DAY, DAY / 2, 2 * DAY])
    assert sorted(gone(prune(folder, Limits(max_age=DAY)))) == keys(0, 2)
    assert left(folder) == keys(1)


def test_both_limits_hold(folder: StoreFolder) -> None:
    fill(folder, [3 * DAY, 30, 20, 10])
    prune(folder, Limits(max_bytes=250, max_age=DAY))
    assert left(folder) == keys(2, 3)


def test_without_limits_everything_stays(folder: StoreFolder) -> None:
    fill(folder, [1000 * DAY, 0])
    assert prune(folder, Limits()) == Pruned()
    assert left(folder) == keys(0, 1)


def test_damaged_files_count_and_go_first(folder: StoreFolder) -> None:
    fill(folder, [30, 20, 10])
    folder.set_aside(key(2))
    pruned = prune(folder, Limits(max_bytes=200))
    assert [entry.damaged for entry in pruned.removed] == [True]
    assert left(folder) == keys(0, 1)


def test_what_is_in_use_stays_and_its_bytes_go_elsewhere(folder: StoreFolder) -> None:
    paths = fill(folder, [30, 20, 10])
    pinned = pin(paths[0])
    assert pinned is not None
    pruned = prune(folder, Limits(max_bytes=200))
    assert gone(pruned) == [key(1)]
    assert [entry.key for entry in pruned.kept_in_use] == [key(0)]
    assert left(folder) == keys(0, 2)
    assert gone(prune(folder, Limits(max_bytes=0))) == [key(2)]
    pinned.close()
    assert gone(prune(folder, Limits(max_bytes=0))) == [key(0)]


def test_what_is_needed_or_to_be_kept_stays(folder: StoreFolder) -> None:
    fill(folder, [30, 20, 10])
    needed = {key(0)}
    pruned = prune(folder, Limits(max_bytes=0), keep={key(1)}, is_needed=lambda one: one in needed)
    assert gone(pruned) == [key(2)]
    assert [entry.key for entry in pruned.kept_in_use] == [key(0)]
    assert left(folder) == keys(0, 1)


def test_a_dry_run_tells_and_does_nothing(folder: StoreFolder) -> None:
    fill(folder, [30, 20, 10])
    before = files_in(folder.root)
    told = prune(folder, Limits(max_bytes=100), dry_run=True)
    assert gone(told) == [key(0), key(1)]
    assert files_in(folder.root) == before
    assert gone(prune(folder, Limits(max_bytes=100))) == gone(told)


def test_other_namespaces_are_neither_counted_nor_touched(folder: StoreFolder) -> None:
    other = StoreFolder(folder.root, "1e" * 16)
    fill(folder, [10])
    fill(other, [30, 20])
    assert gone(prune(folder, Limits(max_bytes=100))) == []
    assert gone(prune(folder, Limits(max_bytes=0))) == [key(0)]
    assert left(other) == keys(0, 1)


def test_one_at_a_time_prunes_and_others_have_nothing_to_do(folder: StoreFolder) -> None:
    fill(folder, [10])
    with folder.maintenance() as mine:
        assert mine
        assert prune(folder, Limits(max_bytes=0)) == Pruned()
    assert left(folder) == keys(0)


def test_what_killed_processes_left_is_swept(folder: StoreFolder) -> None:
    (path,) = fill(folder, [0])
    for seconds, name in ((2 * 3600.0, "old"), (0.0, "young")):
        left_over = path.with_name(f"{path.name}.{name}.tmp")
        left_over.write_bytes(b"half")
        age(left_over, seconds)
    lock = folder.root / "locks" / f"{NAMESPACE}-{key(0)}.lock"
    lock.write_bytes(b"")
    prune(folder, Limits())
    names = [os.path.basename(name) for name in files_in(folder.root)]
    assert sorted(names) == sorted([path.name, f"{path.name}.young.tmp"])


def test_no_folder_has_nothing_to_prune_and_is_not_made(folder: StoreFolder) -> None:
    assert prune(folder, Limits(max_bytes=0)) == Pruned()
    assert not folder.root.exists()


def test_what_is_not_an_entry_is_not_touched(folder: StoreFolder) -> None:
    (path,) = fill(folder, [0])
    others = [path.with_name("notes.txt"), path.with_name("x.safetensors"), folder.path / "README"]
    for other in others:
        other.write_bytes(b"mine")
    assert gone(prune(folder, Limits(max_bytes=0))) == [key(0)]
    assert all(other.exists() for other in others)


def test_a_file_that_cannot_be_removed_stops_nothing(
    folder: StoreFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = fill(folder, [20, 10])
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == first:
            raise PermissionError
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    pruned = prune(folder, Limits(max_bytes=0))
    assert gone(pruned) == [key(1)]
    assert [entry.key for entry in pruned.kept_in_use] == [key(0)]


def test_entries_say_what_they_are(folder: StoreFolder) -> None:
    (path,) = fill(folder, [100])
    (entry,) = folder.scan()
    assert (entry.key, entry.path, entry.bytes, entry.damaged) == (key(0), path, 100, False)
    assert entry.used == path.stat().st_mtime
    assert files.usage(folder.path, "*/*").bytes == 100
