"""`ttt store rm` and `prune`: what goes is what was meant, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.cli.processes import Start, Terminal, posix_only
from tests.store.samples import KEY, OTHER, age, file_of, files_in, key_of, put
from ttt_core import AdapterStore
from ttt_core.store.outbox import Outbox
from ttt_core.store.view import StoreView

Invoke = Callable[..., Result]

DAY = 86400.0


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def kept(store: AdapterStore) -> set[str]:
    return {entry.key for entry in store.entries() if not entry.damaged}


@pytest.fixture
def three(adapters: AdapterStore) -> AdapterStore:
    """Three adapters: of today, and 10 and 40 days old."""
    for number, days in enumerate((0, 10, 40)):
        age(put(adapters, number), days * DAY)
    return adapters


def test_rm_removes_what_is_named(on_store: Invoke, three: AdapterStore) -> None:
    put(three.in_namespace("acme"))
    three.set_aside(OTHER)
    before = files_in(three.path)
    result = on_store("rm", KEY[:6], KEY)  # Twice the same.
    assert result.exit_code == 0
    assert "removed 1 file" in result.stdout
    assert KEY in result.stdout
    assert set(before) - set(files_in(three.path)) == {str(file_of(three).relative_to(three.path))}


def test_rm_for_a_script(on_store: Invoke, three: AdapterStore) -> None:
    size = file_of(three).stat().st_size
    value = parsed(on_store("rm", KEY, "--json"))
    assert ([one["key"] for one in value["removed"]], value["bytes"]) == ([KEY], size)


def test_rm_removes_nothing_if_one_key_is_unknown(on_store: Invoke, three: AdapterStore) -> None:
    result = on_store("rm", KEY, "0123456789")
    assert result.exit_code == 1
    assert len(kept(three)) == 3


def test_rm_damaged_takes_no_whole_one(on_store: Invoke, three: AdapterStore) -> None:
    three.set_aside(KEY)
    assert "--damaged" in on_store("rm", KEY).stderr
    assert len(three.entries()) == 3
    [removed] = parsed(on_store("rm", "--damaged", "--json"))["removed"]
    assert (removed["key"], removed["damaged"]) == (KEY, True)
    assert kept(three) == {entry.key for entry in three.entries()} == {OTHER, key_of(2)}


def test_rm_all_is_refused_where_nobody_can_be_asked(on_store: Invoke, three: AdapterStore) -> None:
    for arguments in (("--all",), ("--all", "--json")):
        result = on_store("rm", *arguments, stdin="y\n")
        assert result.exit_code == 2
        assert "add --yes" in result.output
    assert len(kept(three)) == 3


def test_rm_all_is_of_one_namespace(on_store: Invoke, three: AdapterStore) -> None:
    acme = three.in_namespace("acme")
    put(acme)
    three.set_aside(KEY)
    value = parsed(on_store("rm", "--all", "--yes", "--json"))
    assert len(value["removed"]) == 3
    assert not three.entries()
    assert len(kept(acme)) == 1
    assert "removed 0 files" in on_store("rm", "--all").stdout  # Nothing to ask about.


@posix_only
@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 1, 3), (b"\n", 1, 3), (b"y\n", 0, 0)])
def test_rm_all_asks_a_person(
    three: AdapterStore, terminal: Terminal, start: Start, typed: bytes, code: int, left: int
) -> None:
    process = start(
        *("store", "rm", "--all", "--store", str(three.path)),
        stdin=terminal.theirs,
        stdout=subprocess.PIPE,
        stderr=terminal.theirs,
        env={**os.environ, "TERM": "dumb"},
    )
    terminal.wait_for(rb"Remove all of namespace default \(3 files.*\[y/N\]", process)
    terminal.type(typed)
    assert process.wait(60) == code
    assert len(kept(three)) == left


@pytest.mark.parametrize("arguments", [(), ("--yes",), (KEY, "--all", "--yes"), ("--json",)])
def test_rm_has_to_be_told_what(
    on_store: Invoke, three: AdapterStore, arguments: tuple[str, ...]
) -> None:
    assert on_store("rm", *arguments).exit_code == 2
    assert len(kept(three)) == 3


def test_prune_by_age(on_store: Invoke, three: AdapterStore) -> None:
    result = on_store("prune", "--max-age", "30d")
    assert result.exit_code == 0
    assert "removed 1 file" in result.stdout
    assert "used 40 d ago" in result.stdout
    assert kept(three) == {KEY, OTHER}


def test_prune_by_size_takes_those_used_least_recently(
    on_store: Invoke, three: AdapterStore
) -> None:
    sizes = [file_of(three, key_of(number)).stat().st_size for number in range(3)]
    value = parsed(on_store("prune", "--max-bytes", f"{sizes[0] + sizes[1]}B", "--json"))
    assert [one["key"] for one in value["removed"]] == [key_of(2)]
    assert (value["bytes"], value["kept"], value["dry_run"]) == (sizes[2], [], False)
    assert kept(three) == {KEY, OTHER}


def test_prune_dry_run_changes_nothing(on_store: Invoke, three: AdapterStore) -> None:
    three.set_aside(key_of(2))
    before = files_in(three.path)
    options = ("--max-age", "5d", "--damaged", "--dry-run")
    value = parsed(on_store("prune", *options, "--json"))
    assert {one["key"] for one in value["removed"]} == {OTHER, key_of(2)}
    assert value["dry_run"]
    assert "would remove 2 files" in on_store("prune", *options).stdout
    assert files_in(three.path) == before
    assert "removed 2 files" in on_store("prune", *options[:-1]).stdout  # And so it comes.
    assert {entry.key for entry in three.entries()} == {KEY}


def test_prune_damaged_takes_only_those(on_store: Invoke, three: AdapterStore) -> None:
    three.set_aside(KEY)
    assert "removed 1 file" in on_store("prune", "--damaged").stdout
    assert {entry.key for entry in three.entries()} == {OTHER, key_of(2)}


@posix_only
def test_prune_tells_what_is_in_use(on_store: Invoke, three: AdapterStore) -> None:
    pin = three.pin(key_of(2))
    assert pin is not None
    value = parsed(on_store("prune", "--max-age", "1d", "--json"))
    assert [one["key"] for one in value["removed"]] == [OTHER]
    assert [one["key"] for one in value["kept"]] == [key_of(2)]
    _, told = on_store("prune", "--max-age", "1d").stdout.split("kept, since in use")
    assert key_of(2) in told
    pin.close()


def test_prune_leaves_what_a_remote_has_not_got(on_store: Invoke, three: AdapterStore) -> None:
    """Also without `--remote`: whoever marked it relies on the folder until it is uploaded."""
    Outbox(three.path / "outbox" / ("0" * 32)).add(three.namespace.folder, OTHER)
    told = on_store("prune", "--max-bytes", "0").stdout
    assert "kept, since in use or not yet uploaded: 1 file" in told
    assert kept(three) == {OTHER}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give a limit"),
        (("--dry-run",), "give a limit"),
        (("--max-age", "30"), "--max-age is an age such as 30d"),
        (("--max-bytes", "many"), "--max-bytes is a size"),
    ],
)
def test_prune_needs_a_limit(
    on_store: Invoke, three: AdapterStore, options: tuple[str, ...], message: str
) -> None:
    result = on_store("prune", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(kept(three)) == 3


def test_an_empty_store_is_left_alone(on_store: Invoke, store: Path) -> None:
    for command in (("prune", "--max-age", "1d", "--damaged"), ("rm", "--damaged"), ("verify",)):
        assert on_store(*command).exit_code == 0
    assert not store.exists()


def kept_under(store: AdapterStore) -> Path:
    """The folder in which keys and values of a document of that namespace are."""
    [file] = (store.path / "kv").rglob(f"{store.namespace.folder}/*/*.safetensors")
    return file.parent


def test_all_takes_keys_and_values_and_names_along(
    ttt: Invoke, on_store: Invoke, registry_file: Path, store: Path
) -> None:
    """What is said to be all must not leave what the documents say behind."""
    recipe = ("--steps", "1", "--learning-rate", "0.001", "--keep-kv", "1GiB")
    ttt("adapt", str(registry_file), *recipe)
    ttt("adapt", str(registry_file), *recipe, "--namespace", "other")
    opened = AdapterStore(store)
    [entry] = opened.entries()
    view = StoreView(opened)
    data = view.get(entry.key)
    assert data is not None
    view.put([("my name for it", data)])
    assert len(list((store / "kv").rglob("*.safetensors"))) == 2
    for left in (entry.path.with_suffix(".tmp"), store / "kv" / kept_under(opened) / "x.tmp"):
        left.mkdir()
        (left / "x").write_text("what a killed writer left")
    done = on_store("rm", "--all", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["kv"]["files"] == 1
    assert len(list((store / "kv").rglob("*.safetensors"))) == 1, "the other namespace's"
    assert not opened.entries()
    assert not list(store.rglob("*.tmp"))
    assert not any("names" in path.parts for path in store.rglob("*.json"))
