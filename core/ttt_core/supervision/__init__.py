"""On what to train. One algorithm a file, one protocol; none of them needs a question.

random_span   contiguous spans of the document, in place (the paper)
recurrence    positions whose next token could have been retrieved, in place (ours)
cloze         quote the beginning of a sentence or line, continue it, behind the document (ours)
"""

from __future__ import annotations

from ttt_core.config import SupervisionName
from ttt_core.supervision.base import Supervision
from ttt_core.supervision.cloze import Cloze, ClozeSupervision, find_clozes, pack_clozes
from ttt_core.supervision.passages import Passage, TokenizedDocument, find_passages
from ttt_core.supervision.random_span import RandomSpanSupervision
from ttt_core.supervision.recurrence import RecurrenceSupervision

_SUPERVISIONS: dict[SupervisionName, type[Supervision]] = {
    "cloze": ClozeSupervision,
    "recurrence": RecurrenceSupervision,
    "random_span": RandomSpanSupervision,
}


def get_supervision(name: SupervisionName) -> type[Supervision]:
    """Return the supervision called `name`."""
    return _SUPERVISIONS[name]


__all__ = [
    "Cloze",
    "Passage",
    "Supervision",
    "TokenizedDocument",
    "find_clozes",
    "find_passages",
    "get_supervision",
    "pack_clozes",
]
