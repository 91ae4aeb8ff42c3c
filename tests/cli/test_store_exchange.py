"""`ttt store export` and `import`: from store to store by way of a folder that PEFT reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.store.samples import KEY, kept_base
from ttt_core import AdapterStore
from ttt_core.cli.app import app

Invoke = Callable[..., Result]

RECIPE = ("--no-gate", "--steps", "2", "--learning-rate", "0.001")
FEW = ("--max-new-tokens", "4")
SECRET = "sixteen bytes or more"


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def on(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["store", *arguments, "--store", str(store)])


@pytest.fixture
def learned(ttt: Invoke, registry_file: Path) -> str:
    """The key of an adapter that was trained."""
    key = parsed(ttt("adapt", str(registry_file), *RECIPE, "--json"))["key"]
    assert isinstance(key, str)
    return key


def test_another_store_answers_alike(
    ttt: Invoke, on_store: Invoke, learned: str, registry_file: Path, tmp_path: Path
) -> None:
    there, folder = tmp_path / "there", tmp_path / "exported"
    result = on_store("export", learned[:8], str(folder))
    assert result.stdout == f"{folder}: a LoRA of rank 16, exactly what was trained\n"
    assert "adapter off" in result.stderr
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "qttt.json",
    }  # fmt: skip
    assert on(there, "import", str(folder)).stdout == f"imported {learned}\n"
    assert on(there, "import", str(folder)).stdout == f"here already: {learned}\n"
    question = ("ask", str(registry_file), "Where is it?", "--json", *RECIPE, *FEW)
    here, elsewhere = parsed(ttt(*question)), parsed(ttt(*question, "--store", str(there)))
    assert elsewhere["source"] == "store"
    assert elsewhere["answers"][0]["answer"] == here["answers"][0]["answer"]
    assert elsewhere["report"] == here["report"]


def test_export_for_a_script(on_store: Invoke, learned: str, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    options = ("--alora-invocation", "1, 2,3", "--json")
    value = parsed(on_store("export", learned, str(folder), *options))
    assert (value["folder"], value["key"], value["exact"]) == (str(folder), learned, True)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["alora_invocation_tokens"] == [1, 2, 3]
    other = tmp_path / "other"
    assert parsed(on(other, "import", str(folder), "--json")) == {"key": learned, "imported": True}


def test_a_folder_with_something_in_it(on_store: Invoke, learned: str, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert on_store("export", learned, str(folder)).exit_code == 0
    again = on_store("export", learned, str(folder))
    assert (again.exit_code, again.stdout) == (1, "")
    assert "add --overwrite" in again.stderr
    assert on_store("export", learned, str(folder), "--overwrite").exit_code == 0
    (folder / "thesis.tex").write_text("years of work")
    assert on_store("export", learned, str(folder), "--overwrite").exit_code == 1
    assert (folder / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--alora-invocation", "one"), 2, "--alora-invocation takes token ids"),
        (("--alora-invocation", ""), 2, "--alora-invocation takes token ids"),
        (("--alora-invocation", "-1"), 1, "token ids"),
        (("--rank", "3"), 1, "LoRA of rank 16"),
    ],
)
def test_refused_exports(
    on_store: Invoke,
    learned: str,
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    folder = tmp_path / "exported"
    result = on_store("export", learned, str(folder), *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert not folder.exists()


def test_a_kept_base_has_nothing_to_export(
    on_store: Invoke, adapters: AdapterStore, tmp_path: Path
) -> None:
    adapters.put(KEY, kept_base())
    result = on_store("export", KEY, str(tmp_path / "exported"))
    assert result.exit_code == 1
    assert "nothing to export" in result.stderr


def test_what_is_imported_belongs_to_the_namespace(
    on_store: Invoke, learned: str, tmp_path: Path
) -> None:
    folder = tmp_path / "exported"
    on_store("export", learned, str(folder))
    value = parsed(on_store("import", str(folder), "--namespace", "acme", "--json"))
    assert value["imported"]
    assert value["key"] != learned
    assert value["key"][:12] in on_store("ls", "--namespace", "acme").stdout
    assert on_store("verify", "--all-namespaces").exit_code == 0


def test_secrets_are_not_left_or_gained_by_an_import(
    ttt: Invoke,
    on_store: Invoke,
    learned: str,
    registry_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hash of the document is another one in each: the engine would never look for the key."""
    open_, sealed = tmp_path / "open", tmp_path / "sealed"
    on_store("export", learned, str(open_))
    monkeypatch.setenv("TTT_NAMESPACE_SECRET", SECRET)
    refused = on_store("import", str(open_))
    assert refused.exit_code == 1
    assert "its namespace has no secret" in refused.stderr
    key = parsed(ttt("adapt", str(registry_file), *RECIPE, "--json"))["key"]
    assert on_store("export", key, str(sealed)).exit_code == 0
    assert parsed(on(tmp_path / "there", "import", str(sealed), "--json"))["key"] == key
    for secret in (None, SECRET + "!"):
        if secret is None:
            monkeypatch.delenv("TTT_NAMESPACE_SECRET")
        else:
            monkeypatch.setenv("TTT_NAMESPACE_SECRET", secret)
        refused = on_store("import", str(sealed))
        assert refused.exit_code == 1
        assert "the same secret" in refused.stderr
        assert SECRET not in refused.output


def test_import_of_nothing(on_store: Invoke, store: Path, tmp_path: Path) -> None:
    result = on_store("import", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "there is no such folder" in result.stderr
    assert not store.exists()


def test_imports_reach_the_remote(on_store: Invoke, learned: str, tmp_path: Path) -> None:
    folder, remote = tmp_path / "exported", tmp_path / "remote"
    on_store("export", learned, str(folder))
    result = on(tmp_path / "there", "import", str(folder), "--remote", remote.as_uri())
    assert (result.exit_code, result.stderr) == (0, "")
    assert [path.stem for path in remote.rglob("*.safetensors")] == [learned]
