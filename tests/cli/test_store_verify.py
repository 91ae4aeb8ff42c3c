"""`ttt store verify`: every bit counts, in every namespace whose keys can be told."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.store.forging import forge
from tests.store.samples import KEY, OTHER, files_in, key_of, make_identity, put
from ttt_core import AdapterStore
from ttt_core.cli.store.entries import tenants
from ttt_core.cli.store.verify import _verify
from ttt_core.namespace import Namespace
from ttt_core.store.inventory import Verdict

Invoke = Callable[..., Result]

SECRET = "sixteen bytes or more"
SEALED = Namespace("acme", SECRET.encode())


def report(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def flip(path: Path, place: int) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_what_is_as_written(on_store: Invoke, adapters: AdapterStore) -> None:
    size = sum(put(adapters, number).stat().st_size for number in range(3))
    assert "3 files" in (result := on_store("verify")).stdout
    assert "all as written" in result.stdout
    value = report(on_store("verify", "--json"))
    assert value == {"files": 3, "bytes": size, "sealed": 0, "bad": [], "set_aside": 0}


@pytest.mark.parametrize("place", [0, 60, -1])
def test_a_flipped_bit_is_found(on_store: Invoke, adapters: AdapterStore, place: int) -> None:
    flip(put(adapters), place)
    put(adapters, 1)
    before = files_in(adapters.path)
    result = on_store("verify")
    assert result.exit_code == 1
    assert KEY in result.stdout
    assert OTHER not in result.stdout
    assert "2 files" in result.stdout
    assert "1 bad" in result.stdout
    assert files_in(adapters.path) == before
    [bad] = report(on_store("verify", "--json"), 1)["bad"]
    assert bad["key"] == KEY
    assert bad["problem"]


def test_set_aside(on_store: Invoke, adapters: AdapterStore) -> None:
    flip(put(adapters), -1)
    put(adapters, 1)
    value = report(on_store("verify", "--set-aside", "--json"), 1)
    assert value["set_aside"] == 1
    assert [(e.key, e.damaged) for e in adapters.entries() if e.damaged] == [(KEY, True)]
    assert report(on_store("verify", "--json"))["files"] == 1


def test_an_adapter_under_another_key(on_store: Invoke, adapters: AdapterStore) -> None:
    """All its bytes are right, its place is not."""
    path = put(adapters)
    target = path.parents[1] / OTHER[:2] / f"{OTHER}.safetensors"
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    [bad] = report(on_store("verify", "--json"), 1)["bad"]
    assert (bad["key"], bad["problem"]) == (OTHER, "it belongs to another key")


def test_only_the_namespace_that_is_named(on_store: Invoke, adapters: AdapterStore) -> None:
    put(adapters)
    flip(put(adapters.in_namespace("acme")), -1)
    assert report(on_store("verify", "--json"))["files"] == 1
    assert report(on_store("verify", "--namespace", "acme", "--json"), 1)["files"] == 1
    result = on_store("verify", "--all-namespaces")
    assert result.exit_code == 1
    assert "of acme: its checksum is wrong" in result.stdout
    value = report(on_store("verify", "--all-namespaces", "--set-aside", "--json"), 1)
    assert (value["files"], value["sealed"], value["set_aside"]) == (2, 0, 1)
    assert [e.damaged for e in adapters.in_namespace("acme").entries()] == [True]
    assert value["bad"][0]["namespace"]["name"] == "acme"


def test_a_sealed_namespace_without_its_secret(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksums can be compared by anyone; which keys are right takes the secret."""
    acme = adapters.in_namespace(SEALED)
    put(acme)
    forged = put(acme, 1)
    identity = make_identity(2).model_dump(mode="json")
    forged.write_bytes(forge(forged.read_bytes(), identity=identity))
    value = report(on_store("verify", "--all-namespaces", "--json"))
    assert (value["files"], value["sealed"], value["bad"]) == (2, 2, [])
    assert "2 sealed, their keys not compared" in on_store("verify", "--all-namespaces").stdout
    monkeypatch.setenv("TTT_NAMESPACE", "acme")
    monkeypatch.setenv("TTT_NAMESPACE_SECRET", SECRET)
    for options in ((), ("--all-namespaces",)):
        value = report(on_store("verify", *options, "--json"), 1)
        assert (value["files"], value["sealed"]) == (2, 0)
        assert [one["key"] for one in value["bad"]] == [key_of(1, SEALED)]
    monkeypatch.delenv("TTT_NAMESPACE_SECRET")
    flip(forged, -1)
    assert len(report(on_store("verify", "--all-namespaces", "--json"), 1)["bad"]) == 1


def test_a_file_that_cannot_be_read_is_a_bad_one(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others are looked at all the same."""
    broken = put(adapters)
    put(adapters, 1)

    def opens(path: Path, *arguments: Any, **options: Any) -> int:
        if path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *arguments, **options)

    real = os.open
    monkeypatch.setattr(os, "open", opens)
    value = report(on_store("verify", "--json"), 1)
    assert (value["files"], [one["key"] for one in value["bad"]]) == (2, [KEY])
    assert value["bad"][0]["problem"].startswith("it cannot be read: Input/output error")
    assert value["bad"][0]["unreadable"]
    value = report(on_store("verify", "--set-aside", "--json"), 1)
    assert value["set_aside"] == 0
    assert broken.exists(), "what cannot be read may be right"


def test_what_was_made_again_since_it_was_read_is_not_set_aside(
    on_store: Invoke, adapters: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finds it damaged, too, and trains it anew."""
    flip(put(adapters), -1)
    real = AdapterStore.set_aside

    def late(self: AdapterStore, key: str, **options: Any) -> bool:
        assert real(self, key)
        put(adapters)
        return real(self, key, **options)

    monkeypatch.setattr(AdapterStore, "set_aside", late)
    value = report(on_store("verify", "--set-aside", "--json"), 1)
    assert (len(value["bad"]), value["set_aside"]) == (1, 0)
    assert adapters.get(KEY) is not None


def test_no_file_is_held_as_a_whole(adapters: AdapterStore) -> None:
    """Its length is anybody's word, and a file with holes takes no room on the disk."""
    put(adapters, size=1 << 19)  # 8 MiB
    assert [verdict.problem for verdict in adapters.verify()] == [None]  # All is imported now.
    tracemalloc.start()
    try:
        assert [verdict.problem for verdict in adapters.verify()] == [None]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_each_is_set_aside_as_it_is_found(adapters: AdapterStore) -> None:
    """And not after hours, when all have been read."""
    for number in range(3):
        flip(put(adapters, number), -1)
    seen: list[int] = []
    real = adapters.verify

    def watched(**options: Any) -> Iterator[Verdict]:
        for verdict in real(**options):
            seen.append(sum(entry.damaged for entry in adapters.entries()))
            yield verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapters, "verify", watched)
        found = _verify(adapters, tenants(adapters, everywhere=False), set_aside=True)
    assert (seen, found.moved) == ([0, 1, 2], 3)
