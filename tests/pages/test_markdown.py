"""Markdown: the same pieces, with every mark of other people's texts taken literally."""

from __future__ import annotations

import pytest

from ttt_core.pages import Markdown, Strong, Svg
from ttt_core.pages.markdown import escape


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain, words: 1.5 [a]", "plain, words: 1.5 [a]"),
        ("learning_rate", "learning_rate"),
        ("_it_", r"\_it\_"),
        ("a|b", r"a\|b"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("*x* `y` ~z~ $q$", r"\*x\* \`y\` \~z\~ \$q\$"),
        ("[a](b)", r"[a\](b)"),
        ("two\nlines\t here", "two lines here"),
        ("\\", "\\\\"),
    ],
)
def test_marks_are_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@pytest.mark.parametrize(
    ("text", "line"),
    [("# a", r"\# a"), ("- a", r"\- a"), ("12. a", r"12\. a"), ("-3", "-3"), ("1.5 a", "1.5 a")],
)
def test_starts_of_lines_make_no_headings_or_lists(text: str, line: str) -> None:
    sheet = Markdown("t")
    sheet.add_text(text)
    sheet.add_list([text])
    assert sheet.render() == f"# t\n\n{line}\n\n- {line}\n"


def test_code_with_fences_is_fenced_longer() -> None:
    sheet = Markdown("t")
    sheet.add_code("a\n```\nb")
    assert sheet.render() == "# t\n\n````\na\n```\nb\n````\n"


def test_tables_figures_and_details_are_there() -> None:
    sheet = Markdown("t", figures="d.html")
    part = sheet.add_details("more")
    part.add_table(["a", "b"], [["x|y", Strong("1")]], caption="c")
    part.add_figure(Svg("<svg></svg>", "alt"))
    assert sheet.render().splitlines()[2:] == [
        "### more",
        "",
        "*c*",
        "",
        "| a | b |",
        "| --- | ---: |",
        r"| x\|y | **1** |",
        "",
        "*Figure (d.html): alt*",
    ]
