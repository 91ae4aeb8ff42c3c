"""What both integrations need: an engine's options as a pydantic mixin, and one answer of it.

Knows no framework. Importing it is cheap: torch and transformers load with the first engine.
"""

from ttt_core.integration.documents import to_documents
from ttt_core.integration.options import EngineOptions
from ttt_core.integration.reply import Reply, in_thread, run_in_thread

__all__ = ["EngineOptions", "Reply", "in_thread", "run_in_thread", "to_documents"]
