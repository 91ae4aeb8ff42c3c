"""What both integrations need: an engine's options as a pydantic mixin, and one answer of it.

mixin.py          EngineMixin: what an integration object does: adapt, answer, count
options.py        its fields: unknown.py, ready_engine.py and tenant.py say what cannot be
documents.py      a framework's documents as the core's
prompt.py         its messages, in parts: text, marked text, attachments, passages
choice.py         its users' tool choices
resolver/         which text of a prompt is a document
registry.py       what was named and seen before: with excerpts.py and notes.py
reply.py          one answer, in a thread or beside an event loop; history.py: what does not fit
progress_line.py  progress on a terminal

Knows no framework. Importing it is cheap: torch and transformers load with the first engine.
"""

from ttt_core.integration.documents import to_documents
from ttt_core.integration.mixin import EngineMixin
from ttt_core.integration.reply import Reply, in_thread, run_in_thread

__all__ = ["EngineMixin", "Reply", "in_thread", "run_in_thread", "to_documents"]
