"""Self-contained HTML pages: one file with style and figures inside, that needs no network.

Knows nothing of models or documents. `Page` and `Markdown` collect the same headings, texts,
tables and figures; `figures` draws the latter as inline SVG.
"""

from ttt_core.pages.html import Page, Section, Strong, Svg
from ttt_core.pages.markdown import Markdown

__all__ = ["Markdown", "Page", "Section", "Strong", "Svg"]
