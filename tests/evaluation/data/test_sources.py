"""Rows come whole from every format, and what is bad is named by its line, never quoted."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.data import data_files, formats, read_rows, text_files
from ttt_core.extras import library

SECRET = "confidential"
"""Stands in bad lines, and must not stand in what is said about them."""


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(DocumentError) as caught:
        list(read_rows(path))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


ROWS = st.lists(
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.text(max_size=9) | st.integers() | st.lists(st.text(max_size=3), max_size=3),
        min_size=1,
        max_size=3,
    ),
    max_size=6,
)


@given(rows=ROWS, ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n \n"]))
@settings(max_examples=30)
def test_json_lines_come_back(
    rows: list[dict[str, Any]], ascii_only: bool, end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows)
    path = written(tmp_path_factory.mktemp("rows"), "rows.jsonl", text)
    assert list(read_rows(path)) == rows


@given(rows=ROWS, indent=st.sampled_from([None, 1]), chunk=st.integers(1, 50))
@settings(max_examples=30)
def test_an_array_comes_back_whatever_is_read_at_once(
    rows: list[dict[str, Any]],
    indent: int | None,
    chunk: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = written(tmp_path_factory.mktemp("rows"), "rows.json", json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "_CHUNK", chunk)
        assert list(read_rows(path)) == rows


@given(cells=st.lists(st.tuples(st.text(max_size=9), st.text(min_size=1, max_size=9)), max_size=5))
@settings(max_examples=30)
def test_quoted_cells_come_back(
    cells: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cells = [(a.replace("\0", ""), b.replace("\0", "") + "x") for a, b in cells]
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *cells])
    content = table.getvalue().encode("utf-8-sig", "surrogatepass")
    path = written(tmp_path_factory.mktemp("rows"), "rows.csv", content)
    assert list(read_rows(path)) == [{"text": a, "label": b} for a, b in cells]


def test_objects_one_after_another_are_rows_of_a_json_file(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.json", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2} {"a": 3}\n')
    assert list(read_rows(path)) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_byte_order_mark_belongs_to_no_column(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4")
    assert list(read_rows(path)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_quotes_in_tab_separated_cells_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.tsv", 'a\tb\n"so\the said\n')
    assert list(read_rows(path)) == [{"a": '"so', "b": "he said"}]


def test_a_cell_may_be_as_long_as_a_document(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", f'a\n"{"x" * 200_000}"\n')
    assert [len(row["a"]) for row in read_rows(path)] == [200_000]


def test_parquet_rows_come_back(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"a": number, "b": ["x", "y"]} for number in range(100)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert list(read_rows(tmp_path / "rows.parquet")) == rows


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", f'{{"a": 1}}\n\n{{"{SECRET}"\n', "line 3, column"),
        ("a.jsonl", f'["{SECRET}"]\n', "line 1: expected an object, found list"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff confidential"}\n', "line 2: not UTF-8"),
        ("a.jsonl", "[" * 100_000, "line 1: JSON that cannot be held"),
        ("a.jsonl", '{"a": ' + "9" * 10_000 + "}", "line 1: JSON that cannot be held"),
        ("a.json", f'[{{"a": 1}}, {{"{SECRET}"', "row 2: not JSON, or cut off"),
        ("a.json", '[{"a": 1}', "row 2: not JSON, or cut off"),
        ("a.json", f'[{{"a": 1}}] {SECRET}', "row 2: not JSON, or cut off"),
        ("a.json", f'["{SECRET}"]', "row 1: expected an object, found str"),
        ("a.json", b"\xff\xfe[\x00]\x00", "not UTF-8"),
        ("a.csv", f"a,b\n1,2\n{SECRET}\n", "line 3: expected 2 columns, found 1"),
        ("a.csv", f'a,b\n"1",2\n"{SECRET},2\n', "quotes that do not match"),
        ("a.csv", "a,a\n1,2\n", "line 1: expected the names of the columns"),
        ("a.tsv", f"a\tb\n1\t2\t{SECRET}\n", "line 2: expected 2 columns, found 3"),
        ("a.parquet", SECRET, "not a Parquet file"),
    ],
)
def test_a_bad_line_is_named_and_not_quoted(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    assert said in refused(written(tmp_path, name, content))


def test_rows_before_a_bad_line_are_read(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, "a.jsonl", '{"a": 1}\nno\n'))
    assert next(rows) == {"a": 1}
    with pytest.raises(DocumentError, match="line 2"):
        next(rows)


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no file or folder"):
        read_rows(tmp_path / "missing.jsonl")
    with pytest.raises(DocumentError, match=r"expected \.jsonl.*not '\.pkl'"):
        read_rows(written(tmp_path, "a.pkl", b""))
    with pytest.raises(DocumentError, match="holds 0 in all"):
        read_rows(tmp_path)


def test_a_folder_is_its_files_of_a_split_and_a_name(tmp_path: Path) -> None:
    names = ["qmsum/test-00000.jsonl", "qmsum/train.jsonl", "qmsum_e/test.jsonl"]
    names += ["bank_test.csv", ".cache/test.jsonl", "dataset_info.json"]
    for name in names:
        written(tmp_path, name, "a\n")

    def found(split: str | None = None, name: str | None = None) -> list[str]:
        files = data_files(tmp_path, split=split, name=name)
        return [file.relative_to(tmp_path).as_posix() for file in files]

    assert found() == ["bank_test.csv", *names[:3]]
    assert found(split="test") == ["bank_test.csv", names[0], names[2]]
    assert found(name="qmsum") == names[:2]
    assert found("test", "bank") == ["bank_test.csv"]
    with pytest.raises(DocumentError, match=r"split 'dev' and name 'qmsum'.*holds 4 in all"):
        found("dev", "qmsum")


def test_texts_of_a_folder_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "c.jsonl", "README.md"):
        written(tmp_path, name, "text")
    assert [path.name for path in text_files(tmp_path)] == ["a.md", "b.txt"]


def test_what_is_not_installed_is_named_with_the_command() -> None:
    with pytest.raises(
        ConfigError, match=r"tables needs nothere: pip install 'context-ttt\[eval\]'"
    ):
        library("nothere_at_all", "nothere", "reading tables")


class Builder:
    """What `datasets` builds, as far as we use it."""

    def __init__(self, splits: dict[str, list[dict[str, Any]]]) -> None:
        self._splits = splits

    def as_streaming_dataset(self) -> dict[str, list[dict[str, Any]]]:
        return self._splits


def hub(monkeypatch: pytest.MonkeyPatch, kind: str, **splits: list[dict[str, Any]]) -> list[Any]:
    """Put a Hub that has one data set in the place of `datasets`; return what it is asked."""
    asked: list[Any] = []

    def load(path: str, name: str | None, revision: str | None) -> Builder:
        asked.append((path, name, revision))
        packaged: type[Builder] = type(
            "Packaged", (Builder,), {"__module__": f"datasets.packaged.{kind}"}
        )
        return packaged(splits)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset_builder=load))
    return asked


def test_the_hub_is_asked_for_name_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, "parquet", test=[{"a": 1}], train=[{"a": 2}])
    assert list(read_rows("hub:owner/set@v1.0", split="train", name="x")) == [{"a": 2}]
    assert asked == [("owner/set", "x", "v1.0")]


def test_one_split_needs_no_name_and_several_do(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, "json", test=[{"a": 1}])
    assert list(read_rows("hub:owner/set")) == [{"a": 1}]
    hub(monkeypatch, "json", test=[], train=[])
    with pytest.raises(DocumentError, match="a split of test, train; found None"):
        list(read_rows("hub:owner/set"))


def test_nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, "pandas", test=[{"a": 1}])
    with pytest.raises(DocumentError, match="'pandas', which is not read for safety's sake"):
        read_rows("hub:owner/set")


@pytest.mark.parametrize("source", ["hub:", "hub:set", "hub:a/b/c", "hub:https://x/y"])
def test_only_names_on_the_hub_are_asked_for(source: str) -> None:
    with pytest.raises(ConfigError, match="expected hub:owner/name"):
        read_rows(source)


def test_without_a_network_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset_builder=load))
    with pytest.raises(DocumentError, match=r"ConnectionError.*HF_HUB_OFFLINE.*give their path"):
        read_rows("hub:owner/set")


def test_sample_files_have_as_many_rows_as_their_readme_says(data: Path) -> None:
    counts = {
        "longbench_v2_sample.jsonl": 33,
        "longbench_v1_sample.jsonl": 82,
        "kv_retrieval_75.jsonl": 100,
        "longchat_lines_200.jsonl": 50,
        "banking77_train.csv": 10_003,
        "banking77_test.csv": 3_080,
    }
    assert {name: sum(1 for _ in read_rows(data / name)) for name in counts} == counts
