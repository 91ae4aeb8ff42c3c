"""`ttt store ls` and `show`: what is kept, and what is told of it without reading it all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.store.forging import forge
from tests.store.samples import (
    KEY,
    age,
    file_of,
    kept_base,
    key_of,
    make_entry,
    make_report,
    posix_only,
    put,
)
from ttt_core import AdapterStore, StoreError
from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.store.entries import find
from ttt_core.namespace import Namespace
from ttt_core.store.folder import FileEntry

Invoke = Callable[..., Result]


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def listed(*keys: str, damaged: bool = False) -> list[FileEntry]:
    return [FileEntry(key, Path(key), 1, 0.0, damaged) for key in keys]


def test_used_last_comes_first(on_store: Invoke, adapters: AdapterStore) -> None:
    for number in range(3):
        age(put(adapters, number), 3600 * (number + 1))
    text = on_store("ls").stdout
    places = [text.index(key_of(number)[:12]) for number in range(3)]
    assert places == sorted(places)
    for fact in ("1,000", "adapted", "some/model", "1 h", "2 h", "3 h"):
        assert fact in text
    value = parsed(on_store("ls", "--json"))
    assert [entry["key"] for entry in value["entries"]] == [key_of(number) for number in range(3)]


def test_rows_for_a_script(on_store: Invoke, adapters: AdapterStore) -> None:
    path = put(adapters)
    [entry] = parsed(on_store("ls", "--json"))["entries"]
    assert entry.pop("created")
    assert entry.pop("last_used")
    assert entry == {
        "key": KEY,
        "path": str(path),
        "bytes": path.stat().st_size,
        "damaged": False,
        "namespace": {"name": "default", "folder": Namespace().folder, "sealed": False},
        "readable": True,
        "document_tokens": 1000,
        "decision": "adapted",
        "parametrization": "lora",
        "supervision": "cloze",
        "base_model": "some/model",
    }


def test_only_what_is_shown_is_read(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        put(adapters, number)
    read: list[str] = []
    header = AdapterStore.header

    def counting(self: AdapterStore, key: str, **options: Any) -> Any:
        read.append(key)
        return header(self, key, **options)

    monkeypatch.setattr(AdapterStore, "header", counting)
    result = on_store("ls")
    assert len(read) == 20
    assert "and 10 more of namespace default; --all shows all" in result.stdout
    assert "more" not in on_store("ls", "--all").stdout
    value = parsed(on_store("ls", "--limit", "3", "--json"))
    assert (len(value["entries"]), value["total"]) == (3, 30)


def test_what_is_damaged_is_listed_as_such(on_store: Invoke, adapters: AdapterStore) -> None:
    put(adapters)
    adapters.set_aside(KEY)
    put(adapters, 1).write_bytes(b"no adapter")
    adapters.put(key_of(2), kept_base(2))
    text = on_store("ls").stdout
    assert text.count("damaged") == 2
    assert "base" in next(line for line in text.splitlines() if key_of(2)[:12] in line)
    entries = {one["key"]: one for one in parsed(on_store("ls", "--json"))["entries"]}
    assert (entries[KEY]["damaged"], entries[KEY]["readable"]) == (True, False)
    assert (entries[key_of(1)]["damaged"], entries[key_of(1)]["readable"]) == (False, False)
    assert entries[key_of(2)]["decision"] == "kept_base"


def test_what_cannot_be_read_hides_nothing_else(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, real = put(adapters), os.open
    put(adapters, 1)

    def opens(path: Any, *arguments: Any, **options: Any) -> int:
        if path == broken:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opens)
    lines = on_store("ls").stdout.splitlines()
    assert "unreadable" in next(line for line in lines if KEY[:12] in line)
    assert "adapted" in next(line for line in lines if key_of(1)[:12] in line)
    entries = {one["key"]: one for one in parsed(on_store("ls", "--json"))["entries"]}
    assert (entries[KEY]["readable"], entries[key_of(1)]["readable"]) == (False, True)


@posix_only
def test_a_store_that_others_can_write_to_is_one_error(
    on_store: Invoke, adapters: AdapterStore
) -> None:
    put(adapters)
    adapters.path.chmod(0o777)
    result = on_store("ls")
    assert result.exit_code == 1
    assert "other users can write to" in result.stderr


def test_namespaces_do_not_see_each_other(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = adapters.in_namespace("acme")
    put(adapters)
    put(acme, 1)
    key = key_of(1, acme.namespace)
    assert key[:12] not in on_store("ls").stdout
    assert KEY[:12] not in on_store("ls", "--namespace", "acme").stdout
    assert on_store("show", key).exit_code == 1
    assert on_store("show", key, "--namespace", "acme").exit_code == 0
    everything = on_store("ls", "--all-namespaces").stdout
    assert all(word in everything for word in (KEY[:12], key[:12], "default", "acme"))
    monkeypatch.setenv("TTT_NAMESPACE", "acme")
    assert key[:12] in on_store("ls").stdout
    monkeypatch.setenv("TTT_NAMESPACE_SECRET", "sixteen bytes or more")
    assert on_store("ls").stdout == "no adapters of namespace acme\n"


def test_show_tells_everything(on_store: Invoke, adapters: AdapterStore) -> None:
    path = put(adapters)
    text = on_store("show", KEY[:4]).stdout
    for fact in (KEY, str(path), "some/model", "held-out gain +0.1", "0.200 nats", "b" * 64):
        assert fact in text
    value = parsed(on_store("show", KEY[:4].upper(), "--json"))
    assert value["key"] == value["metadata"]["key"] == KEY
    assert value["metadata"]["report"] == json.loads(make_report().model_dump_json())
    assert value["tensors"] == {"a.lora_A.weight": [2, 4], "a.lora_B.weight": [4, 2]}
    assert len(value["checksum"]) == 64


def test_show_what_is_damaged(on_store: Invoke, adapters: AdapterStore) -> None:
    put(adapters)
    adapters.set_aside(KEY)
    assert ".damaged" in on_store("show", KEY).stdout
    assert parsed(on_store("show", KEY, "--json"))["metadata"] is None


def test_a_file_cannot_command_the_terminal(on_store: Invoke, adapters: AdapterStore) -> None:
    """A header is checked against its file's size only: anybody may have written what it says."""
    entry = make_entry()
    evil = "\x1b]0;owned\x07[red]\r\n[/]"
    adapters.put(KEY, replace(entry, base_model=evil, report=make_report(reasons=(evil,))))
    for command in (("ls",), ("show", KEY)):
        result = on_store(*command)
        assert result.exit_code == 0
        assert "]0;owned[red][/]" in result.stdout
        assert not set("\x1b\x07\r") & set(result.stdout)


def test_a_file_cannot_name_its_namespace_as_it_likes(
    on_store: Invoke, adapters: AdapterStore
) -> None:
    acme = adapters.in_namespace("acme")
    path = put(acme)
    path.write_bytes(forge(path.read_bytes(), namespace="\x1b[31mdefault"))
    result = on_store("ls", "--all-namespaces", "--json")
    [entry] = parsed(result)["entries"]
    assert entry["namespace"] == {"name": None, "folder": acme.namespace.folder, "sealed": True}


def test_key_by_its_beginning() -> None:
    entries = listed("ab12" + "0" * 60, "ab13" + "0" * 60, "cd12" + "0" * 60)
    assert find(entries, "ab13") == entries[1]
    assert find(entries, " AB13 ") == entries[1]
    assert find(entries, entries[2].key) == entries[2]


def test_a_whole_adapter_is_meant_before_a_damaged_one_of_its_key() -> None:
    whole, damaged = listed("ab" * 32), listed("ab" * 32, damaged=True)
    assert find([*damaged, *whole], "abab") == whole[0]
    assert find(damaged, "abab") == damaged[0]


@pytest.mark.parametrize("prefix", ["", "abc", "wxyz", "../..", "ab" * 33, "ab12\x1b"])
def test_what_is_no_beginning_of_a_key(prefix: str) -> None:
    with pytest.raises(UsageProblem, match="KEY is hexadecimal digits"):
        find(listed("ab" * 32), prefix)


def test_ambiguous_and_unknown_keys(on_store: Invoke, adapters: AdapterStore) -> None:
    put(adapters)
    with pytest.raises(StoreError, match=r"2 keys begin with ab12 \(ab1200000000, ab12ffffffff\)"):
        find(listed("ab12" + "f" * 60, "ab12" + "0" * 60), "ab12")
    with pytest.raises(StoreError, match=r"5 keys .* and 2 more"):
        find(listed(*(f"abcd{n}" + "0" * 59 for n in range(5))), "abcd")
    unknown = ("0" if KEY[0] != "0" else "1") * 8
    for command in (("show", unknown), ("rm", unknown), ("export", unknown, "folder")):
        result = on_store(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"no key begins with {unknown}" in result.stderr
        assert json.loads(on_store(*command, "--json").stdout)["error"]["type"] == "StoreError"
    assert file_of(adapters).exists()


def test_no_rows_are_asked_for(on_store: Invoke) -> None:
    assert on_store("ls", "--limit", "0").exit_code == 2
