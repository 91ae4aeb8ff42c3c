"""Two versions of the format side by side: neither reads, lists, evicts or removes the other's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.store.forging import data_of, header_of, seal, spell
from tests.store.samples import KEY, age, file_of, files_in, key_of, make_entry, put, same
from ttt_core import AdapterStore
from ttt_core.store.folder import other_versions

OTHERS = ("v1", "v3", "v10")
YEARS = 3e8


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """A store in which other versions keep the same keys, under folders like ours."""
    store = AdapterStore(tmp_path / "store", max_bytes=1)
    ours = put(store)
    for version in OTHERS:
        theirs = store.path / version / ours.relative_to(store.path / "v2")
        flat = store.path / version / KEY[:2] / f"{KEY}.safetensors"
        for path in (theirs, flat, theirs.with_suffix(".damaged"), theirs.with_suffix(".x.tmp")):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(ours.read_bytes())
            age(path, YEARS)
        for folder in (store.path / version).rglob("*/"):
            folder.chmod(0o700)
    return store


def theirs(store: AdapterStore) -> dict[str, bytes]:
    found = files_in(store.path)
    return {name: data for name, data in found.items() if name.startswith(OTHERS)}


def test_nothing_touches_other_versions(store: AdapterStore) -> None:
    before = theirs(store)
    assert len(before) == 4 * len(OTHERS)
    put(store, 1)  # Evicts.
    store.prune(max_bytes=0, max_age=0)
    store._folder.sweep(older_than=0)
    store.put(KEY, make_entry())
    store.set_aside(KEY)
    store.remove(KEY)
    store.get(KEY)
    assert theirs(store) == before


def test_other_versions_are_not_listed_but_known(store: AdapterStore) -> None:
    assert [entry.key for entry in store.entries()] == [KEY]
    assert store.usage().files == 1
    assert store.namespaces() == [store.namespace.folder]
    assert [verdict.entry.path for verdict in store.verify()] == [file_of(store)]
    assert {path.name for path in other_versions(store.path)} == set(OTHERS)


def test_what_only_another_version_has_is_not_found(store: AdapterStore) -> None:
    assert store.remove(KEY)
    assert theirs(store)
    assert store.get(KEY) is None
    assert store.header(KEY) is None
    assert store.pin(KEY) is None
    assert store.entries() == []
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


@pytest.mark.parametrize("version", ["1", "3", "2.0", "", "02"])
def test_another_version_s_file_under_our_name_is_refused(
    store: AdapterStore, version: str
) -> None:
    """Even if all else, the checksum included, is as it should be."""
    path = file_of(store)
    header, data = header_of(path.read_bytes()), data_of(path.read_bytes())
    header["__metadata__"]["format_version"] = version
    path.write_bytes(spell(seal(header, data), data))
    (verdict,) = store.verify()
    assert verdict.problem == "it is no adapter of this version of the format"
    assert store.get(KEY) is None
    assert path.with_suffix(".damaged").exists()


def test_a_file_of_the_first_version_is_refused(store: AdapterStore) -> None:
    """It had other metadata, and weights in the same layout."""
    path = file_of(store)
    header, data = header_of(path.read_bytes()), data_of(path.read_bytes())
    about = json.loads(header["__metadata__"]["adapter"])
    header["__metadata__"] = {
        "format_version": "1",
        "key": KEY,
        "report": json.dumps(about["report"]),
        "checksum": "0" * 64,
    }
    path.write_bytes(spell(header, data))
    assert store.get(KEY) is None
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


def test_other_versions_namespaces_and_keys_do_not_meet_ours(store: AdapterStore) -> None:
    put(store, 2)
    assert {entry.key for entry in store.entries()} == {key_of(2)}  # Ours went, by the limit.
    assert len(theirs(store)) == 4 * len(OTHERS)
