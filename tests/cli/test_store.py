"""`ttt store`, `--keep-kv` and `ttt adapt --each`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from ttt_core.cli.app import app
from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.sizes import format_size, parse_size
from ttt_core.limits import host_memory

Invoke = Callable[..., Result]

RECIPE = ("--steps", "2", "--learning-rate", "0.001")
KEEP = ("--keep-kv", "1GiB")


def show(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["store", *arguments])


def shown(*arguments: str) -> Any:
    result = show(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_empty_store(store: Path) -> None:
    value = shown("--store", str(store))
    assert value["adapters"] == {"path": str(store), "files": 0, "bytes": 0}
    assert value["kv"] == {"path": str(store / "kv"), "files": 0, "bytes": 0}
    assert value["limits"] == {
        "max_kv_bytes": {"cpu": host_memory() // 4, "gpu": None},
        "max_host_kv_bytes": host_memory() // 4,
        "max_disk_kv_bytes": 0,
        "max_adapter_bytes": 1 << 30,
    }
    assert not store.exists()


def test_what_is_kept_and_the_limits(ttt: Invoke, registry_file: Path, store: Path) -> None:
    ttt("adapt", str(registry_file), *RECIPE)
    assert shown("--store", str(store))["kv"]["files"] == 0
    ttt("adapt", str(registry_file), *RECIPE, *KEEP)
    value = shown("--store", str(store), *KEEP)
    sizes = {path.parts[-4] == "kv": path.stat().st_size for path in store.rglob("*.safetensors")}
    assert value["adapters"] == {"path": str(store), "files": 1, "bytes": sizes[False]}
    assert value["kv"] == {"path": str(store / "kv"), "files": 1, "bytes": sizes[True]}
    assert value["limits"]["max_disk_kv_bytes"] == 1 << 30
    text = show("--store", str(store)).stdout
    for fact in (str(store), format_size(sizes[False]), format_size(sizes[True]), "TTT_KEEP_KV"):
        assert fact in text
    assert "1.0 GiB of keys and values" in show("--store", str(store), *KEEP).stdout


def test_default_store_is_the_one_of_the_environment(tmp_path: Path) -> None:
    assert shown()["adapters"]["path"] == str(tmp_path / "home" / "adapters")


def test_kept_keys_and_values_are_read_by_the_next_command(
    ttt: Invoke, registry_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("ask", str(registry_file), "why?", "--no-adapt", "--json", "--max-new-tokens", "4")
    first = json.loads(ttt(*arguments, *KEEP).stdout)
    monkeypatch.setenv("TTT_KEEP_KV", "1GiB")
    second = json.loads(ttt(*arguments).stdout)
    assert (first["kv_source"], second["kv_source"]) == ("computed", "disk")
    assert first["answers"][0]["answer"] == second["answers"][0]["answer"]


def test_store_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from ttt_core.__main__ import main\n"
        "assert main() == 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "store"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", ["much", "-1", "1 parsec", "GiB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    result = show("--keep-kv", size)
    assert result.exit_code == 2
    assert "--keep-kv is a size such as 20GiB" in result.stderr


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    assert shown("--store", str(path))["adapters"]["files"] == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("120000", 120_000), ("12B", 12), ("1kB", 1000), ("1KiB", 1024),
        ("1.5 GiB", 3 << 29), ("2g", 2 * 10**9), ("2GB", 2 * 10**9), ("1TiB", 1 << 40),
        ("1Mi", 1 << 20),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, option="--x") == size


def test_no_size_names_its_option() -> None:
    with pytest.raises(UsageProblem, match="--x"):
        parse_size("x", option="--x")
    with pytest.raises(UsageProblem, match="give a unit"):
        parse_size("12", option="--x")


@given(st.integers(0, 1 << 60))
def test_written_sizes_are_read_as_about_the_same(size: int) -> None:
    written = format_size(size).replace(",", "").replace("bytes", "B")
    assert abs(parse_size(written, option="") - size) <= size / 10


def test_adapt_each_file_by_itself(ttt: Invoke, registry_file: Path, store: Path) -> None:
    other = registry_file.with_name("other.txt")
    other.write_text("\n".join(registry_file.read_text().split("\n")[:40]))
    files = (str(registry_file), str(other), str(registry_file))
    value = json.loads(ttt("adapt", "--each", *files, *RECIPE, "--json").stdout)
    assert [one["documents"] for one in value["documents"]] == [[name] for name in files]
    assert [one["source"] for one in value["documents"]] == ["trained", "trained", "memory"]
    assert shown("--store", str(store))["adapters"]["files"] == 2
    text = ttt("adapt", "--each", *files, *RECIPE).stdout
    for name in files:
        assert name in text
    assert text.count("store") >= 2
