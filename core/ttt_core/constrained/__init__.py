"""Answers that must have a form: which tokens may come next, and how to end in time."""

from ttt_core.constrained.guide import Guide
from ttt_core.constrained.schema import closed, json_grammar
from ttt_core.constrained.vocabulary import Vocabulary

__all__ = ["Guide", "Vocabulary", "closed", "json_grammar"]
