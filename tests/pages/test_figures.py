"""Figures: the same bytes every time, names taken literally, nothing loaded, no global state."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ttt_core
from ttt_core.errors import ConfigError
from ttt_core.pages import Svg
from ttt_core.pages.figures import Estimate, Series, forest, heatmap, lines, scatter, strip
from ttt_core.pages.figures.canvas import style_of

NAME = 'a <b> & "q" $x_1$ 日本'


def draw_lines(name: str = NAME, arms: int = 3) -> Svg:
    series = [
        Series(f"{name} {i}", [64, 128, 256], [i, 2, 3], [0, 1, 2], [i + 1, 3, 4])
        for i in range(arms)
    ]
    chance = Series("chance", [64, 256], [0.5, 0.5], faint=True)
    return lines([*series, chance], alt=name, x_label="tokens", y_label="score", log_x=True)


FIGURES: dict[str, Callable[[], Svg]] = {
    "lines": draw_lines,
    "30 lines": lambda: draw_lines(arms=30),
    "one point": lambda: lines([Series(NAME, [5], [1])], alt=NAME, x_label="x", y_label="y"),
    "no lines": lambda: lines([], alt=NAME, x_label="x", y_label="y", log_x=True),
    "scatter": lambda: scatter(
        [Series(NAME, [1e9], [0.4], [0.3], [0.5])], alt=NAME, x_label="FLOPs", y_label=NAME
    ),
    "scatter at zero": lambda: scatter(
        [Series(NAME, [0.0], [0.4])], alt=NAME, x_label="x", y_label="y"
    ),
    "forest": lambda: forest(
        [Estimate(NAME, 1, 0, 2, strong=True), Estimate("b", -1, -2, 1)], alt=NAME, x_label="x"
    ),
    "heatmap": lambda: heatmap(
        [[0.1, math.nan], [0.3, -0.4]],
        alt=NAME,
        x_label="head",
        y_label="layer",
        colour_label=NAME,
        diverging=True,
    ),
    "constant heatmap": lambda: heatmap(
        [[0.0] * 9] * 20, alt=NAME, x_label="x", y_label="y", colour_label="z"
    ),
    "strip": lambda: strip([1, 5], [0.2, 0.4], alt=NAME, x_label="x", marked=[(2, 3)]),
    "marks only": lambda: strip([1, 5], alt=NAME, x_label="x", x_range=(0, 9)),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_are_deterministic_inline_and_literal(kind: str) -> None:
    figure = FIGURES[kind]()
    assert figure == FIGURES[kind]()
    root = ElementTree.fromstring(figure.markup)  # Well formed.
    assert root.attrib["aria-label"] == NAME
    assert root.attrib["role"] == "img"
    assert not re.search(
        r"<image|<script|<metadata|https?://(?!www\.w3\.org/2000/svg)", figure.markup
    )
    references = re.findall(r'(?:href="|url\()(#?)', figure.markup)
    assert set(references) <= {"#"}  # Into the figure itself.


def test_names_stand_in_the_figure_as_text() -> None:
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(draw_lines().markup).iter()]
    assert f"{NAME} 0" in texts


def test_names_that_cannot_be_shown_are_replaced_and_long_ones_cut() -> None:
    figure = forest([Estimate("a\ud800\x01\nb" + 99 * "c", 1, 0, 2)], alt="\ud800", x_label="x")
    assert figure.markup.encode("utf-8")
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} bccc" in figure.markup
    assert 60 * "c" not in figure.markup


def test_ids_of_two_figures_do_not_clash() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)', draw_lines(n).markup)) for n in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_references_within_a_figure_are_kept() -> None:
    markup = draw_lines().markup
    ids = set(re.findall(r'\bid="([^"]+)', markup))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', markup)) <= ids


def test_ink_is_the_colour_of_the_page() -> None:
    assert "currentColor" in draw_lines().markup
    assert "#010203" not in draw_lines().markup


def test_settings_of_matplotlib_are_left_alone() -> None:
    import matplotlib

    def now() -> dict[str, object]:
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    before, first = now(), draw_lines()
    assert now() == before
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert draw_lines() == first  # Nor do the user's settings change it.


def test_drawing_needs_no_pyplot_and_no_display() -> None:
    code = (
        "import sys; from ttt_core.pages.figures import Estimate, forest; "
        "assert 'matplotlib' not in sys.modules; "
        "forest([Estimate('a', 1, 0, 2)], alt='', x_label=''); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    core = str(Path(ttt_core.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{core!r}]; {code}"], check=True
    )


def test_56_series_look_different() -> None:
    assert len({tuple(style_of(index).values()) for index in range(56)}) == 56


@pytest.mark.parametrize(
    "make",
    [
        lambda: Series("a", [1], [1, 2]),
        lambda: Series("a", [1, 2], [1, 2], [0], [3]),
        lambda: Series("a", [1], [1], [0], []),
        lambda: heatmap([], alt="", x_label="", y_label="", colour_label=""),
        lambda: heatmap([[1], [1, 2]], alt="", x_label="", y_label="", colour_label=""),
        lambda: strip([1, 2], [1], alt="", x_label=""),
    ],
)
def test_values_that_do_not_fit_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()
