"""Keys and values on disk: whole or absent, private, mapped, bounded, and never in the way."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

import ttt_core
from ttt_core.prefill import prefill
from ttt_core.prefix import EMPTY_PREFIX, FrozenPrefix
from ttt_core.prefix_store import PrefixStore
from ttt_core.runtime import Runtime

NAMESPACE = "0123" * 8
KEY, OTHER, THIRD = (f"{NAMESPACE}-{digits * 32}" for digits in ("ab", "cd", "ef"))

posix_only = pytest.mark.skipif(os.name == "nt", reason="POSIX")


def make_prefix(
    n_tokens: int = 50, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> FrozenPrefix:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(1, 2, n_tokens, 8, generator=generator).to(dtype) for _ in range(4)]
    return FrozenPrefix(tuple(range(n_tokens)), keys=tuple(tensors[:2]), values=tuple(tensors[2:]))


def same(left: FrozenPrefix | None, right: FrozenPrefix) -> bool:
    return (
        left is not None
        and left.input_ids == right.input_ids
        and len(left.pairs) == len(right.pairs)
        and all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip((*left.keys, *left.values), (*right.keys, *right.values), strict=True)
        )
    )


def make_store(path: Path, *, max_bytes: int = 1 << 20) -> PrefixStore:
    return PrefixStore(path / "kv", max_bytes=max_bytes)


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return make_store(tmp_path)


def put(store: PrefixStore, key: str = KEY, *, seed: int = 0) -> Path:
    """Write an entry and return its file."""
    store.put(key, make_prefix(seed=seed))
    (path,) = store.path.rglob(named(key))
    return path


def named(key: str, suffix: str = "safetensors") -> str:
    """A key's file: the namespace is its folder."""
    return f"{key.partition('-')[2]}.{suffix}"


def files(store: PrefixStore) -> list[str]:
    return sorted(path.name for path in store.path.rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip(store: PrefixStore, dtype: torch.dtype) -> None:
    prefix = make_prefix(dtype=dtype)
    assert store.get(KEY) is None
    store.put(KEY, prefix)
    assert same(store.get(KEY), prefix)
    assert same(PrefixStore(store.path, max_bytes=0).get(KEY), prefix)
    assert store.get(OTHER) is None


def test_every_architecture_s_prefix(any_model: PreTrainedModel, store: PrefixStore) -> None:
    prefix = prefill(Runtime(any_model), range(3, 60), chunk=16)
    store.put(KEY, prefix)
    assert same(store.get(KEY), prefix)


def test_views_and_more_layers_than_digits(store: PrefixStore) -> None:
    """Slices of larger buffers, shared storage, and names whose order is not the layers'."""
    buffer = torch.randn(1, 2, 100, 8)
    layers = tuple(buffer[:, :, start : start + 20] for start in range(12))
    prefix = FrozenPrefix(tuple(range(20)), keys=layers, values=layers)
    store.put(KEY, prefix)
    assert same(store.get(KEY), prefix)


def test_one_tensor_as_keys_and_values(store: PrefixStore) -> None:
    tensor = torch.randn(1, 2, 20, 8)
    prefix = FrozenPrefix(tuple(range(20)), keys=(tensor,), values=(tensor,))
    store.put(KEY, prefix)
    assert same(store.get(KEY), prefix)


def test_an_empty_prefix_is_not_kept(store: PrefixStore) -> None:
    store.put(KEY, EMPTY_PREFIX)
    assert not store.path.exists()


def test_one_namespace_is_cleared_and_no_other(store: PrefixStore) -> None:
    other = f"{'89' * 16}-{'ab' * 32}"
    flipped(put(store))
    assert store.get(KEY) is None
    put(store, OTHER)
    put(store, other)
    assert store.clear(NAMESPACE).files == 2
    assert (store.usage(NAMESPACE).files, store.usage().files) == (0, 1)
    assert same(store.get(other), make_prefix())
    for name in ("*", "../..", ""):
        with pytest.raises(ValueError, match="32 hexadecimal"):
            store.clear(name)


def test_clearing_takes_what_killed_writers_left(store: PrefixStore) -> None:
    """However young: it holds what documents said. Other namespaces' and versions' stay."""
    folder = put(store).parent
    elsewhere = put(store, f"{'89' * 16}-{'cd' * 32}").parent
    for left in (folder / "a.tmp", elsewhere / "b.tmp"):
        left.mkdir()
        (left / "x.safetensors").write_text("token ids")
    assert store.clear(NAMESPACE).files == 1
    assert [path.name for path in store.path.rglob("*.tmp")] == ["b.tmp"]


def test_clearing_nothing(store: PrefixStore) -> None:
    assert store.clear(NAMESPACE).files == 0
    assert not store.path.exists()


def unreachable(shard: Path, monkeypatch: pytest.MonkeyPatch, *calls: str) -> None:
    """Refuse calls below a folder, as the system refuses all users but root."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if str(path).startswith(f"{shard}{os.sep}"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, *arguments, **options)

        return call

    for call in calls:
        monkeypatch.setattr(Path, call, refusing(getattr(Path, call)))


def test_a_shard_out_of_reach_fails_no_answer(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable(put(store).parent, monkeypatch, "stat", "lstat", "unlink")
    put(store, OTHER)
    assert store.usage().files == 1
    assert 0 < store.room() < store.max_bytes
    with pytest.raises(PermissionError):  # Who wants it gone has to hear that it is not.
        store.clear(NAMESPACE)


def test_a_folder_that_cannot_be_listed_fails_no_answer(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(store)

    def broken(path: Path, pattern: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "glob", broken)
    assert store.usage().files == 0
    assert store.room() >= 0
    assert [record.message for record in caplog.records] == [
        f"cannot keep keys and values in {store.path}: Input/output error"
    ]


def test_a_prefix_that_cannot_be_mapped_in_a_folder_out_of_reach(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(store)

    def fail(path: Path, key: str) -> FrozenPrefix:
        raise RuntimeError("unable to mmap")

    monkeypatch.setattr("ttt_core.prefix_store._load", fail)
    unreachable(path.parent, monkeypatch, "stat", "exists")
    assert store.get(KEY) is None


def test_other_versions_are_known_and_stay(store: PrefixStore) -> None:
    assert store.other_versions() == []
    put(store)
    for name in ("v1", "v10", "vx", "other"):
        (store.path / name / "ab").mkdir(parents=True)
    assert store.other_versions() == [store.path / "v1", store.path / "v10"]
    store.clear(NAMESPACE)
    assert len(store.other_versions()) == 2


def test_a_header_bomb_is_refused_before_it_is_parsed(store: PrefixStore) -> None:
    path = put(store)
    with path.open("r+b") as file:
        file.write((90 << 20).to_bytes(8, "little"))
    os.truncate(path, 100 << 20)
    assert store.get(KEY) is None
    assert files(store) == [named(KEY, "damaged")]


@posix_only
@pytest.mark.parametrize("which", ["store", "kv"])
def test_a_folder_that_others_can_write_to_is_not_trusted(
    store: PrefixStore, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(store)
    folder = store.path if which == "kv" else store.path.parent
    folder.chmod(0o777)
    assert store.get(KEY) is None
    assert "other users can write to" in caplog.text
    folder.chmod(0o700)
    assert same(store.get(KEY), make_prefix())


@posix_only
def test_a_pipe_in_a_file_s_place_keeps_nobody_waiting(store: PrefixStore) -> None:
    path = put(store)
    path.unlink()
    os.mkfifo(path)
    assert store.get(KEY) is None
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux")
def test_what_is_read_is_mapped_and_not_copied(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_bytes=1 << 30)
    store.put(KEY, make_prefix(1 << 18))  # 64 MiB
    found = store.get(KEY)
    assert found is not None
    mapped = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
            name = line.split()[-1]
        elif line.startswith(("Rss:", "Private_Dirty:")):
            mapped[name, line.split(":")[0]] = mapped.get((name, line.split(":")[0]), 0) + int(
                line.split()[1]
            )
    file = str(next(store.path.rglob("*.safetensors")))
    assert mapped[file, "Rss"] >= found.nbytes // 1024
    assert mapped[file, "Private_Dirty"] == 0


@posix_only
def test_nobody_else_can_look_in(store: PrefixStore) -> None:
    umask = os.umask(0)
    try:
        path = put(store)
    finally:
        os.umask(umask)
    folders = [store.path, *(p for p in store.path.rglob("*") if p.is_dir())]
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert {oct(folder.stat().st_mode & 0o777) for folder in folders} == {"0o700"}


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    save_file({"w": torch.ones(3)}, path, {"key": KEY, "checksum": "0"})


def bare(path: Path) -> None:
    save_file({"w": torch.ones(3)}, path)


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, foreign, bare])
def test_a_damaged_file_counts_as_none_and_is_set_aside(
    store: PrefixStore, damage: Callable[[Path], None]
) -> None:
    path = put(store)
    damage(path)
    assert store.get(KEY) is None
    assert files(store) == [named(KEY, "damaged")]
    assert same(store.get(KEY) or make_prefix(), make_prefix())
    put(store)
    assert same(store.get(KEY), make_prefix())


def test_the_entry_of_another_key_is_refused(store: PrefixStore) -> None:
    path = put(store)
    put(store, OTHER, seed=1).replace(path)
    assert store.get(KEY) is None


def test_the_least_recently_used_goes(tmp_path: Path) -> None:
    size = put(make_store(tmp_path / "measure")).stat().st_size
    store = make_store(tmp_path, max_bytes=2 * size + 2000)
    for age, key in ((300, KEY), (200, OTHER)):
        path = put(store, key)
        os.utime(path, (time.time() - age,) * 2)
    assert store.get(KEY) is not None, "reading counts as a use"
    put(store, THIRD)
    assert files(store) == sorted(named(key) for key in (KEY, THIRD))
    assert store.usage().bytes <= store.max_bytes
    assert store.room() < size


def test_damaged_files_count_and_go_first(tmp_path: Path) -> None:
    size = put(make_store(tmp_path / "measure")).stat().st_size
    store = make_store(tmp_path, max_bytes=2 * size + 2000)
    put(store, KEY)
    flipped(put(store, OTHER))
    assert store.get(OTHER) is None
    put(store, THIRD)
    assert files(store) == sorted(named(key) for key in (KEY, THIRD))


def test_what_is_larger_than_the_limit_pushes_nothing_out(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_bytes=20_000)
    put(store)
    store.put(OTHER, make_prefix(10_000))
    assert files(store) == [named(KEY)]


def test_a_mapped_prefix_survives_the_removal_of_its_file(store: PrefixStore) -> None:
    path = put(store)
    found = store.get(KEY)
    path.unlink()
    assert same(found, make_prefix())


def test_a_file_that_vanishes_while_it_is_looked_at(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process makes room."""
    path = put(store)
    stat, gone = Path.stat, []

    def vanish(self: Path, **options: bool) -> os.stat_result:
        if self == path and not gone:
            gone.append(1)
            path.unlink()
        return stat(self, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", vanish)
        assert store.usage().files == 0
    assert store.get(KEY) is None


def test_left_over_temporary_folders_are_swept_when_they_are_old(store: PrefixStore) -> None:
    folder = put(store).parent
    old, young = folder / "a.tmp", folder / "b.tmp"
    for left in (old, young):
        left.mkdir()
        (left / "x").write_text("torn")
    os.utime(old, (time.time() - 7200,) * 2)
    put(store, OTHER)
    assert (old.exists(), young.exists()) == (False, True)


def full(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_once_and_fails_nothing(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING):
        store.put(KEY, make_prefix())
        store.put(OTHER, make_prefix())
    assert [record.message for record in caplog.records] == [
        f"cannot keep keys and values in {store.path}: No space left on device"
    ]
    assert files(store) == []
    assert not list(store.path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_made_is_told_once_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kv").write_text("a file")
    store = make_store(tmp_path)
    store.put(KEY, make_prefix())
    assert store.get(KEY) is None
    assert len(caplog.records) == 1


def test_an_unreadable_file_is_told_and_left_alone(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(store)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("safetensors.safe_open", refuse)
    assert store.get(KEY) is None
    assert path.exists()
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize(
    "key",
    [
        "",
        "../../etc/passwd",
        "a" * 64,
        "A" * 32 + "-" + "a" * 64,
        f"{NAMESPACE}/{'a' * 64}",
        f"..-{'a' * 64}",
        f"{NAMESPACE}-{'ab' * 31}",
        f"{NAMESPACE}-{'a' * 64}\n",
    ],
)
def test_a_key_that_is_no_hash_is_refused(store: PrefixStore, key: str) -> None:
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        store.get(key)
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        store.put(key, make_prefix())


WRITING = """
import sys
from pathlib import Path
import torch
from ttt_core.prefix import FrozenPrefix
from ttt_core.prefix_store import PrefixStore

store = PrefixStore(Path(sys.argv[1]), max_bytes=20_000_000)
tensor = torch.arange(500_000.0).view(1, 1, -1, 1)
prefix = FrozenPrefix(tuple(range(500_000)), (tensor,), (tensor,))
number = 0
while True:
    store.put(f"{0:032x}-{number % 4:064x}", prefix)  # Three files fit: every put makes room first.
    print(".", flush=True)
    number += 1
"""


@posix_only
def test_killed_writers_leave_whole_entries_only(tmp_path: Path) -> None:
    """Writers die by SIGKILL in the middle of a put, while this process reads."""
    store = PrefixStore(tmp_path / "kv", max_bytes=20_000_000)
    core = Path(ttt_core.__file__).parents[1]
    expected, n_read = torch.arange(500_000.0).view(1, 1, -1, 1), 0
    for attempt in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(store.path)],
            env={**os.environ, "PYTHONPATH": str(core)},
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        for _ in range(3):
            assert writer.stdout.readline()
        for number in range(4):
            found = store.get(f"{0:032x}-{number:064x}")
            n_read += found is not None
            assert found is None or torch.equal(found.keys[0], expected)
        time.sleep(0.003 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert n_read > 0
    assert store.usage().bytes <= store.max_bytes
    assert not list(store.path.rglob("*.damaged"))
    for path in store.path.rglob("*.safetensors"):
        if path.parent.suffix != ".tmp":
            assert store.get(f"{0:032x}-{path.stem}") is not None


def test_a_file_that_goes_while_it_is_opened_is_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is mapped by name after its header was read; an evicting process may come between."""
    store = PrefixStore(tmp_path, max_bytes=1 << 20)
    key = KEY

    def gone(path: Path, key: str) -> FrozenPrefix:
        raise RuntimeError(f"unable to open file <{path}>")

    monkeypatch.setattr("ttt_core.prefix_store._load", gone)
    assert store.get(key) is None
    assert not caplog.records
