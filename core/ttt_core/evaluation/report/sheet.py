"""What a report is written on: a page, Markdown, or both at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ttt_core.pages import Svg


class Sheet(Protocol):
    """Takes pieces in the order in which they are read; see `ttt_core.pages.html.Section`."""

    def add_heading(self, text: str, level: int = 2) -> None: ...

    def add_text(self, text: str, *, strong: bool = False) -> None: ...

    def add_list(self, items: Iterable[str]) -> None: ...

    def add_code(self, text: str) -> None: ...

    def add_table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        caption: str = "",
        align: str = "",
    ) -> None: ...

    def add_figure(self, figure: Svg, caption: str = "") -> None: ...

    def add_details(self, summary: str, *, opened: bool = False) -> Sheet: ...


class Both:
    """Passes everything on to two sheets."""

    def __init__(self, first: Sheet, second: Sheet) -> None:
        self._sheets = (first, second)

    def add_heading(self, text: str, level: int = 2) -> None:
        for sheet in self._sheets:
            sheet.add_heading(text, level)

    def add_text(self, text: str, *, strong: bool = False) -> None:
        for sheet in self._sheets:
            sheet.add_text(text, strong=strong)

    def add_list(self, items: Iterable[str]) -> None:
        lines = list(items)
        for sheet in self._sheets:
            sheet.add_list(lines)

    def add_code(self, text: str) -> None:
        for sheet in self._sheets:
            sheet.add_code(text)

    def add_table(
        self,
        header: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        caption: str = "",
        align: str = "",
    ) -> None:
        lines = list(rows)
        for sheet in self._sheets:
            sheet.add_table(header, lines, caption=caption, align=align)

    def add_figure(self, figure: Svg, caption: str = "") -> None:
        for sheet in self._sheets:
            sheet.add_figure(figure, caption)

    def add_details(self, summary: str, *, opened: bool = False) -> Both:
        first, second = (sheet.add_details(summary, opened=opened) for sheet in self._sheets)
        return Both(first, second)
