"""`ttt store upload`: the remote gets what it missed, or nothing waits for it any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.store.samples import KEY, files_in, key_of, put
from ttt_core import AdapterStore

Invoke = Callable[..., Result]


def parsed(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A remote that is not mounted; making its folder mounts it."""
    return tmp_path / "mnt"


@pytest.fixture
def remote(share: Path) -> str:
    return (share / "adapters").as_uri()


@pytest.fixture
def waiting(store: Path, remote: str) -> AdapterStore:
    """Three adapters of two namespaces that the remote has not got."""
    opened = AdapterStore(store, remote=remote)
    put(opened), put(opened, 1), put(opened.in_namespace("acme"))
    opened.close()
    assert opened.pending_uploads() == 3
    return AdapterStore(store)


def test_what_waits_is_uploaded(
    on_store: Invoke, waiting: AdapterStore, share: Path, remote: str
) -> None:
    share.mkdir()
    result = on_store("upload", "--remote", remote)
    assert (result.exit_code, result.stdout) == (0, "uploaded 3 adapters\n")
    assert waiting.pending_uploads() == 0
    assert len(files_in(share)) == 3
    assert on_store("upload", "--remote", remote).stdout == "uploaded 0 adapters\n"


def test_for_a_script(
    on_store: Invoke,
    waiting: AdapterStore,
    share: Path,
    remote: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TTT_REMOTE", remote)
    assert parsed(on_store("upload", "--json"), 1) == {"uploaded": 0, "left": 3}
    share.mkdir()
    assert parsed(on_store("upload", "--json")) == {"uploaded": 3, "left": 0}


def test_what_is_left_is_told(on_store: Invoke, waiting: AdapterStore, remote: str) -> None:
    result = on_store("upload", "--remote", remote)
    assert (result.exit_code, result.stdout) == (
        1,
        "uploaded 0 adapters; 3 left, which still wait\n",
    )
    assert waiting.pending_uploads() == 3


def test_another_remote_gets_nothing(
    on_store: Invoke, waiting: AdapterStore, tmp_path: Path
) -> None:
    other = (tmp_path / "other").as_uri()
    assert parsed(on_store("upload", "--remote", other, "--json")) == {"uploaded": 0, "left": 0}
    assert waiting.pending_uploads() == 3
    assert not (tmp_path / "other").exists()


def test_forgetting_lets_a_namespace_be_evicted(
    on_store: Invoke, waiting: AdapterStore, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT_REMOTE", remote)
    result = on_store("upload", "--forget")
    assert (result.exit_code, result.stdout) == (0, "gave up 2 uploads; the adapters stay\n")
    assert waiting.pending_uploads() == 1  # The other namespace's.
    assert waiting.usage().files == 2
    waiting.prune(max_bytes=0)
    assert waiting.usage().files == 0
    assert parsed(on_store("upload", "--forget", "--namespace", "acme", "--json")) == {
        "forgotten": 1
    }
    assert waiting.pending_uploads() == 0


def test_removing_takes_it_off_the_list(on_store: Invoke, waiting: AdapterStore) -> None:
    assert on_store("rm", KEY, key_of(1)).exit_code == 0
    assert waiting.pending_uploads() == 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "upload to where? Give --remote URL"),
        (("--forget", "--remote", "file:///x/y"), 2, "leave --remote out"),
        (("--remote", "nowhere"), 1, "such as s3://bucket/prefix"),
        (("--forget", "--namespace", "../Up"), 1, "a namespace is named by"),
    ],
)
def test_refused(
    on_store: Invoke, store: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = on_store("upload", *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert not store.exists()


def test_a_store_that_is_not_there_is_not_made(on_store: Invoke, store: Path, remote: str) -> None:
    assert on_store("upload", "--remote", remote).exit_code == 0
    assert on_store("upload", "--forget").exit_code == 0
    assert not store.exists()


def test_all_uploads_what_was_there_before_the_remote(
    on_store: Invoke, adapters: AdapterStore, share: Path, remote: str
) -> None:
    put(adapters), put(adapters, 1), put(adapters.in_namespace("acme"))
    share.mkdir()
    assert on_store("upload", "--remote", remote).stdout == "uploaded 0 adapters\n"
    assert on_store("upload", "--remote", remote, "--all").stdout == "uploaded 2 adapters\n"
    assert len(files_in(share)) == 2
    assert adapters.pending_uploads() == 0


def test_a_remote_in_the_current_folder_is_taken_for_a_slip(on_store: Invoke) -> None:
    """Two slashes name a host, or nothing; adapters would land wherever a service was started."""
    result = on_store("upload", "--remote", "file://adapters")
    assert result.exit_code == 1
    assert "file:///folder" in result.stderr
