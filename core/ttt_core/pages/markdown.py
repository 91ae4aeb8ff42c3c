"""The same pieces as on a page, as Markdown: for repositories, pull requests and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ttt_core.pages.html import Strong, Svg
from ttt_core.pages.text import clean

_MARKUP = re.compile(r"[\\`*|<>&~$]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")
"""What Markdown reads as markup; an underscore within a word is none."""
_START = re.compile(r"^(\d*)(?=#{1,6} |[-+] |(?<=\d)[.)] )")
"""What makes the start of a line a heading or a list; a backslash belongs behind it."""


class Markdown:
    """Collects pieces as `Page` does; every text is escaped.

    Args:
        title: The heading of level 1.
        figures: Where figures are, which Markdown cannot hold.
    """

    def __init__(self, title: str, *, figures: str = "report.html") -> None:
        self._pieces = [f"# {escape(title)}"]
        self._figures = figures

    def add_heading(self, text: str, level: int = 2) -> None:
        """Add a heading."""
        self._pieces.append(f"{'#' * level} {escape(text)}")

    def add_text(self, text: str, *, strong: bool = False) -> None:
        """Add paragraphs, which blank lines part."""
        for paragraph in filter(str.strip, text.split("\n\n")):
            escaped = _START.sub(r"\1\\", escape(paragraph))
            self._pieces.append(f"**{escaped}**" if strong else escaped)

    def add_list(self, items: Iterable[str]) -> None:
        """Add a bulleted list; none if there are no items."""
        lines = ["- " + _START.sub(r"\1\\", escape(item)) for item in items]
        if lines:
            self._pieces.append("\n".join(lines))

    def add_code(self, text: str) -> None:
        """Add text whose white space and line ends count."""
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        self._pieces.append(f"{fence}\n{text}\n{fence}")

    def add_table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        caption: str = "",
        align: str = "",
    ) -> None:
        """Add a table; see `Section.add_table`."""
        align = align or "l" + "r" * (len(header) - 1)
        lines = [_line(header), _line_of("---:" if side == "r" else "---" for side in align)]
        lines += [_line(row) for row in rows]
        if caption:
            self._pieces.append(f"*{escape(caption)}*")
        self._pieces.append("\n".join(lines))

    def add_figure(self, figure: Svg, caption: str = "") -> None:
        """Say what the figure shows, and where it is."""
        self._pieces.append(f"*Figure ({self._figures}): {escape(caption or figure.alt)}*")

    def add_details(self, summary: str, *, opened: bool = False) -> Markdown:
        """Add a heading, since not every reader of Markdown can fold; `opened` changes nothing."""
        self.add_heading(summary, 3)
        return self

    def render(self) -> str:
        """Return the text; the same pieces give the same text."""
        return clean("\n\n".join(self._pieces)) + "\n"


def escape(text: str) -> str:
    """Return `text` as Markdown that shows it as it is, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _line(cells: Iterable[str]) -> str:
    return _line_of(f"**{escape(c)}**" if isinstance(c, Strong) else escape(c) for c in cells)


def _line_of(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
