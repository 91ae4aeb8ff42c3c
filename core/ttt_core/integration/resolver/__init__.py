"""Which text of a prompt is a document, to be read ahead and adapted to.

The order of what the model reads stays: a document is read first, behind the system messages, so
that text becomes one where it stands first anyway, or where somebody says that it is a document.
Text that comes once is never trained on; what is not taken stays in the prompt, and is not lost.

precedence.py   who wins: `resolve`, the main path
marked.py       what messages bring as documents
passages.py     what frameworks hand over: beside documents, or as one
automatic.py    what is found in a prompt though nobody said so
search.py       what all of these go by, and what they ask about a text
templates.py    system messages of prompts' templates, which are told behind documents
resolved.py     what was found; reasons.py: why
"""

from ttt_core.integration.resolver.precedence import as_text, resolve
from ttt_core.integration.resolver.resolved import NOTHING, DocumentsFrom, Resolved
from ttt_core.integration.resolver.search import Mode

__all__ = ["NOTHING", "DocumentsFrom", "Mode", "Resolved", "as_text", "resolve"]
