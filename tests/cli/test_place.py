"""`--namespace`, `--remote`, `--store-limit` and `--keep-kv` of `ask` and `adapt`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ttt_core import AdapterStore
from ttt_core.cli.app import app
from ttt_core.cli.console import Bars
from ttt_core.namespace import Namespace
from ttt_core.progress import Progress

Invoke = Callable[..., Result]

RECIPE = ("--steps", "2", "--learning-rate", "0.001")
KEEP = ("--keep-kv", "1GiB")
SECRET = "sixteen bytes or more"


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_each_namespace_learns_for_itself(
    ttt: Invoke, registry_file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapted() -> tuple[str, str]:
        value = parsed(ttt("adapt", str(registry_file), *RECIPE, "--json"))
        return value["source"], value["key"]

    first = adapted()
    monkeypatch.setenv("TTT_NAMESPACE", "acme")
    second = adapted()
    monkeypatch.setenv("TTT_NAMESPACE_SECRET", SECRET)
    third = adapted()
    assert [source for source, _ in (first, second, third)] == ["trained"] * 3
    assert len({key for _, key in (first, second, third)}) == 3
    assert adapted() == ("store", third[1])
    sealed = AdapterStore(store, namespace=Namespace("acme", SECRET.encode()))
    assert [entry.key for entry in sealed.entries()] == [third[1]]
    assert len(sealed.namespaces()) == 3


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (("--namespace", "No"), "ConfigError", "a namespace is named by"),
        (("--remote", "nowhere"), "ConfigError", "such as s3://bucket/prefix"),
        (("--store-limit", "much"), "UsageError", "--store-limit is a size"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "adapt", "demo"])
def test_refused_before_the_model_is_loaded(
    registry_file: Path, command: str, options: tuple[str, str], kind: str, message: str
) -> None:
    arguments = {"ask": [str(registry_file), "why?"], "adapt": [str(registry_file)], "demo": []}
    result = CliRunner().invoke(
        app, [command, *arguments[command], *options, "--model", "/no/model", "--json"]
    )
    error = json.loads(result.stdout)["error"]
    assert error["type"] == kind
    assert message in error["message"]


def test_a_second_machine_finds_what_the_first_one_uploaded(
    ttt: Invoke, registry_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = (tmp_path / "remote").as_uri()
    arguments = ("adapt", str(registry_file), *RECIPE, "--json")
    first = ttt(*arguments, "--remote", remote)
    assert first.stderr == ""
    monkeypatch.setenv("TTT_REMOTE", remote)
    second = parsed(ttt(*arguments, "--store", str(tmp_path / "other machine")))
    assert (parsed(first)["source"], second["source"]) == ("trained", "store")


def test_a_remote_that_is_down_costs_a_note(
    ttt: Invoke, registry_file: Path, store: Path, tmp_path: Path
) -> None:
    remote = (tmp_path / "unmounted" / "share").as_uri()
    result = ttt("adapt", str(registry_file), *RECIPE, "--json", "--remote", remote)
    assert parsed(result)["source"] == "trained"
    assert "note: 1 adapter waits to be uploaded" in result.stderr
    without = ttt("adapt", str(registry_file), *RECIPE, "--json")
    assert "waits" not in without.stderr
    (tmp_path / "unmounted").mkdir()
    again = ttt("adapt", str(registry_file), *RECIPE, "--json", "--remote", remote)
    assert again.stderr == ""
    assert AdapterStore(store).pending_uploads() == 0


def test_the_store_keeps_its_limit(ttt: Invoke, registry_file: Path, store: Path) -> None:
    other = registry_file.with_name("other.txt")
    other.write_text("\n".join(registry_file.read_text().split("\n")[:40]))
    files = (str(registry_file), str(other))
    for limit, left in (("none", 2), ("1KiB", 1)):
        for name in files:
            ttt("adapt", name, *RECIPE, "--store-limit", limit, "--steps", str(3 + left))
        assert AdapterStore(store).usage().files == left


def test_kept_keys_and_values_are_read_by_the_next_command(
    ttt: Invoke, registry_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("ask", str(registry_file), "why?", "--no-adapt", "--json", "--max-new-tokens", "4")
    first = parsed(ttt(*arguments, *KEEP))
    monkeypatch.setenv("TTT_KEEP_KV", "1GiB")
    second = parsed(ttt(*arguments))
    assert (first["kv_source"], second["kv_source"]) == ("computed", "disk")
    assert first["answers"][0]["answer"] == second["answers"][0]["answer"]


def test_adapt_each_file_by_itself(ttt: Invoke, registry_file: Path, store: Path) -> None:
    other = registry_file.with_name("other.txt")
    other.write_text("\n".join(registry_file.read_text().split("\n")[:40]))
    files = (str(registry_file), str(other), str(registry_file))
    value = parsed(ttt("adapt", "--each", *files, *RECIPE, "--json"))
    assert [one["documents"] for one in value["documents"]] == [[name] for name in files]
    assert [one["source"] for one in value["documents"]] == ["trained", "trained", "memory"]
    assert AdapterStore(store).usage().files == 2
    text = ttt("adapt", "--each", *files, *RECIPE).stdout
    for name in files:
        assert name in text
    assert text.count("store") >= 2


def test_waiting_for_another_process_has_a_bar() -> None:
    """One that pulses: how long the other one takes is not known, whatever may be waited."""
    with Bars() as bars:
        bars(Progress("wait", 3, 0))
        bars(Progress("wait", 4, 600))
        [task] = bars._progress.tasks
        assert task.description == "waiting for another process"
        assert task.total is None
        bars(Progress("train", 1, 8))
        assert bars._progress.tasks[1].fields["count"] == "1/8"
