"""Pages: everything is escaped, nothing is loaded, and a reader finds what was added."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError
from ttt_core.pages import Page, Strong, Svg
from ttt_core.pages.text import clean

VOID = {"meta", "br"}


class Reading(HTMLParser):
    """What a browser makes of a page: tags in order, texts, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def full_page(text: str) -> Page:
    page = Page(text)
    page.add_heading(text)
    page.add_text(text, strong=True)
    page.add_list([text])
    page.add_code(text)
    page.add_table(["name", "value"], [[text, Strong(text)]], caption=text)
    page.add_figure(Svg("<svg></svg>", "alt"), text)
    page.add_details(text).add_text(text)
    return page


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30))
def test_texts_never_become_markup(text: str) -> None:
    plain, tricky = Reading(full_page("x").render()), Reading(full_page(f"x{text}").render())
    more = (f"x{text}".strip()).count("\n\n")  # Each blank line begins a paragraph, twice.
    if not more:
        assert tricky.tags == plain.tags
    assert clean(f"x{text}") in tricky.texts


def test_script_in_every_place_stays_text() -> None:
    page = full_page("<script>alert('&amp;\"')</script>").render()
    assert "<script" not in page
    assert "alert(&#x27;&amp;amp;&quot;&#x27;)" in page


def test_nothing_is_loaded_from_anywhere() -> None:
    page = full_page("x").render()
    assert not re.search(r"(src|href)=|@import|url\(|https?:", page)
    assert "default-src 'none'" in page


def test_same_pieces_give_the_same_text_twice() -> None:
    page = full_page("x")
    assert page.render() == page.render() == full_page("x").render()


def test_details_are_filled_where_they_were_added() -> None:
    page = Page("t")
    part = page.add_details("more")
    page.add_text("what follows")
    part.add_text("a part of it")
    text = page.render()
    assert text.index("<details>") < text.index("a part of it") < text.index("</details>")
    assert text.index("</details>") < text.index("what follows")


def test_blank_lines_part_paragraphs() -> None:
    page = Page("t")
    page.add_text("one\n\ntwo\n\n\n\n")
    assert page.render().count("<p>") == 2


def test_strong_cells_stand_out_and_columns_are_aligned() -> None:
    page = Page("t")
    page.add_table(["a", "b"], [["x", Strong("1")]])
    assert '<td>x</td><td class="r"><b>1</b></td>' in page.render()


@pytest.mark.parametrize(("rows", "align"), [([["x"]], ""), ([["x", "y"]], "lrl")])
def test_tables_of_odd_shape_are_refused(rows: list[list[str]], align: str) -> None:
    with pytest.raises(ConfigError, match="cells below 2 columns"):
        Page("t").add_table(["a", "b"], rows, align=align)


@pytest.mark.parametrize("level", [1, 7])
def test_headings_have_levels_below_the_title(level: int) -> None:
    with pytest.raises(ConfigError, match="between 2 and 6"):
        Page("t").add_heading("x", level)


def test_light_dark_and_paper_are_provided_for() -> None:
    page = Page("t").render()
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
