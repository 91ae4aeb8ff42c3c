"""Disks that are full or read-only, folders that are not ours: told clearly, and nothing is lost.

On file systems that are mounted for the test, where that is allowed, and as another user, since
permissions do not bind root.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ttt_core.learning
from tests.faults.engines import DOCUMENTS, make_engine
from tests.store.samples import (
    DROP_PRIVILEGES,
    KEY,
    OTHER,
    file_of,
    files_in,
    give_to_nobody,
    key_of,
    make_entry,
    posix_only,
    put,
    run,
    same,
)
from ttt_core import AdapterStore, StoreError

SIZE = 4_000  # Entries of 64 KB.


def mount(path: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    mount(path, "size=1m,mode=0700")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training fails the test: it would be for nothing."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained, although nothing can be written")

    monkeypatch.setattr(ttt_core.learning, "adapt_queries", fail)


def fill(store: AdapterStore, error: str) -> int:
    """Put entries until there is no room; return how many there was room for."""
    count = 0
    with pytest.raises(StoreError, match=f"{error}; set TTT_HOME") as refused:  # noqa: PT012
        for count in range(1000):
            store.put(key_of(count), make_entry(count, size=SIZE))
    assert str(store.path) in str(refused.value)
    return count


def check_intact(store: AdapterStore, count: int) -> None:
    """The first `count` entries are there, and nothing else."""
    assert sorted(Path(name).name for name in files_in(store.path)) == sorted(
        f"{key_of(number)}.safetensors" for number in range(count)
    )
    for number in range(count):
        assert same(store.get(key_of(number)), make_entry(number, size=SIZE))


# ---------------------------------------------------------------- full


def test_a_full_disk_is_told_and_all_that_was_written_before_stays(disk: Path) -> None:
    store = AdapterStore(disk / "store")
    count = fill(store, "No space left on device")
    assert count > 5
    check_intact(store, count)


def test_a_full_disk_can_be_pruned_and_then_written_to(disk: Path) -> None:
    store = AdapterStore(disk / "store")
    count = fill(store, "No space left on device")
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
    assert store.prune(max_bytes=3 * 16 * SIZE).removed
    assert store.put(key_of(count), make_entry(count, size=SIZE))
    assert same(store.get(key_of(count)), make_entry(count, size=SIZE))


def test_a_damaged_file_on_a_full_disk_is_still_refused_and_then_rebuilt(disk: Path) -> None:
    store = AdapterStore(disk / "store")
    put(store)
    (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
    os.truncate(file_of(store), 100)
    assert store.get(KEY) is None
    (disk / "filler").unlink()
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


@pytest.mark.parametrize(
    ("module", "call"),
    [(os, "fsync"), (os, "link"), (Path, "mkdir")],  # Before 3.11, paths do not ask `os`.
    ids=["fsync", "link", "mkdir"],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_call_that_fails_leaves_the_store_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, call: str, code: int
) -> None:
    store = AdapterStore(tmp_path / "store")
    put(store)
    before = files_in(store.path)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(module, call, fail)
        with pytest.raises(StoreError, match=os.strerror(code)):
            store.put(OTHER, make_entry(1))
        assert same(store.get(KEY), make_entry())
    assert files_in(store.path) == before
    assert store.put(OTHER, make_entry(1))


def test_an_engine_that_cannot_keep_what_it_learned_says_so_and_learns_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full only when training is done."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with make_engine(tmp_path / "store") as engine:
        with monkeypatch.context() as patched:
            patched.setattr(os, "link", full)
            with pytest.raises(StoreError, match="No space left on device; set TTT_HOME"):
                engine.adapt(DOCUMENTS[0])
        assert files_in(tmp_path / "store") == {}
        assert engine.adapt(DOCUMENTS[0]).source == "trained"
        assert engine.adapt(DOCUMENTS[0]).source == "memory"


# ---------------------------------------------------------------- read-only


def remount_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def test_a_read_only_store_serves_and_refuses_to_be_written_to(disk: Path) -> None:
    store = AdapterStore(disk / "store")
    put(store)
    os.truncate(put(store, 1), 100)
    before = files_in(disk)
    remount_read_only(disk)
    assert same(store.get(KEY), make_entry())
    assert store.get(OTHER) is None  # Damaged; it cannot be set aside.
    assert store.pin(KEY) is not None
    assert len(store.entries()) == 2
    for use in (
        lambda: store.put(key_of(2), make_entry(2)),
        lambda: store.prepare(key_of(2)),
        lambda: store.prune(max_bytes=0),
        lambda: store.remove(KEY),
    ):
        with pytest.raises(StoreError, match=r"cannot write to .*Read-only file system"):
            use()
    assert files_in(disk) == before


def test_an_engine_does_not_train_for_a_store_that_is_read_only(
    disk: Path, no_training: None
) -> None:
    AdapterStore(disk / "store").prepare(KEY)
    remount_read_only(disk)
    refused = pytest.raises(StoreError, match=r"Read-only file system|Permission denied")
    with make_engine(disk / "store") as engine, refused:
        engine.adapt(DOCUMENTS[0])


# ---------------------------------------------------------------- permissions


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach; pytest's own is root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="ttt-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


AS_NOBODY = (
    """
import sys
from pathlib import Path
import safetensors.torch, torch, filelock
import filelock._unix
from tests.store.samples import KEY, OTHER, file_of, key_of, make_entry, same
from ttt_core import StoreError
from ttt_core.store import AdapterStore

root = Path(sys.argv[1])
entries = {number: make_entry(number) for number in range(3)}

def refused(use, kind, reason="Permission denied"):
    try:
        use()
    except StoreError as error:
        assert f"cannot {kind} the adapter store" in str(error) and reason in str(error), error
        return
    raise AssertionError("not refused")

"""
    + DROP_PRIVILEGES
)


@posix_only
def test_what_cannot_be_written_or_read_is_told_and_loses_nothing(open_folder: Path) -> None:
    path = open_folder / "store"
    store = AdapterStore(path)
    put(store), put(store, 1)
    give_to_nobody(open_folder)
    code = """
store = AdapterStore(root / "store")
folder, file = root / "store", file_of(store)
assert same(store.get(KEY), entries[0])

file.chmod(0)  # The file.
refused(lambda: store.get(KEY), "read")
refused(lambda: store.header(KEY), "read")
assert [v.problem for v in store.verify() if v.entry.key == KEY] == [
    "it cannot be read: Permission denied"]
assert store.put(KEY, entries[0]) is False
file.chmod(0o600)

for part in (file.parent, file.parent.parent, folder):  # A folder that can only be read.
    mode = part.stat().st_mode & 0o777
    part.chmod(0o500)
    assert same(store.get(KEY), entries[0])
    part.chmod(mode)

file.parent.chmod(0o500)
refused(lambda: store.prepare(KEY), "write to")
refused(lambda: store.remove(KEY) or file.exists() and refused, "write to")
assert not store.prune(max_age=-1.0, dry_run=True).kept_in_use
assert KEY in [e.key for e in store.prune(max_age=-1.0).kept_in_use]
assert same(store.get(KEY), entries[0])
file.parent.chmod(0o700)

folder.chmod(0)  # The whole store.
refused(lambda: store.get(KEY), "read")
refused(lambda: store.entries(), "read")
refused(lambda: store.put(OTHER, entries[1]), "write to")
folder.chmod(0o700)
assert same(store.get(KEY), entries[0])

root.chmod(0o500)  # Where the store is to be made.
other = AdapterStore(root / "other")
assert other.get(KEY) is None
refused(lambda: other.put(KEY, entries[0]), "write to")
refused(lambda: other.prepare(KEY), "write to")
root.chmod(0o700)
print("done")
"""
    assert run(AS_NOBODY + code, open_folder) == "done\n"


@posix_only
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs two users")
def test_another_user_s_store_is_refused_even_if_all_may_read_it(open_folder: Path) -> None:
    store = AdapterStore(open_folder / "store")
    put(store)
    os.chown(store.path, 4321, 4321)
    for path in (open_folder, *store.path.rglob("*")):
        path.chmod(0o755)
    store.path.chmod(0o755)
    with pytest.raises(StoreError, match="belongs to another user"):
        store.get(KEY)
    with pytest.raises(StoreError, match="belongs to another user"):
        store.put(OTHER, make_entry(1))
    code = """
store = AdapterStore(root / "store")
refused(lambda: store.get(KEY), "read", "belongs to another user")
refused(lambda: store.put(OTHER, entries[1]), "write to", "belongs to another user")
print("done")
"""
    assert run(AS_NOBODY + code, open_folder) == "done\n"


@posix_only
@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_an_engine_does_not_train_for_a_store_that_others_can_write_to(
    tmp_path: Path, no_training: None, mode: int
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    refused = pytest.raises(StoreError, match="other users can write to")
    with make_engine(tmp_path / "store") as engine, refused:
        engine.adapt(DOCUMENTS[0])
    assert files_in(tmp_path) == {}


@posix_only
@pytest.mark.parametrize("place", ["a file", "a link to nothing", "below a file"])
def test_an_engine_does_not_train_for_a_store_that_cannot_be(
    tmp_path: Path, no_training: None, place: str
) -> None:
    path = tmp_path / "store"
    make: dict[str, Callable[[], object]] = {
        "a file": lambda: path.write_bytes(b""),
        "a link to nothing": lambda: path.symlink_to(tmp_path / "none" / "none"),
        "below a file": lambda: path.write_bytes(b""),
    }
    make[place]()
    path = path / "deeper" if place == "below a file" else path
    refused = pytest.raises(StoreError, match=r"cannot (read|write to) the adapter store")
    with make_engine(path) as engine, refused:
        engine.adapt(DOCUMENTS[0])
