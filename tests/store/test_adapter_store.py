"""The adapter store: whole entries or none, private, and never a caller's path."""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tests.store.forging import forge
from tests.store.samples import (
    KEY,
    NOT_FINITE,
    OTHER,
    age,
    file_of,
    files_in,
    kept_base,
    key_of,
    make_entry,
    make_identity,
    make_probe,
    make_report,
    posix_only,
    put,
    run,
    same,
    shapes_of,
    start,
)
from ttt_core import AdaptationConfig, AdapterStore, ConfigError, StoreError, TTTEngine
from ttt_core.adapter import QueryAdapter, adapter_shapes
from ttt_core.files import Usage
from ttt_core.locks import pin
from ttt_core.namespace import Namespace
from ttt_core.runtime import Runtime
from ttt_core.store import StoredAdapter
from ttt_core.store import adapter_store as module
from ttt_core.store.format import encode

SECRET = b"a secret of 16 b"


def fail_with(code: int) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


# ---------------------------------------------------------------- put and get


def test_round_trip(store: AdapterStore) -> None:
    entry = make_entry()
    assert store.get(KEY) is None
    assert store.put(KEY, entry)
    assert same(store.get(KEY), entry)
    assert same(AdapterStore(store.path).get(KEY), entry)
    assert store.get(OTHER) is None


def test_a_creation_time_is_noted(store: AdapterStore) -> None:
    put(store)
    found = store.get(KEY)
    assert found is not None
    assert found.created is not None
    assert abs(time.time() - found.created.timestamp()) < 3600


def test_kept_base_has_no_weights_but_a_report(store: AdapterStore) -> None:
    store.put(KEY, kept_base())
    assert same(store.get(KEY), kept_base())
    assert same(store.get(KEY, shapes={"w": (3,)}), kept_base())


@pytest.mark.parametrize("after", NOT_FINITE)
def test_losses_that_are_not_finite_can_be_stored(store: AdapterStore, after: float) -> None:
    """A run that diverged is kept as `kept_base`; losing it would train again every time."""
    report = make_report(decision="kept_base", probe=make_probe(after))
    store.put(KEY, StoredAdapter(make_identity(), report))
    found = store.get(KEY)
    assert found is not None
    assert found.report.probe is not None
    assert str(found.report.probe.after) == str(after)


def test_the_first_writer_wins(store: AdapterStore) -> None:
    path = put(store)
    before = path.read_bytes()
    assert not store.put(KEY, kept_base())
    assert path.read_bytes() == before
    assert len(files_in(store.path)) == 1


def test_a_key_that_is_not_the_entry_s_is_refused(store: AdapterStore) -> None:
    with pytest.raises(ValueError, match="not the one of the entry's identity"):
        store.put(OTHER, make_entry())
    with pytest.raises(ValueError, match="not the one of the entry's identity"):
        store.in_namespace("tenant").put(KEY, make_entry())
    assert not store.path.exists()


def test_bytes_that_were_read_can_be_written_elsewhere(store: AdapterStore, tmp_path: Path) -> None:
    put(store)
    data = store.read_bytes(KEY)
    assert data is not None
    other = AdapterStore(tmp_path / "other")
    assert other.write_bytes(data) == KEY
    assert same(other.get(KEY), make_entry())
    assert store.read_bytes(OTHER) is None


def test_bytes_that_are_no_adapter_of_this_namespace_are_not_written(store: AdapterStore) -> None:
    data = put(store).read_bytes()
    tenant = store.in_namespace("tenant")
    for wrong in (data, data[:-1], b"", forge(data, key=OTHER)):
        with pytest.raises(StoreError, match="no adapter of this store"):
            tenant.write_bytes(wrong)
    assert tenant.entries() == []


def test_a_constructed_store_makes_nothing(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    assert store.get(KEY) is None
    assert store.entries() == []
    assert store.usage() == Usage(0, 0)
    assert store.namespaces() == []
    assert list(store.verify()) == []
    assert store.prune(max_bytes=0).removed == ()
    assert not store.remove(KEY)
    assert store.pin(KEY) is None
    assert not store.set_aside(KEY)
    assert not store.path.exists()


def test_default_folder_follows_ttt_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TTT_HOME", str(tmp_path / "elsewhere"))
    assert AdapterStore().path == tmp_path / "elsewhere" / "adapters"
    monkeypatch.delenv("TTT_HOME")
    assert "context-ttt" in str(AdapterStore().path)


# ---------------------------------------------------------------- what does not fit


def check_damaged(store: AdapterStore, path: Path, **options: Any) -> None:
    """A damaged entry counts as none, is set aside, and can be written again."""
    assert store.get(KEY, **options) is None
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_truncated_file(store: AdapterStore, size: int) -> None:
    path = put(store)
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    check_damaged(store, path)


def test_flipped_bit_in_the_weights(store: AdapterStore) -> None:
    path = put(store)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    check_damaged(store, path)


def test_entry_of_another_key(store: AdapterStore) -> None:
    path, other = put(store), put(store, 1)
    other.replace(path)
    check_damaged(store, path)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"report": "{}", "key": KEY, "checksum": "0"}], ids=str
)
def test_foreign_safetensors(store: AdapterStore, metadata: dict[str, str] | None) -> None:
    path = put(store)
    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, path, metadata)
    check_damaged(store, path)


def test_something_else_in_its_place(store: AdapterStore) -> None:
    path = put(store)
    path.write_text("<html>not found</html>")
    check_damaged(store, path)


def test_weights_that_do_not_fit_the_model_are_not_even_read(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fitting = put(store), shapes_of(make_entry())
    assert same(store.get(KEY, shapes=fitting), make_entry())
    monkeypatch.setattr(module, "read_weights", fail_with(errno.EIO))
    check = {**fitting, "a.lora_A.weight": (3, 4)}
    assert store.get(KEY, shapes=check) is None
    assert path.with_suffix(".damaged").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER},
        {"identity": make_identity(1).model_dump(mode="json")},
        {"key": OTHER, "identity": make_identity(1).model_dump(mode="json")},
        {"report": make_report(decision="kept_base").model_dump(mode="json")},
    ],
    ids=["key", "identity", "both", "decision"],
)
def test_a_forger_with_a_right_checksum_is_refused(
    store: AdapterStore, changes: dict[str, Any]
) -> None:
    path = put(store)
    path.write_bytes(forge(path.read_bytes(), **changes))
    check_damaged(store, path)


def test_what_was_set_aside_is_told_once_with_the_reason(
    store: AdapterStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(store)
    os.truncate(path, path.stat().st_size - 1)
    with caplog.at_level(logging.WARNING, logger="ttt_core"):
        assert store.get(KEY) is None
        assert store.get(KEY) is None
    (record,) = caplog.records
    assert KEY in record.getMessage()
    assert "a tensor does not fit the file" in record.getMessage()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_gives_nothing(store: AdapterStore, data: st.DataObject) -> None:
    """Never an error, never other weights or another report."""
    path = file_of(store)
    put(store)
    changed = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    assert store.get(KEY) is None
    assert path.with_suffix(".damaged").read_bytes() == changed


def test_a_rebuilt_file_is_not_set_aside_for_the_damaged_one_before_it(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reader finds damage, and another process repairs it before the reader acts."""
    path = put(store)
    os.truncate(path, 100)
    set_aside = store._folder.set_aside

    def repaired_before(key: str, inode: tuple[int, int]) -> bool:
        monkeypatch.undo()
        held = path.open("rb")  # Its inode's number must not be given out again.
        assert AdapterStore(store.path).get(key) is None
        put(AdapterStore(store.path))
        done = set_aside(key, inode)
        held.close()
        return done

    monkeypatch.setattr(store._folder, "set_aside", repaired_before)
    assert store.get(KEY) is None
    assert same(store.get(KEY), make_entry())


# ---------------------------------------------------------------- who can look in


@posix_only
def test_nobody_else_can_look_in(store: AdapterStore) -> None:
    before = os.umask(0)
    try:
        path = put(store)
        with store.alone(KEY, timeout=0):
            folders = [store.path, *(p for p in store.path.rglob("*") if p.is_dir())]
            files = [p for p in store.path.rglob("*") if p.is_file()]
            assert {oct(p.stat().st_mode & 0o777) for p in folders} == {"0o700"}
            assert {oct(p.stat().st_mode & 0o777) for p in files} == {"0o600"}
            assert path in files
            assert len(files) == 2
    finally:
        os.umask(before)


@posix_only
def test_folders_that_were_removed_come_back_private(store: AdapterStore) -> None:
    """`locks` looks as if it could be cleaned away."""
    put(store)
    (store.path / "locks").rmdir()
    before = os.umask(0)
    try:
        store.prune(max_bytes=0)
    finally:
        os.umask(before)
    assert oct((store.path / "locks").stat().st_mode & 0o777) == "0o700"


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
@pytest.mark.parametrize("folder", [".", "v2", "v2/namespace"])
def test_a_store_that_others_can_write_to_is_refused(
    store: AdapterStore, folder: str, mode: int
) -> None:
    put(store)
    before = files_in(store.path)
    (store.path / folder.replace("namespace", store.namespace.folder)).chmod(mode)
    for use in (
        lambda: store.get(KEY),
        lambda: store.put(OTHER, make_entry(1)),
        lambda: store.prepare(OTHER),
        lambda: store.header(KEY),
        lambda: store.read_bytes(KEY),
        lambda: store.remove(KEY),
        lambda: store.prune(max_bytes=0),
    ):
        with pytest.raises(StoreError, match=r"other users can write to .*; chmod go-w"):
            use()
    assert not store.set_aside(KEY)
    assert files_in(store.path) == before


def test_no_document_text_on_disk(engine: TTTEngine, tmp_path: Path) -> None:
    lines = "\n".join(f"Rosebud {n * n} is secret" for n in range(5))
    config = AdaptationConfig(gate=False, steps=1, learning_rate=1e-3, r=2)
    adapted = engine.adapt(lines, system="Citizen", config=config)
    assert adapted.report is not None
    assert adapted.report.decision == "adapted"
    found = files_in(tmp_path)
    assert len(found) == 1
    for word in ("Rosebud", "secret", "Citizen"):
        assert all(word.encode() not in data and word not in name for name, data in found.items())


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "A" * 64, "ab" * 31, "ab" * 33, "/" + "a" * 63, "a" * 64 + "\n"]
)
def test_key_that_is_no_hash_is_refused(store: AdapterStore, key: str) -> None:
    def alone() -> None:
        with store.alone(key, timeout=0):
            raise AssertionError

    uses = (store.get, store.set_aside, store.prepare, store.pin, store.remove, store.header)
    for use in (*(lambda use=use: use(key) for use in uses), alone):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            use()
    assert not store.path.exists()


# ---------------------------------------------------------------- errors


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = AdapterStore(tmp_path / "file" / "store")
    for use in (lambda: store.put(KEY, make_entry()), lambda: store.prepare(KEY)):
        with pytest.raises(StoreError, match="Not a directory; set TTT_HOME") as caught:
            use()
        assert str(store.path) in str(caught.value)
    with pytest.raises(StoreError, match="cannot read the adapter store"):
        store.get(KEY)


def test_full_disk_leaves_nothing_behind(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store)
    before = files_in(store.path)
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        store.put(OTHER, make_entry(1))
    assert files_in(store.path) == before


def test_unreadable_file_is_an_error_and_not_a_miss(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every process would train again, and fail to write what it learned."""
    path = put(store)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail_with(errno.EACCES))
        with pytest.raises(StoreError, match=r"cannot read the adapter store .*Permission denied"):
            store.get(KEY)
    assert path.exists()
    assert same(store.get(KEY), make_entry())


def test_an_eviction_that_fails_loses_nothing_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store", max_bytes=1)
    monkeypatch.setattr(module, "prune", fail_with(errno.EIO))
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


# ---------------------------------------------------------------- limits and uses


def test_a_use_is_noted_but_not_each_one(store: AdapterStore) -> None:
    path = put(store)
    age(path, 30)
    before = path.stat().st_mtime
    store.get(KEY)
    assert path.stat().st_mtime == before
    age(path, 3600)
    store.get(KEY)
    assert time.time() - path.stat().st_mtime < 60


def test_putting_evicts_what_was_used_least_recently(tmp_path: Path) -> None:
    size = len(encode(make_entry(), KEY))
    store = AdapterStore(tmp_path / "store", max_bytes=3 * size + size // 2)
    for number in range(3):
        age(put(store, number), 1000 - 100 * number)
    store.get(key_of(0))  # Makes it the youngest.
    put(store, 3)
    assert {entry.key for entry in store.entries()} == {key_of(n) for n in (0, 2, 3)}


def test_what_was_just_put_stays_even_if_it_is_too_large(tmp_path: Path) -> None:
    """Else training would be for nothing; it goes when the next one comes."""
    store = AdapterStore(tmp_path / "store", max_bytes=10)
    put(store, 0)
    assert [entry.key for entry in store.entries()] == [key_of(0)]
    put(store, 1)
    assert [entry.key for entry in store.entries()] == [key_of(1)]


def test_each_namespace_has_the_whole_limit(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store", max_bytes=10)
    tenant = store.in_namespace("tenant")
    put(store), put(tenant)
    assert len(store.entries()) == len(tenant.entries()) == 1
    assert tenant.limits == store.limits


def test_what_is_pinned_is_not_evicted(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store", max_bytes=10)
    put(store, 0)
    pinned = store.pin(key_of(0))
    assert pinned is not None
    put(store, 1)
    assert {entry.key for entry in store.entries()} == {key_of(0), key_of(1)}
    pinned.close()
    put(store, 2)
    assert {entry.key for entry in store.entries()} == {key_of(2)}


def test_removing_takes_the_file_and_only_that(store: AdapterStore) -> None:
    put(store), put(store, 1)
    pinned = store.pin(KEY)
    assert store.remove(KEY)
    assert not store.remove(KEY)
    assert store.get(KEY) is None
    assert same(store.get(OTHER), make_entry(1))
    assert pinned is not None


# ---------------------------------------------------------------- listing


def test_entries_are_listed_used_last_first_without_being_read(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, seconds in enumerate((200, 300, 100)):
        age(put(store, number), seconds)
    store.set_aside(key_of(1))
    monkeypatch.setattr(os, "open", fail_with(errno.EACCES))
    listed = [(entry.key, entry.damaged) for entry in store.entries()]
    assert listed == [(key_of(2), False), (key_of(0), False), (key_of(1), True)]
    size = file_of(store, key_of(0)).stat().st_size
    assert store.usage() == Usage(files=2, bytes=2 * size)


def test_headers_tell_everything_without_the_weights(store: AdapterStore) -> None:
    path = put(store)
    header = store.header(KEY)
    assert header is not None
    assert header.metadata.identity == make_identity()
    assert header.metadata.report == make_report()
    assert header.shapes == shapes_of(make_entry())
    assert header.size == path.stat().st_size
    os.truncate(path, 10)
    assert store.header(KEY) is None
    assert path.exists()
    assert store.header(OTHER) is None


def test_verifying_finds_what_is_wrong_and_changes_nothing(store: AdapterStore) -> None:
    paths = [put(store, number) for number in range(4)]
    os.truncate(paths[1], 100)
    paths[2].write_bytes(paths[3].read_bytes())
    before = files_in(store.path)
    problems = {verdict.entry.key: verdict.problem for verdict in store.verify()}
    assert problems.keys() == {key_of(number) for number in range(4)}
    assert problems[key_of(0)] is None
    assert problems[key_of(1)] == "it has no header of an adapter"
    assert problems[key_of(2)] == "it belongs to another key"
    assert problems[key_of(3)] is None
    assert files_in(store.path) == before


@posix_only
def test_a_hundred_thousand_entries_are_listed_in_seconds(store: AdapterStore) -> None:
    """Empty files, spread over the folders as hashes are."""
    folder = file_of(store).parents[1]
    shards = [folder / f"{number:02x}" for number in range(256)]
    for shard in shards:
        shard.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700), folder.parent.chmod(0o700), store.path.chmod(0o700)
    for number in range(100_000):
        shard = number % 256
        name = f"{shard:02x}{number:062x}.safetensors"
        os.mknod(shards[shard] / name, 0o600)
    started = time.process_time()
    assert len(store.entries()) == 100_000
    assert time.process_time() - started < 10
    started = time.process_time()
    assert store.get(KEY) is None
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())
    assert time.process_time() - started < 10


# ---------------------------------------------------------------- namespaces


def test_namespaces_do_not_see_each_other(store: AdapterStore) -> None:
    tenants = [
        store,
        store.in_namespace("a"),
        store.in_namespace("b"),
        store.in_namespace(Namespace("a", SECRET)),
        store.in_namespace(Namespace("a", SECRET[::-1])),
    ]
    keys = [key_of(0, tenant.namespace) for tenant in tenants]
    assert len(set(keys)) == len(tenants)
    for tenant in tenants:
        put(tenant)
    for tenant, key in zip(tenants, keys, strict=True):
        assert [entry.key for entry in tenant.entries()] == [key]
        assert [same(tenant.get(other), make_entry()) for other in keys] == [
            other == key for other in keys
        ]
    assert store.namespaces() == sorted(tenant.namespace.folder for tenant in tenants)


def test_a_file_of_another_namespace_under_its_own_key_is_refused(store: AdapterStore) -> None:
    """Whoever copies a tenant's file into his own folder learns nothing from it."""
    tenant, thief = store.in_namespace(Namespace("a", SECRET)), store.in_namespace("b")
    theirs, key = put(tenant), key_of(0, tenant.namespace)
    place = file_of(thief, key)
    place.parent.mkdir(parents=True, mode=0o700)
    os.link(theirs, place)
    assert thief.get(key) is None
    assert same(tenant.get(key), make_entry())


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "a" * 65, ".hidden"])
def test_a_namespace_that_could_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a namespace is named by"):
        AdapterStore(tmp_path / "store", namespace=name)
    with pytest.raises(ConfigError, match="a namespace is named by"):
        AdapterStore(tmp_path / "store").in_namespace(name)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- alone


def test_of_many_threads_one_is_alone(store: AdapterStore) -> None:
    store.prepare(KEY)
    inside, made = [], []

    def make() -> None:
        with store.alone(KEY, timeout=60) as alone:
            assert alone
            inside.append(1)
            assert len(inside) == 1
            if store.get(KEY) is None:
                made.append(store.put(KEY, make_entry()))
            inside.pop()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert made == [True]
    assert list((store.path / "locks").iterdir()) == []


def test_other_keys_and_namespaces_do_not_wait(store: AdapterStore) -> None:
    store.prepare(KEY)
    with (
        store.alone(KEY, timeout=0) as first,
        store.alone(OTHER, timeout=0) as second,
        store.in_namespace("a").alone(KEY, timeout=0) as third,
        store.alone(KEY, timeout=0) as again,
    ):
        assert (first, second, third, again) == (True, True, True, False)


ALONE = """
import sys
from ttt_core.store import AdapterStore
with AdapterStore(sys.argv[1]).alone(sys.argv[2], timeout=60) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


@posix_only
def test_a_killed_process_is_no_longer_alone(store: AdapterStore) -> None:
    store.prepare(KEY)
    waited: list[float] = []
    with start(ALONE, store.path, KEY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with store.alone(KEY, timeout=0.5, on_wait=waited.append) as alone:
            assert not alone
        os.kill(process.pid, signal.SIGKILL)
        with store.alone(KEY, timeout=30) as alone:
            assert alone
    assert waited
    assert list((store.path / "locks").iterdir()) == []


def test_locks_that_nobody_holds_do_not_last(store: AdapterStore) -> None:
    put(store)
    left_over = store.path / "locks" / f"{store.namespace.folder}-{KEY}.lock"
    left_over.write_bytes(b"")
    store.prune()
    assert not left_over.exists()


# ---------------------------------------------------------------- the model's side


@pytest.mark.parametrize("parametrization", ["lora", "full"])
def test_the_shapes_to_expect_are_those_of_the_adapter(
    any_model: PreTrainedModel, parametrization: str
) -> None:
    """Else every file would be refused, or any."""
    config = AdaptationConfig(parametrization=parametrization, r=3)
    projections = Runtime(any_model).architecture.projections
    state = QueryAdapter.create(projections, config).state_dict()
    expected = {name: tuple(weight.shape) for name, weight in state.items()}
    assert adapter_shapes(projections, config) == expected
    assert all(weight.dtype == torch.float32 for weight in state.values())


def test_listing_and_headers_need_no_torch(store: AdapterStore) -> None:
    put(store)
    code = f"""
import sys
from ttt_core.store import AdapterStore
store = AdapterStore({str(store.path)!r})
assert [entry.key for entry in store.entries()] == [{KEY!r}]
assert store.header({KEY!r}) is not None
assert [verdict.problem for verdict in store.verify()] == [None]
assert len(store.prune(max_bytes=0).removed) == 1
print("torch" in sys.modules)
"""
    assert run(code) == "False\n"


def test_a_pin_is_that_of_the_entry(store: AdapterStore) -> None:
    path = put(store)
    pinned, same_file = store.pin(KEY), pin(path)
    assert pinned is not None
    assert same_file is not None
    assert store.pin(OTHER) is None
    same_file.close()
    assert store.prune(max_bytes=0).removed == ()
    pinned.close()
    assert len(store.prune(max_bytes=0).removed) == 1
