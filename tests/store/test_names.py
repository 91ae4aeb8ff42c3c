"""Names for adapters: any text is one, none is a path, and the whole is a dictionary."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ttt_core import AdaptationConfig, AdaptationReport, AdapterStore, ConfigError, StoreError
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import Namespace
from ttt_core.store import StoredAdapter
from ttt_core.store.format import check_bytes, encode, read_weights
from ttt_core.store.names import Names, check_name
from ttt_core.store.view import StoreView

SECRET = b"0123456789abcdef"
SEALED = Namespace("sealed", SECRET)


@cache
def adapter(number: int, namespace: Namespace = Namespace()) -> tuple[str, bytes]:  # noqa: B008
    """An adapter's key and file; another one for every number."""
    report = AdaptationReport(
        decision="adapted",
        reasons=(),
        parametrization="lora",
        supervision="cloze",
        document_tokens=9,
        seconds={},
    )
    identity = AdapterIdentity(
        base="1" * 64,
        tokenizer="2" * 64,
        template="3" * 64,
        prefix=f"{number:064x}",
        config=AdaptationConfig(),
    )
    weights = {"a.lora_A.weight": torch.full((2, 4), float(number))}
    key = identity.key(namespace)
    entry = StoredAdapter(identity=identity, report=report, weights=weights)
    return key, encode(entry, key, namespace=namespace.name)


(A, A_DATA), (B, B_DATA), (C, C_DATA) = (adapter(number) for number in range(3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def view(root: Path) -> StoreView:
    return StoreView(root)


@pytest.fixture
def names(root: Path) -> Names:
    return Names(root, Namespace())


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


# Names


STRANGE = [
    "",
    ".",
    "..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "C:\\Windows",
    "a\0b",
    "a\nb",
    "con",
    "contract.json",
    "Vertrag \u00fc\u4f60\U0001f989",
    "u\u0308",
    "\u00fc",
    "x" * 8192,
    "\x01" * 8192,
    A.upper(),
    A[:-1],
    A + "\n",
]


def test_any_text_is_a_name_and_no_path(names: Names, root: Path) -> None:
    for number, name in enumerate(STRANGE):
        assert names.get(name) is None
        names.set(name, adapter(number)[0])
    expected = {name: adapter(number)[0] for number, name in enumerate(STRANGE)}
    assert {name: names.get(name) for name in STRANGE} == names.all() == expected
    files = tree(root)
    assert len(files) == len(STRANGE)
    assert {str(Path(file).parent) for file in files} == {f"v2/{Namespace().folder}/names"}
    assert all(len(Path(file).name) == 64 + len(".json") for file in files)
    assert not set(root.parent.iterdir()) - {root}


@pytest.mark.parametrize("name", ["\ud800", "x" * 8193, "\u00fc" * 4097, A])
def test_what_is_no_name(names: Names, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        check_name(name)
    with pytest.raises(ConfigError, match="name"):
        names.set(name, A)
    assert names.get(name) is None
    assert names.remove(name) is None


def test_names_are_replaced_and_removed(names: Names) -> None:
    names.set("foo", A)
    names.set("foo", B)
    assert names.get("foo") == B
    assert names.remove("foo") == B
    assert names.remove("foo") is None
    assert names.all() == {}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_can_look_in(names: Names, root: Path) -> None:
    names.set("foo", A)
    names.mark(A, "0" * 64)
    for path in [root, *root.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    root.chmod(0o777)
    for use in (lambda: names.get("foo"), names.all, lambda: names.set("foo", B)):
        with pytest.raises(StoreError, match="other users can write to"):
            use()
    root.chmod(0o700)


def damage(path: Path, how: str) -> None:
    text = path.read_text()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "link":
        elsewhere = path.with_name("elsewhere")
        elsewhere.write_text(text)
        path.symlink_to(elsewhere)
    elif how == "pipe":
        os.mkfifo(path)
    else:
        record = json.loads(text)
        changed: dict[str, str | bytes] = {
            "empty": "",
            "half": text[: len(text) // 2],
            "binary": bytes(range(256)),
            "huge": text + " " * 70_000,
            "deep": "[" * 60_000,
            "list": "[]",
            "another name": json.dumps({**record, "name": "bar"}),
            "path for a key": json.dumps({**record, "key": "../" * 10}),
            "key with a newline": json.dumps({**record, "key": record["key"] + "\n"}),
            "more": json.dumps({**record, "path": "/etc"}),
            "surrogate": json.dumps({**record, "name": "\ud800"}),
        }
        data = changed[how]
        path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.skipif(os.name == "nt", reason="links and pipes")
@pytest.mark.parametrize(
    "how",
    ["empty", "half", "binary", "huge", "deep", "list", "another name", "path for a key",
     "key with a newline", "more", "surrogate", "folder", "link", "pipe"],
)  # fmt: skip
def test_a_damaged_file_is_no_name(view: StoreView, names: Names, how: str) -> None:
    view.put([("foo", A_DATA), ("other", B_DATA)])
    before = set(names.path.iterdir())
    names.set("tmp", A)
    (path,) = set(names.path.iterdir()) - before
    names.remove("tmp")
    (path,) = (p for p in before if p.suffix == ".json" and json.loads(p.read_text())["key"] == A)
    damage(path, how)
    assert names.get("foo") is None
    assert view.get("foo") is None
    assert names.all() == {"other": B}
    assert sorted(view.list_keys()) == sorted([A, "other"])  # The adapter is not lost from sight.
    if how != "folder":
        view.put([("foo", C_DATA)])
        assert view.get("foo") == C_DATA


def test_names_of_another_namespace_are_none_here(root: Path) -> None:
    mine, other = Names(root, Namespace()), Names(root, SEALED)
    mine.set("foo", A)
    assert other.all() == {}
    shutil.copytree(mine.path, other.path)
    assert other.get("foo") is None
    assert other.all() == {}


def test_looking_writes_nothing(view: StoreView, root: Path) -> None:
    assert view.get("foo") is view.get(A) is None
    assert list(view.list_keys()) == []
    view.remove(["foo", A])
    assert not root.exists()


# The view


def test_names_and_keys(view: StoreView) -> None:
    view.put([("foo", A_DATA), (B, B_DATA)])
    assert view.get("foo") == view.get(A) == A_DATA
    assert view.get(B) == B_DATA
    assert sorted(view.list_keys()) == sorted(["foo", B])


def test_two_names_for_one_adapter(view: StoreView) -> None:
    view.put([("foo", A_DATA), ("bar", A_DATA)])
    assert sorted(view.list_keys()) == ["bar", "foo"]
    assert view.store.usage().files == 1
    view.remove(["foo"])
    assert (view.get("foo"), view.get("bar")) == (None, A_DATA)
    view.remove(["bar"])
    assert view.store.usage().files == 0
    assert list(view.list_keys()) == []


def test_what_was_here_before_its_name_outlives_it(view: StoreView) -> None:
    view.store.write_bytes(A_DATA)  # As an engine would.
    view.put([("foo", A_DATA)])
    assert sorted(view.list_keys()) == sorted([A, "foo"])
    view.remove(["foo"])
    assert list(view.list_keys()) == [A]


def test_what_is_overwritten_goes(view: StoreView) -> None:
    view.put([("foo", A_DATA)])
    view.put([("foo", B_DATA)])
    assert view.get("foo") == B_DATA
    assert view.get(A) is None
    assert view.store.usage().files == 1


def test_removing_an_adapter_removes_its_names(view: StoreView, names: Names) -> None:
    view.put([("foo", A_DATA), ("bar", A_DATA), ("other", B_DATA)])
    view.remove([A])
    assert names.all() == {"other": B}
    assert names.marked(A) is None


def test_an_evicted_adapter_leaves_a_name_that_says_nothing(view: StoreView, names: Names) -> None:
    view.put([("foo", A_DATA), ("bar", B_DATA)])
    view.store.remove(A)
    assert view.get("foo") is None
    assert list(view.list_keys()) == ["bar"]
    assert names.get("foo") == A
    view.store.write_bytes(A_DATA)  # Learned again: then the name is one again.
    assert view.get("foo") == A_DATA
    assert sorted(view.list_keys()) == ["bar", "foo"]
    view.store.remove(A)
    view.remove(["foo"])
    assert names.all() == {"bar": B}
    assert names.marked(A) is None


def trained_anew(number: int = 0) -> bytes:
    """The same adapter, as it is when it was trained another time."""
    key, data = adapter(number)
    header = check_bytes(data).metadata
    report = header.report.model_copy(update={"seconds": {"train": 1.5}})
    entry = StoredAdapter(header.identity, report, read_weights(data), created=header.created)
    return encode(entry, key)


@pytest.mark.parametrize("how", ["removed", "evicted", "set aside"])
def test_what_is_trained_after_its_named_file_went_is_kept_for_itself(
    view: StoreView, names: Names, how: str
) -> None:
    """The mark of the earlier file says nothing about the later one."""
    view.put([("foo", A_DATA), ("bar", A_DATA)])
    if how == "removed":
        view.store.remove(A)
    elif how == "evicted":
        view.store.prune(max_bytes=0)
    else:
        view.store.set_aside(A)
    trained = trained_anew()
    view.store.write_bytes(trained)
    assert sorted(view.list_keys()) == sorted([A, "bar", "foo"])
    view.remove(["foo"])
    view.remove(["bar"])
    assert view.get(A) == trained
    assert list(view.list_keys()) == [A]
    assert names.marked(A) is None


def test_a_name_that_is_overwritten_takes_nothing_trained_along(view: StoreView) -> None:
    view.put([("foo", A_DATA)])
    view.store.remove(A)
    trained = trained_anew()
    view.store.write_bytes(trained)
    view.put([("foo", B_DATA)])
    assert view.get(A) == trained


def test_what_is_named_again_after_it_went_goes_with_its_name(view: StoreView) -> None:
    """A stale mark is replaced by one of the new file."""
    view.put([("foo", A_DATA)])
    view.store.remove(A)
    view.put([("foo", trained_anew())])
    assert list(view.list_keys()) == ["foo"]
    view.remove(["foo"])
    assert view.store.usage().files == 0


def test_what_is_trained_while_it_is_put_is_kept_for_itself(
    view: StoreView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether it is there and the writing."""
    trained, write = trained_anew(), AdapterStore.write_bytes

    def late(self: AdapterStore, data: bytes) -> str:
        write(self, trained)
        return write(self, data)

    monkeypatch.setattr(AdapterStore, "write_bytes", late)
    view.put([("foo", A_DATA)])
    view.remove(["foo"])
    assert view.get(A) == trained


@pytest.mark.parametrize("text", [b"", b"\xff" * 64, b"0" * 65, b"0" * 64])
def test_a_mark_that_says_something_else_is_none(
    view: StoreView, names: Names, text: bytes
) -> None:
    view.put([("foo", A_DATA)])
    (path,) = names.path.glob("*.named")
    path.write_bytes(text)
    view.remove(["foo"])
    assert view.get(A) == A_DATA


def test_clearing_takes_what_killed_writers_left(view: StoreView, names: Names) -> None:
    """However young it is: it holds what documents said."""
    view.put([("foo", A_DATA)])
    (path,) = view.store.path.rglob(f"{A}.safetensors")
    left = path.with_name(f"{path.name}.0123.tmp")
    for again in (False, True):
        left.write_bytes(A_DATA)
        (names.path / "x.tmp").mkdir()
        view.clear()
        assert not list(view.store.path.rglob("*.tmp")), again


def test_clearing_nothing_writes_nothing(view: StoreView, root: Path) -> None:
    view.clear()
    assert not root.exists()


def test_limits_evict_what_is_named_too(root: Path) -> None:
    view = StoreView(AdapterStore(root, max_bytes=len(A_DATA) + len(B_DATA) + 8))
    for name, data in [("a", A_DATA), ("b", B_DATA), ("c", C_DATA)]:
        view.put([(name, data)])
    found = [view.get(name) for name in "abc"]
    assert found.count(None) == 1
    assert found[2] == C_DATA
    assert len(list(view.list_keys())) == 2


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("foo", b"", "no adapter of this store"),
        ("foo", b"no adapter", "no adapter of this store"),
        (A, b"no adapter", "no adapter of this store"),
        ("foo", A_DATA[:-1], "no adapter of this store"),
        ("foo", A_DATA[:-1] + b"\x01", "checksum"),
        (A, A_DATA[:-1] + b"\x01", "checksum"),
        ("foo", adapter(0, Namespace("other"))[1], "its key is not that of"),
        ("foo", adapter(0, SEALED)[1], "its key is not that of"),
        (B, A_DATA, "not the one of that key"),
    ],
)
def test_wrong_bytes_are_refused(view: StoreView, name: str, data: bytes, problem: str) -> None:
    with pytest.raises(StoreError, match=problem):
        view.put([("before", C_DATA), (name, data)])
    assert list(view.list_keys()) == ["before"]
    assert view.get("before") == C_DATA


def test_a_name_that_cannot_be_writes_nothing(view: StoreView) -> None:
    with pytest.raises(ConfigError, match="at most 8,192 bytes"):
        view.put([("x" * 10_000, A_DATA)])
    assert list(view.list_keys()) == []
    assert view.get("x" * 10_000) is view.get("\ud800") is None
    view.remove(["\ud800", "x" * 10_000])


def test_a_damaged_adapter_is_put_again(view: StoreView) -> None:
    for name in ("foo", A):
        view.put([(name, A_DATA)])
        (path,) = view.store.path.rglob(f"{A}.safetensors")
        path.write_bytes(A_DATA[:-1] + b"\x01")
        view.put([(name, A_DATA)])
        assert view.get(name) == A_DATA


def test_namespaces_do_not_see_each_other(root: Path) -> None:
    mine, sealed = StoreView(root), StoreView(AdapterStore(root), namespace=SEALED)
    mine.put([("foo", A_DATA)])
    sealed.put([("foo", adapter(0, SEALED)[1])])
    assert mine.get("foo") == A_DATA
    assert sealed.get("foo") == adapter(0, SEALED)[1]
    sealed.remove(["foo"])
    assert mine.get("foo") == A_DATA
    assert list(StoreView(root, namespace="sealed").list_keys()) == []


def test_names_do_not_count_as_adapters(view: StoreView, names: Names) -> None:
    view.put([("foo", A_DATA), ("bar", A_DATA)])
    assert [entry.key for entry in view.store.entries()] == [A]
    assert view.store.usage().bytes == len(A_DATA)
    assert [verdict.problem for verdict in view.store.verify()] == [None]
    view.store.prune()
    assert sorted(names.all()) == ["bar", "foo"]


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StoreError, match="the adapter store"):
        StoreView(file / "store").put([("foo", A_DATA)])


def test_processes_take_turns(view: StoreView, root: Path) -> None:
    """All put and remove the same names; whoever comes last leaves nothing half done."""
    (root.parent / "data").write_bytes(A_DATA)
    code = """
import sys
from ttt_core.store.view import StoreView
view, data = StoreView(sys.argv[1]), open(sys.argv[2], 'rb').read()
for i in range(20):
    view.put([('foo', data), (sys.argv[3], data)])
    view.remove(['foo'])
    assert view.get(sys.argv[3]) == data
    view.remove([sys.argv[3]])
"""
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(root), str(root.parent / "data")]
    running = [subprocess.Popen([*command, name], env=path) for name in ("bar", "buz")]
    assert [process.wait(60) for process in running] == [0, 0]
    assert list(view.list_keys()) == []
    assert view.store.usage().files == 0


class _Dictionary(RuleBasedStateMachine):
    """The view against two dictionaries: one of names, one of adapters kept for themselves."""

    names = st.sampled_from(["", "foo", "../foo", "\u00fc"])
    numbers = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.mkdtemp()
        self.view = StoreView(Path(self.folder) / "store")
        self.named: dict[str, int] = {}
        self.own: set[int] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(pairs=st.lists(st.tuples(names, numbers), max_size=3))
    def put(self, pairs: list[tuple[str, int]]) -> None:
        self.view.put([(name, adapter(number)[1]) for name, number in pairs])
        self.named.update(pairs)

    @rule(number=numbers)
    def put_by_key(self, number: int) -> None:
        self.view.put([adapter(number)])
        self.own.add(number)

    @rule(number=numbers)
    def learn(self, number: int) -> None:
        if number not in self.named.values():
            self.view.store.write_bytes(adapter(number)[1])
            self.own.add(number)

    @rule(names=st.lists(names, max_size=3))
    def remove(self, names: list[str]) -> None:
        self.view.remove(names)
        for name in names:
            self.named.pop(name, None)

    @rule(number=numbers)
    def remove_by_key(self, number: int) -> None:
        self.view.remove([adapter(number)[0]])
        self.own.discard(number)
        self.named = {name: n for name, n in self.named.items() if n != number}

    @invariant()
    def is_a_dictionary(self) -> None:
        keys: dict[str, Any] = {**self.named, **{adapter(number)[0]: number for number in self.own}}
        assert sorted(self.view.list_keys()) == sorted(keys)
        assert {key: self.view.get(key) for key in keys} == {
            key: adapter(number)[1] for key, number in keys.items()
        }
        assert self.view.store.usage().files == len(set(keys.values()))


TestDictionary = _Dictionary.TestCase
TestDictionary.settings = settings(max_examples=25, stateful_step_count=15)
