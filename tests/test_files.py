"""Files are there whole or not at all, and nobody else can look in or exchange them."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.samples import posix_only
from ttt_core import files

HOUR = 3600.0


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def fail_with(code: int):
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# ---------------------------------------------------------------- create


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(first=st.binary(max_size=100_000), second=st.binary(max_size=100))
def test_the_first_writer_wins_and_the_file_is_whole(
    tmp_path: Path, first: bytes, second: bytes
) -> None:
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    assert files.create(path, first)
    assert not files.create(path, second)
    assert path.read_bytes() == first
    assert left_in(tmp_path) == ["file"]


def test_of_many_threads_one_writes(tmp_path: Path) -> None:
    together, won = threading.Barrier(8), []

    def write(number: int) -> None:
        together.wait(timeout=60)
        if files.create(tmp_path / "file", b"%d" % number * 1000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    (winner,) = won
    assert (tmp_path / "file").read_bytes() == b"%d" % winner * 1000
    assert left_in(tmp_path) == ["file"]


@posix_only
def test_only_the_owner_can_read_a_file_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.create(tmp_path / "created", b"x")
        with files.replacing(tmp_path / "replaced") as temporary:
            temporary.write_bytes(b"x")
        files.make_private(tmp_path / "folder")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"created": 0o600, "replaced": 0o600, "folder": 0o700}


def test_file_and_folder_are_on_the_disk_when_create_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contents before the name, the name before the caller is told."""
    order: list[str] = []
    sync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        order.append("folder" if is_folder else "file")
        sync(descriptor)

    def linked(*args: Path) -> None:
        order.append("name")
        link(*args)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    files.create(tmp_path / "file", b"x")
    assert order == ["file", "name", "folder"]


@pytest.mark.parametrize("call", ["fsync", "link", "open"])
def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(os, call, fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        files.create(tmp_path / "file", b"x")
    monkeypatch.undo()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_links_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", fail_with(code))
    assert files.create(tmp_path / "file", b"first")
    assert not files.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert left_in(tmp_path) == ["file"]


def test_a_writer_whose_temporary_file_was_taken_writes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody whose clock is ahead sweeps in the worst moment: written, but not yet named."""
    link, swept = os.link, []

    def swept_before(*args: Path) -> None:
        if not swept:
            swept.append(files.sweep(tmp_path, pattern="*.tmp", older_than=0))
        link(*args)

    monkeypatch.setattr(os, "link", swept_before)
    assert files.create(tmp_path / "file", b"x")
    assert swept == [1]
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.create(tmp_path / "none" / "file", b"x")


# ---------------------------------------------------------------- replacing


def test_replacing_exchanges_the_file_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with files.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert left_in(tmp_path) == ["file"]


def test_a_replacement_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="stop"),
        files.replacing(path) as temporary,
    ):
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old"
    assert left_in(tmp_path) == ["file"]


# ---------------------------------------------------------------- sweep


@pytest.mark.parametrize(
    ("seconds", "goes"),
    [(2 * HOUR, True), (HOUR / 2, False), (0, False), (-HOUR / 2, False), (-2 * HOUR, True)],
)
def test_temporary_files_go_when_their_writer_must_be_dead(
    tmp_path: Path, seconds: float, goes: bool
) -> None:
    """Also those from a future that a clock was set back from."""
    left = tmp_path / "x.tmp"
    left.write_bytes(b"half")
    written = time.time() - seconds
    os.utime(left, (written, written))
    assert files.sweep(tmp_path, pattern="*.tmp") == goes
    assert left.exists() != goes


def test_sweeping_takes_folders_with_all_they_hold_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.tmp").mkdir()
    (tmp_path / "x.tmp" / "half").write_bytes(b"x")
    (tmp_path / "y.tmp").write_bytes(b"x")
    (tmp_path / "kept").write_bytes(b"x")
    assert files.sweep(tmp_path, pattern="*.tmp", older_than=0) == 2
    assert left_in(tmp_path) == ["kept"]


# ---------------------------------------------------------------- listing and ownership


def test_what_is_out_of_reach_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.x", "b.x"):
        (tmp_path / name).write_text("some")
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path.name == "a.x":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert files.usage(tmp_path, "*.x") == files.Usage(files=1, bytes=4)


def test_usage_counts_what_matches_and_no_folder_holds_nothing(tmp_path: Path) -> None:
    assert files.usage(tmp_path / "none", "*") == files.Usage(0, 0)
    (tmp_path / "a.x").write_bytes(b"123")
    (tmp_path / "b.x").write_bytes(b"4567")
    (tmp_path / "c.y").write_bytes(b"8")
    assert files.usage(tmp_path, "*.x") == files.Usage(files=2, bytes=7)


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match=r"other users can write to .*; chmod go-w"):
        files.check_owned(tmp_path)


@posix_only
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o500])
def test_a_folder_that_only_its_owner_can_write_to_is_fine(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    files.check_owned(tmp_path)
    files.check_owned(tmp_path / "none")


@posix_only
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:  # Root could change anything anyway.
        files.check_owned(tmp_path)
        os.chown(tmp_path, 1234, 0)
    with pytest.raises(PermissionError, match="belongs to another user"):
        files.check_owned(tmp_path)


def test_private_folders_are_made_in_order_and_may_be_there(tmp_path: Path) -> None:
    files.make_private(tmp_path / "a", tmp_path / "a" / "b")
    files.make_private(tmp_path / "a", tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.make_private(tmp_path / "file")
