"""A line of code: which line counts, and known values of the ratio."""

from __future__ import annotations

import sys

import pytest

from ttt_core.errors import ConfigError
from ttt_core.evaluation.metrics import code_similarity, rouge_l
from ttt_core.evaluation.metrics.code_similarity import first_line


def test_fences_and_comments_are_passed_over() -> None:
    assert first_line("\n\n```python\n# next\nx = 1\ny = 2") == "x = 1"
    assert first_line("// comment\n\treturn;\n") == "\treturn;"
    assert first_line("x = 1  # one") == first_line("") == ""


def test_known_ratios() -> None:
    # "foo = 1" and "foo = 2": 6 of 7 characters in order: 200 * 6 / 14 = 85.71, rounded 86.
    assert code_similarity("```\nfoo = 1\n```", "foo = 2") == 0.86
    assert code_similarity("    return x", "    return x") == 1
    # "return x" lacks the 4 spaces: 8 of 8 and 12: 200 * 8 / 20 = 80.
    assert code_similarity("return x", "    return x") == 0.8
    assert code_similarity("", "x") == code_similarity("# no code", "x = 1") == 0


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz.fuzz", None)
    with pytest.raises(ConfigError, match=r"rapidfuzz: pip install 'context-ttt\[eval\]'"):
        code_similarity("x", "x")
    monkeypatch.setitem(sys.modules, "rouge", None)
    with pytest.raises(ConfigError, match=r"pip install 'context-ttt\[eval\]'"):
        rouge_l("x", "x")
