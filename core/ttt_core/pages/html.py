"""A page is a list of pieces; every text is escaped, and only our own figures are markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ttt_core.errors import ConfigError
from ttt_core.pages.style import STYLE
from ttt_core.pages.text import clean


class Strong(str):
    """A table cell that stands out."""

    __slots__ = ()


@dataclass(frozen=True)
class Svg:
    """A drawing, as `ttt_core.pages.figures` makes them.

    Attributes:
        markup: One `<svg>` element.
        alt: What it shows, for those who cannot see it.
    """

    markup: str
    alt: str


class Section:
    """Headings, texts, tables and figures, in the order in which they were added."""

    def __init__(self) -> None:
        self._pieces: list[str | Section] = []
        self._opening = self._closing = ""

    def add_heading(self, text: str, level: int = 2) -> None:
        """Add a heading; the page's title is the one of level 1.

        Raises:
            ConfigError: `level` is not between 2 and 6.
        """
        if not 2 <= level <= 6:
            raise ConfigError(f"level must be between 2 and 6, not {level}")
        self._pieces.append(f"<h{level}>{escape(text)}</h{level}>")

    def add_text(self, text: str, *, strong: bool = False) -> None:
        """Add paragraphs, which blank lines part; strong ones stand in a frame."""
        mark = ' class="strong"' if strong else ""
        for paragraph in text.split("\n\n"):
            if paragraph.strip():
                self._pieces.append(f"<p{mark}>{escape(paragraph.strip())}</p>")

    def add_list(self, items: Iterable[str]) -> None:
        """Add a bulleted list; none if there are no items."""
        lines = "".join(f"<li>{escape(item)}</li>" for item in items)
        if lines:
            self._pieces.append(f"<ul>{lines}</ul>")

    def add_code(self, text: str) -> None:
        """Add text whose white space and line ends count, such as a command."""
        self._pieces.append(f"<pre>{escape(text)}</pre>")

    def add_table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        caption: str = "",
        align: str = "",
    ) -> None:
        """Add a table.

        Args:
            header: Names of the columns.
            rows: One text per column; a `Strong` one stands out.
            caption: Stands above it.
            align: A letter per column, `l` or `r`; without it the first is left, others right.

        Raises:
            ConfigError: A row or `align` has another length than the header.
        """
        align = align or "l" + "r" * (len(header) - 1)
        rows = [list(row) for row in rows]
        for cells in (align, *rows):
            if len(cells) != len(header):
                raise ConfigError(f"a row of {len(cells)} cells below {len(header)} columns")
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        head = _row("th", header, align)
        body = "\n".join(_row("td", row, align) for row in rows)
        self._pieces.append(
            f'<div class="table"><table>{title}\n<thead>{head}</thead>\n'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )

    def add_figure(self, figure: Svg, caption: str = "") -> None:
        """Add a drawing; the caption stands below it."""
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        self._pieces.append(f"<figure>{figure.markup}{below}</figure>")

    def add_details(self, summary: str, *, opened: bool = False) -> Section:
        """Add a part that is folded away, and return it to be filled."""
        part = Section()
        state = " open" if opened else ""
        part._opening = f"<details{state}><summary>{escape(summary)}</summary>\n"
        part._closing = "\n</details>"
        self._pieces.append(part)
        return part

    def _body(self) -> str:
        pieces = (p if isinstance(p, str) else p._body() for p in self._pieces)
        return self._opening + "\n".join(pieces) + self._closing


class Page(Section):
    """A whole page: light or dark as the reader likes it, fit for printing, with nothing to load.

    Args:
        title: Of the window, and the heading of level 1.
        lang: Language of the texts, as HTML names it.
    """

    def __init__(self, title: str, *, lang: str = "en") -> None:
        super().__init__()
        self.title = title
        self._lang = lang

    def render(self) -> str:
        """Return the page; the same pieces give the same text."""
        title = escape(self.title)
        return clean(
            f'<!DOCTYPE html>\n<html lang="{escape(self._lang)}">\n<head>\n<meta charset="utf-8">\n'
            f"{_POLICY}\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{title}</h1>\n{self._body()}\n</main>\n</body>\n</html>\n"
        )


_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)
"""Whatever ends up in the page: browsers load nothing and run nothing."""


def _row(tag: str, cells: Sequence[str], align: str) -> str:
    made = []
    for cell, side in zip(cells, align, strict=True):
        mark = ' class="r"' if side == "r" else ""
        text = escape(cell)
        made.append(
            f"<{tag}{mark}>{f'<b>{text}</b>' if isinstance(cell, Strong) else text}</{tag}>"
        )
    return f"<tr>{''.join(made)}</tr>"
