"""Nothing a caller passes becomes a path: what could be one is refused, and nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.store.samples import KEY, files_in, make_entry, put
from ttt_core import AdapterStore, ConfigError
from ttt_core.namespace import NAME, Namespace
from ttt_core.prefix import FrozenPrefix
from ttt_core.prefix_store import PrefixStore
from ttt_core.store.folder import StoreFolder
from ttt_core.store.outbox import Outbox

FOLDER = "0f" * 16

PARTS = ["..", ".", "/", "\\", "\0", "\n", "~", "a", "0", "ab", "C:", "%2e%2e", "secret", KEY]
WILD = st.lists(st.sampled_from(PARTS), max_size=6).map("".join) | st.text(max_size=70)
KEYS = WILD | st.text("0123456789abcdefABCDEFg./\n", min_size=60, max_size=66)
TRAVERSALS = ["../secret", "/etc/passwd", f"../../{KEY}", f"{KEY}/../../x", f"{KEY}\n", KEY.upper()]

wild = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with a store, and something beside it that is none of the store's business."""
    put(AdapterStore(tmp_path / "store"))
    for place in (tmp_path, tmp_path / "store", tmp_path / "store" / "v2"):
        (place / "secret").write_text("nobody's")
        (place / "secret.safetensors").write_text("nobody's")
    return tmp_path


def snapshot(world: Path) -> tuple[list[str], dict[str, bytes]]:
    return sorted(str(path) for path in world.rglob("*")), files_in(world)


def with_examples(test: Callable[..., None]) -> Callable[..., None]:
    for text in TRAVERSALS:
        test = example(name=text)(test)
    return test


def check_refused(use: Callable[[], object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        use()


@wild
@with_examples
@given(name=KEYS)
def test_a_key_that_is_no_key_is_refused_everywhere(world: Path, name: str) -> None:
    if name == KEY or (len(name) == 64 and set(name) <= set("0123456789abcdef")):
        return
    before = snapshot(world)
    store = AdapterStore(world / "store")

    def alone() -> None:
        with store.alone(name, timeout=0):
            raise AssertionError

    uses = [
        lambda: store.get(name),
        lambda: store.put(name, make_entry()),
        lambda: store.prepare(name),
        lambda: store.pin(name),
        lambda: store.remove(name),
        lambda: store.set_aside(name),
        lambda: store.header(name),
        lambda: store.read_bytes(name),
        alone,
    ]
    for use in uses:
        check_refused(use)
    assert snapshot(world) == before


@wild
@with_examples
@given(name=WILD)
def test_a_namespace_is_a_name_or_refused_and_never_a_folder_s_name(world: Path, name: str) -> None:
    before = snapshot(world)
    store = AdapterStore(world / "store")
    if not NAME.fullmatch(name):
        for use in (
            lambda: Namespace(name),
            lambda: AdapterStore(world / "store", namespace=name),
            lambda: store.in_namespace(name),
        ):
            with pytest.raises(ConfigError):
                use()
    else:
        folder = store.in_namespace(name)._folder.path
        assert folder.parent == world / "store" / "v2"
        assert set(folder.name) <= set("0123456789abcdef")
    assert snapshot(world) == before


@wild
@with_examples
@given(name=KEYS)
def test_a_folder_s_digest_is_a_digest_or_refused(world: Path, name: str) -> None:
    if len(name) == 32 and set(name) <= set("0123456789abcdef"):
        return
    before = snapshot(world)
    store = AdapterStore(world / "store")
    check_refused(lambda: StoreFolder(world / "store", name))
    check_refused(lambda: store.entries(folder=name))
    check_refused(lambda: list(store.verify(folder=name)))
    assert snapshot(world) == before


@wild
@with_examples
@given(name=KEYS)
def test_a_key_of_keys_and_values_is_one_or_refused(world: Path, name: str) -> None:
    if len(name) == 64 and set(name) <= set("0123456789abcdef"):
        return
    before = snapshot(world)
    kv = PrefixStore(world / "store" / "kv", max_bytes=1 << 20)
    empty = FrozenPrefix((), keys=(), values=())
    for key in (name, f"{FOLDER}-{name}", f"{FOLDER}{name}", f"{name}-{KEY}"):
        if len(name) != 32 or set(name) - set("0123456789abcdef"):
            check_refused(lambda key=key: kv.get(key))
            check_refused(lambda key=key: kv.put(key, empty))
    assert snapshot(world) == before


@wild
@with_examples
@given(name=KEYS)
def test_a_mark_for_upload_is_a_key_or_refused(world: Path, name: str) -> None:
    if len(name) == 64 and set(name) <= set("0123456789abcdef"):
        return
    before = snapshot(world)
    outbox = Outbox(world / "store" / "outbox")
    for use in (
        lambda: outbox.add(FOLDER, name),
        lambda: outbox.add(name, KEY),
        lambda: outbox.discard(FOLDER, name),
        lambda: (FOLDER, name) in outbox,
    ):
        check_refused(use)
    assert snapshot(world) == before


def test_names_on_the_disk_that_are_no_keys_are_neither_listed_nor_removed(world: Path) -> None:
    store = AdapterStore(world / "store")
    folder = store._folder.path
    odd = [folder / "zz", folder / "ab" / "..safetensors", folder / KEY[:2] / "x.safetensors"]
    odd += [folder / KEY[:2] / f"{KEY.upper()}.safetensors", folder / f"{KEY}.safetensors"]
    for path in odd:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    (world / "store" / "v2" / "notadigest").mkdir()
    assert [entry.key for entry in store.entries()] == [KEY]
    assert store.namespaces() == [store.namespace.folder]
    assert len(store.prune(max_age=-1.0).removed) == 1
    assert all(path.read_bytes() == b"mine" for path in odd)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_a_shard_that_leads_elsewhere_serves_nothing_that_is_not_the_entry(world: Path) -> None:
    """Only the owner can make such a link; what lies behind it is checked like all else."""
    store = AdapterStore(world / "store")
    other = AdapterStore(world / "other")
    put(other, 1)
    shard = store._folder.path / KEY[:2]
    for path in shard.iterdir():
        path.unlink()
    shard.rmdir()
    shard.symlink_to(world)
    before = files_in(world)
    assert store.get(KEY) is None
    assert files_in(world) == before
