"""Whatever lies in the place of an entry: it is exactly what was written, or it is not used."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.forging import data_of, header_of, seal, spell, spell_text
from tests.store.samples import (
    KEY,
    file_of,
    key_of,
    make_entry,
    posix_only,
    put,
    run,
    same,
    shapes_of,
)
from ttt_core import AdapterStore
from ttt_core.namespace import Namespace
from ttt_core.prefix import FrozenPrefix
from ttt_core.prefix_store import PrefixStore
from ttt_core.store.format import encode

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = shapes_of(make_entry())
KV_KEY = f"{Namespace().folder}-{KEY}"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "BF16", "2", KEY, "\ud800", 10**4000, [0, 2**60], [2**31, 2**31]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    store = AdapterStore(tmp_path / "store")
    put(store)
    return store


@cache
def whole() -> bytes:
    return encode(make_entry(), KEY)


def lay(path: Path, data: bytes) -> None:
    """Put other bytes in a file's place, and leave alone who has mapped it."""
    new = path.with_name("new")
    new.write_bytes(data)
    new.replace(path)


def check(store: AdapterStore, data: bytes) -> None:
    """The bytes are used only if they are what was written, to the last one."""
    path = file_of(store)
    lay(path, data)
    found = store.get(KEY, shapes=SHAPES)
    assert found is None or (data == whole() and same(found, make_entry()))
    assert path.exists() == (found is not None)
    lay(path, data)
    assert (store.get(KEY) is None) == (found is None)


# ---------------------------------------------------------------- bytes


@fuzz
@given(size=st.integers(0, len(whole())))
def test_a_truncated_entry_is_not_used(store: AdapterStore, size: int) -> None:
    check(store, whole()[:size])


@fuzz
@given(flips=st.lists(st.integers(0, 8 * len(whole()) - 1), min_size=1, max_size=8))
def test_an_entry_with_flipped_bits_is_not_used(store: AdapterStore, flips: list[int]) -> None:
    data = bytearray(whole())
    for bit in flips:
        data[bit // 8] ^= 1 << bit % 8
    check(store, bytes(data))


@fuzz
@given(more=st.binary(min_size=1, max_size=100), before=st.booleans())
def test_an_entry_with_bytes_too_many_is_not_used(
    store: AdapterStore, more: bytes, before: bool
) -> None:
    check(store, more + whole() if before else whole() + more)


@fuzz
@given(at=st.integers(0, len(whole())), gone=st.integers(0, 50), new=st.binary(max_size=50))
def test_an_entry_with_a_part_exchanged_is_not_used(
    store: AdapterStore, at: int, gone: int, new: bytes
) -> None:
    check(store, whole()[:at] + new + whole()[at + gone :])


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes_are_not_used(store: AdapterStore, data: bytes) -> None:
    check(store, data)


@fuzz
@given(order=st.permutations(range(4)))
def test_entries_that_changed_places_are_not_used(tmp_path: Path, order: list[int]) -> None:
    store = AdapterStore(tmp_path / "store")
    for number in range(4):
        put(store, number)
    files = [file_of(store, key_of(number)) for number in range(4)]
    contents = [file.read_bytes() for file in files]
    for file, number in zip(files, order, strict=True):
        lay(file, contents[number])
    for number in range(4):
        found = store.get(key_of(number))
        assert (found is not None) == (order[number] == number)
        assert found is None or same(found, make_entry(number))


# ---------------------------------------------------------------- headers


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutate(data: st.DataObject, value: Any) -> Any:
    """Change, remove, rename or double something in a JSON value."""
    value = copy.deepcopy(value)
    path = data.draw(st.sampled_from([path for path in places(value) if path]))
    parent = value
    for step in path[:-1]:
        parent = parent[step]
    change = data.draw(st.sampled_from(["set", "set", "remove", "rename", "double"]))
    old = parent[path[-1]]
    if change == "set":
        parent[path[-1]] = data.draw(JSON)
    elif change == "remove":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent[data.draw(st.text(max_size=8))] = old
        if change == "rename":
            parent.pop(path[-1], None)
    else:
        parent.append(old)
    return value


def mutated(data: st.DataObject) -> dict[str, Any]:
    """The header of a file with a few changes, also in the adapter's own description."""
    header = header_of(whole())
    for _ in range(data.draw(st.integers(1, 3))):
        metadata = header.get("__metadata__")
        inside = isinstance(metadata, dict) and isinstance(metadata.get("adapter"), str)
        if inside and data.draw(st.booleans()):
            try:
                about = json.loads(metadata["adapter"])
            except ValueError:
                continue
            if isinstance(about, dict) and about:
                metadata["adapter"] = json.dumps(mutate(data, about))
        elif header:
            header = mutate(data, header)
    return header


@fuzz
@given(data=st.data())
def test_an_entry_with_another_header_is_not_used(store: AdapterStore, data: st.DataObject) -> None:
    check(store, spell(mutated(data), data_of(whole())))


@settings(fuzz, max_examples=300)
@given(data=st.data())
def test_a_forger_s_entry_is_at_most_another_adapter_for_the_same_document_and_model(
    store: AdapterStore, data: st.DataObject
) -> None:
    """Who can write to the store can make checksums, too; what does not belong stays out."""
    header, weights = mutated(data), data_of(whole())
    if isinstance(header.get("__metadata__"), dict):
        header = seal(header, weights)
    for shapes in (SHAPES, None):
        lay(file_of(store), spell(header, weights))
        found = store.get(KEY, shapes=shapes)
        if found is not None:
            assert found.identity == make_entry().identity
            assert (found.report.decision == "adapted") == bool(found.weights)
            if shapes is not None and found.weights:
                assert shapes_of(found) == shapes


@fuzz
@given(st.recursive(st.just(b"0"), lambda inner: inner.map(lambda text: b"[%b]" % text)), JSON)
def test_a_header_that_is_any_json_is_not_used(
    store: AdapterStore, nested: bytes, value: Any
) -> None:
    check(store, spell(value, b""))
    check(store, spell_text(nested, b""))


@pytest.mark.parametrize("depth", [100, 900, 990, 1000, 5000, 100_000, 500_000])
@pytest.mark.parametrize("inside", ["header", "metadata", "tensor", "adapter"])
def test_deep_nesting_is_not_used(store: AdapterStore, depth: int, inside: str) -> None:
    header, mark = header_of(whole()), "@@"
    {
        "header": header,
        "metadata": header["__metadata__"],
        "tensor": header["a.lora_A.weight"],
        "adapter": header["__metadata__"],
    }[inside]["adapter" if inside == "adapter" else "x"] = mark
    nest = "[" * depth + "]" * depth
    text = json.dumps(header)
    text = text.replace(mark, nest) if inside == "adapter" else text.replace(f'"{mark}"', nest)
    check(store, spell_text(text.encode(), data_of(whole())))


# ---------------------------------------------------------------- bombs

BOMBS = """
import json, os, resource, sys
from pathlib import Path
import safetensors.torch, torch
from tests.store.forging import header_of, data_of, seal, spell
from tests.store.samples import KEY, file_of, make_entry, same, shapes_of
from tests.faults.test_hostile_files import KV_KEY, make_prefix
from ttt_core.store import AdapterStore
from ttt_core.prefix_store import PrefixStore

MB = 1 << 20
root = Path(sys.argv[1])
store, kv = AdapterStore(root), PrefixStore(root / "kv", max_bytes=1 << 30)
kv.put(KV_KEY, make_prefix())
assert kv.get(KV_KEY) is not None
path, kv_path = file_of(store), kv._file(KV_KEY)
good = path.read_bytes()
assert same(store.get(KEY), make_entry())
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 64 * MB, resource.RLIM_INFINITY))

def sparse(path, start, size):
    path.unlink(missing_ok=True)
    path.write_bytes(start)
    os.truncate(path, size)

def tensor(n_bytes):
    header = header_of(good)
    header = {"w": {"dtype": "F32", "shape": [n_bytes // 4], "data_offsets": [0, n_bytes]},
              "__metadata__": header["__metadata__"]}
    return spell(header, b"")

for claimed in (80 * MB, 2**40, 2**60, 2**63, 2**64 - 1):
    start = claimed.to_bytes(8, "little") + b'{"__metadata__":'
    for size in (24, 200 * MB):
        for place, get in ((path, lambda: store.get(KEY)), (kv_path, lambda: kv.get(KV_KEY))):
            sparse(place, start, size)
            assert get() is None, claimed

for n_bytes in (2**50, 2**60):
    sparse(path, tensor(n_bytes), 4096)
    assert store.get(KEY) is None
    sparse(kv_path, tensor(n_bytes), 4096)
    assert kv.get(KV_KEY) is None

# A consistent header: the file is as large as it says.
for n_bytes, shapes in ((256 * MB, shapes_of(make_entry())), (2**40, None)):
    start = tensor(n_bytes)
    sparse(path, start, len(start) + n_bytes)
    assert store.get(KEY, shapes=shapes) is None
    assert store.header(KEY) is None

store.put(KEY, make_entry())
assert same(store.get(KEY), make_entry())
print("done")
"""


@posix_only
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux")
def test_bombs_are_refused_before_their_memory_is_taken(store: AdapterStore) -> None:
    """In a process that may take 64 MB more than it has: headers and tensors of any size."""
    assert run(BOMBS, store.path) == "done\n"


# ---------------------------------------------------------------- no files at all


def make_directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_bytes(whole())


def make_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(whole())
    path.symlink_to(elsewhere)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def make_link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # The path of a socket may have 107 bytes.
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
        os.rename("socket", path.name)
    finally:
        os.chdir(here)


ODD = [
    os.mkfifo if os.name != "nt" else make_link,
    make_directory,
    make_link,
    make_dangling_link,
    make_link_to_itself,
    make_link_to_zeros,
    make_socket,
]


@posix_only
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_set_aside_and_made_again(
    store: AdapterStore, make: Callable[[Path], None]
) -> None:
    path = file_of(store)
    path.unlink()
    make(path)
    descriptors = len(os.listdir("/proc/self/fd"))
    problems = [verdict.problem for verdict in store.verify()]
    assert problems == ["it has no header of an adapter"]
    assert store.header(KEY) is None
    assert store.get(KEY) is None
    assert os.path.lexists(path.with_suffix(".damaged"))
    assert store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())
    assert len(os.listdir("/proc/self/fd")) == descriptors


@posix_only
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_what_is_no_regular_file_can_be_pruned_unless_it_is_a_folder(
    store: AdapterStore, make: Callable[[Path], None]
) -> None:
    path = file_of(store)
    path.unlink()
    make(path)
    assert store.pin(KEY) is None or not path.is_symlink()
    store.prune(max_age=-1.0)
    assert os.path.lexists(path) == (make is make_directory)
    if path.is_dir():
        assert (path / "inside").read_bytes() == whole()


def test_a_file_in_a_folder_s_place_is_no_entry(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    shard = file_of(store).parent
    shard.parent.mkdir(parents=True, mode=0o700)
    shard.parent.parent.chmod(0o700), store.path.chmod(0o700)
    shard.write_bytes(b"")
    assert store.get(KEY) is None
    assert store.entries() == []


# ---------------------------------------------------------------- keys and values


def make_prefix() -> FrozenPrefix:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 2, 5, 4, generator=generator) for _ in range(4)]
    return FrozenPrefix(tuple(range(5)), keys=tuple(tensors[:2]), values=tuple(tensors[2:]))


def same_prefix(found: FrozenPrefix) -> bool:
    expected = make_prefix()
    return found.input_ids == expected.input_ids and all(
        torch.equal(a, b)
        for a, b in zip(
            (*found.keys, *found.values), (*expected.keys, *expected.values), strict=True
        )
    )


@pytest.fixture
def kv(tmp_path: Path) -> PrefixStore:
    kv = PrefixStore(tmp_path / "kv", max_bytes=1 << 20)
    kv.put(KV_KEY, make_prefix())
    return kv


@cache
def whole_kv(kv: PrefixStore) -> bytes:
    return kv._file(KV_KEY).read_bytes()


def check_kv(kv: PrefixStore, data: bytes) -> None:
    lay(kv._file(KV_KEY), data)
    found = kv.get(KV_KEY)
    assert found is None or same_prefix(found)


@fuzz
@given(data=st.data())
def test_keys_and_values_with_flipped_bits_or_truncated_are_not_used(
    kv: PrefixStore, data: st.DataObject
) -> None:
    changed = bytearray(whole_kv(kv))
    for bit in data.draw(st.lists(st.integers(0, 8 * len(changed) - 1), min_size=1, max_size=4)):
        changed[bit // 8] ^= 1 << bit % 8
    check_kv(kv, bytes(changed))
    check_kv(kv, whole_kv(kv)[: data.draw(st.integers(0, len(changed) - 1))])


@fuzz
@given(data=st.data())
def test_keys_and_values_with_another_header_are_not_used(
    kv: PrefixStore, data: st.DataObject
) -> None:
    header = header_of(whole_kv(kv))
    for _ in range(data.draw(st.integers(1, 3))):
        header = mutate(data, header) if header else header
    check_kv(kv, spell(header, data_of(whole_kv(kv))))


@fuzz
@given(value=JSON, more=st.binary(max_size=64))
def test_keys_and_values_that_are_any_bytes_are_not_used(
    kv: PrefixStore, value: Any, more: bytes
) -> None:
    check_kv(kv, spell(value, more))
    check_kv(kv, more)
