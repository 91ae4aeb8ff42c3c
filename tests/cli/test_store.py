"""`ttt store` alone and `path`: what is kept where; and what all of its commands have in common."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.store.samples import KEY, child_environment, key_of, put
from ttt_core import AdapterStore
from ttt_core.cli.app import app
from ttt_core.cli.sizes import format_size
from ttt_core.limits import host_memory
from ttt_core.namespace import Namespace
from ttt_core.store import folder as store_folder
from ttt_core.store.outbox import Outbox

Invoke = Callable[..., Result]

RECIPE = ("--steps", "2", "--learning-rate", "0.001")
KEEP = ("--keep-kv", "1GiB")
SECRET = "sixteen bytes or more"

ACME = Namespace("acme")
SEALED = Namespace("acme", SECRET.encode())


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_empty_store(on_store: Invoke, store: Path) -> None:
    value = parsed(on_store("--json"))
    assert value == {
        "adapters": {
            "path": str(store), "namespace": "default", "files": 0, "bytes": 0, "damaged": 0,
        },
        "namespaces": [],
        "pending_uploads": 0,
        "other_versions": [],
        "kv": {"path": str(store / "kv"), "files": 0, "bytes": 0},
        "limits": {
            "max_store_bytes": 20 << 30,
            "max_kv_bytes": {"cpu": host_memory() // 4, "gpu": None},
            "max_host_kv_bytes": host_memory() // 4,
            "max_disk_kv_bytes": 0,
            "max_adapter_bytes": 1 << 30,
        },
    }  # fmt: skip
    assert not store.exists()


def test_what_is_kept_and_the_limits(
    ttt: Invoke, on_store: Invoke, registry_file: Path, store: Path
) -> None:
    ttt("adapt", str(registry_file), *RECIPE)
    assert parsed(on_store("--json"))["kv"]["files"] == 0
    ttt("adapt", str(registry_file), *RECIPE, *KEEP)
    value = parsed(on_store("--json", *KEEP))
    files = {path.is_relative_to(store / "kv"): path for path in store.rglob("*.safetensors")}
    sizes = {kind: path.stat().st_size for kind, path in files.items()}
    assert (value["adapters"]["files"], value["adapters"]["bytes"]) == (1, sizes[False])
    assert value["kv"] == {"path": str(store / "kv"), "files": 1, "bytes": sizes[True]}
    assert value["limits"]["max_disk_kv_bytes"] == 1 << 30
    text = on_store().stdout
    for fact in (str(store), format_size(sizes[False]), format_size(sizes[True]), "TTT_KEEP_KV"):
        assert fact in text
    assert "1.0 GiB of keys and values" in on_store(*KEEP).stdout


def test_namespaces_and_what_is_damaged(on_store: Invoke, adapters: AdapterStore) -> None:
    put(adapters)
    put(adapters, 1)
    adapters.set_aside(KEY)
    for namespace in (ACME, SEALED):
        put(adapters.in_namespace(namespace))
    found = {
        one["folder"]: (one["name"], one["sealed"], one["files"], one["damaged"])
        for one in parsed(on_store("--json"))["namespaces"]
    }
    assert found == {
        Namespace().folder: ("default", False, 1, 1),
        ACME.folder: ("acme", False, 1, 0),
        SEALED.folder: ("acme", True, 1, 0),
    }
    text = on_store("--namespace", "acme").stdout
    assert "1 file," in text.split("damaged")[1]
    for fact in ("in namespace acme", "acme (sealed): 1 file", "default: 2 files"):
        assert fact in text


def test_only_the_largest_namespaces_are_named(on_store: Invoke, adapters: AdapterStore) -> None:
    for number in range(12):
        put(adapters.in_namespace(f"n{number}"), size=4 + number)
    text = on_store().stdout
    assert "and 2 more" in text
    assert "n11: 1 file" in text
    assert "n0: 1 file" not in text
    assert len(parsed(on_store("--json"))["namespaces"]) == 12


def test_what_waits_and_what_others_left(
    on_store: Invoke, adapters: AdapterStore, store: Path
) -> None:
    put(adapters)
    Outbox(store / "outbox" / ("0" * 32)).add(adapters.namespace.folder, KEY)
    for version in (store / "v1", store / "kv" / "v1"):
        version.mkdir(parents=True)
    value = parsed(on_store("--json"))
    assert value["pending_uploads"] == 1
    assert value["other_versions"] == [str(store / "v1"), str(store / "kv" / "v1")]
    assert "1, which a remote has not got yet" in on_store().stdout
    for version in (store / "v1", store / "kv" / "v1"):
        assert f"{version}, which this version does not use" in on_store().stdout


@pytest.mark.parametrize(("limit", "size"), [("5GiB", 5 << 30), ("none", None)])
def test_limit_of_the_store(
    on_store: Invoke, limit: str, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parsed(on_store("--json", "--store-limit", limit))["limits"]["max_store_bytes"] == size
    monkeypatch.setenv("TTT_STORE_LIMIT", limit)
    assert parsed(on_store("--json"))["limits"]["max_store_bytes"] == size


def test_path_is_all_that_path_prints(on_store: Invoke, store: Path, tmp_path: Path) -> None:
    assert on_store("path").stdout == f"{store}\n"
    default = CliRunner().invoke(app, ["store", "path"])
    assert default.stdout == f"{tmp_path / 'home' / 'adapters'}\n"
    value = parsed(on_store("path", "--namespace", "acme", "--json"))
    assert value["path"] == str(store)
    assert value["namespace_path"] == str(store / "v2" / ACME.folder)
    assert value["namespace"] == {"name": "acme", "folder": ACME.folder, "sealed": False}


NO_TORCH = """
import sys
from ttt_core.__main__ import main
code = main()
heavy = {'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()
assert not heavy, heavy
assert not code, code
"""


@pytest.mark.parametrize(
    "command",
    [
        "", "ls", "ls --all-namespaces --json", f"show {KEY[:8]}", "verify", "verify --set-aside",
        "verify --all-namespaces", "path", "prune --max-age 30d", "prune --damaged",
        f"rm {KEY[:8]}", "rm --all --yes", "rm --damaged",
    ],
)  # fmt: skip
def test_no_torch_to_look_and_to_clean_up(adapters: AdapterStore, command: str) -> None:
    put(adapters)
    put(adapters, 1)
    adapters.set_aside(key_of(1))
    arguments = ("store", *command.split(), "--store", str(adapters.path))
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH, *arguments],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


COMMANDS = [
    (), ("ls",), ("show", "abcd"), ("rm", "abcd"), ("prune", "--damaged"), ("verify",), ("path",),
    ("export", "abcd", "folder"), ("import", "folder"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_refused_namespaces(
    on_store: Invoke, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = on_store(*command, "--namespace", "../Up")
    assert result.exit_code == 1
    assert "a namespace is named by" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    for secret in ("", "short"):
        monkeypatch.setenv("TTT_NAMESPACE_SECRET", secret)
        error = json.loads(on_store(*command, "--json").stdout)["error"]
        assert error["type"] == "ConfigError"
        assert "$TTT_NAMESPACE_SECRET" in error["message"]
        assert "16 bytes" in error["message"]
        assert "short" not in error["message"].replace("shortest", "")


def test_secret_is_no_option() -> None:
    for command in ("store", "ask", "adapt"):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert "TTT_NAMESPACE_SECRET" in "".join(text.split()).replace("│", "")
        assert "--secret" not in text
        assert "--namespace-secret" not in text


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[:1] not in [("path",), ("import",)]])
def test_a_store_that_cannot_be_read(
    on_store: Invoke, store: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scandir(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(store_folder.os, "scandir", scandir)
    result = on_store(*command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: cannot ")
    assert f"the adapter store {store}: Permission denied" in result.stderr
    assert json.loads(on_store(*command, "--json").stdout)["error"]["type"] == "StoreError"


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    for command in ([], ["ls"], ["verify"]):
        result = CliRunner().invoke(app, ["store", *command, "--store", str(path), "--json"])
        assert result.exit_code == 1, command
        assert "Not a directory" in json.loads(result.stdout)["error"]["message"]


def test_options_before_the_command_are_not_lost(store: Path) -> None:
    result = CliRunner().invoke(app, ["store", "--store", str(store), "ls"])
    assert result.exit_code == 2
    assert "options go behind the command: ttt store ls --store" in result.stderr
    result = CliRunner().invoke(app, ["store", "--json", "ls"])
    assert json.loads(result.stdout)["error"]["type"] == "UsageError"


@pytest.mark.parametrize("size", ["much", "-1", "1 parsec", "GiB"])
def test_what_is_no_size_is_refused(on_store: Invoke, size: str) -> None:
    for option in ("--keep-kv", "--store-limit"):
        result = on_store(option, size)
        assert result.exit_code == 2
        assert f"{option} is a size such as 20GiB" in result.stderr


def test_a_limit_of_nothing_is_a_mistake(on_store: Invoke) -> None:
    result = on_store("--store-limit", "0")
    assert result.exit_code == 2
    assert "none means no limit" in result.stderr
