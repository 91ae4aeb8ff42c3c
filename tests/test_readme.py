"""What the README and the pages beside it promise is executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PAGES = ("langchain.md", "llamaindex.md", "evaluation.md")
FILES = (README, *(README.parent / "docs" / page for page in PAGES))
TEXTS = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
BLOCKS = re.findall(r"```python\n(.*?)```", TEXTS, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One snippet names a folder for its store."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_the_readme_has_its_three_snippets() -> None:
    imports = ("from ttt_core", "from langchain_ttt", "from llamaindex_ttt")
    assert [any(name in block for block in BLOCKS) for name in imports] == [True] * 3


@pytest.mark.usefixtures("no_event_loop")
# LlamaIndex's workflows look at every attribute of an agent, outdated ones too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split()[1])
def test_python_blocks_run_and_answer(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = compile(block, str(README), "exec", dont_inherit=True)  # This file's annotations wait.
    exec(code, {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "Oslo" in printed or "Lima" in printed


def test_every_file_of_the_folder_tree_exists() -> None:
    root = README.parent
    text = README.read_text(encoding="utf-8")
    tree = text.split("## The folders", 1)[1].split("```")[1]
    names = re.findall(r"(?:^|\s{2,})([a-z_]+(?:\.py|/)(?:[a-z_]+/)?)", tree, flags=re.MULTILINE)
    assert len(names) > 15
    places = [root, root / "core", root / "core" / "ttt_core"]
    missing = [name for name in names if not any((place / name).exists() for place in places)]
    assert missing == []
