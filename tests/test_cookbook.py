"""Every recipe runs as a script and says something."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).parent.parent / "cookbook").glob("*.py"))


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_run(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(recipe)])
    runpy.run_path(str(recipe), run_name="__main__")
    assert len(capsys.readouterr().out.splitlines()) >= 3
