"""On what to train. One algorithm a file, each with its paper, and one protocol.

random_span    contiguous spans of the document, in place (the paper)
recurrence     positions whose next token could have been retrieved, in place (ours)
cloze          quote the beginning of a sentence or line, continue it, behind the document (ours)
high_loss      positions where the base model is worst, in place
high_entropy   positions where it is least certain, in place
self_study     the model's own answers to its own questions, behind the document
mixture        cloze and recurrence in turn; with a question, retrieved, too
evidence       passages that the model quotes for a question, in place; needs a question
retrieved      chunks that BM25 finds for a question, in place; needs a question
"""

from __future__ import annotations

from ttt_core.config import SupervisionName
from ttt_core.supervision.base import BaseReader, Given, Supervision
from ttt_core.supervision.cloze import Cloze, ClozeSupervision, find_clozes, pack_clozes
from ttt_core.supervision.evidence import EvidenceSupervision
from ttt_core.supervision.hard_positions import HighEntropySupervision, HighLossSupervision
from ttt_core.supervision.mixture import MixtureSupervision
from ttt_core.supervision.passages import Passage, TokenizedDocument, find_passages
from ttt_core.supervision.random_span import RandomSpanSupervision
from ttt_core.supervision.recurrence import RecurrenceSupervision
from ttt_core.supervision.retrieved import RetrievedSupervision
from ttt_core.supervision.self_study import SelfStudySupervision

_SUPERVISIONS: dict[SupervisionName, type[Supervision]] = {
    "cloze": ClozeSupervision,
    "recurrence": RecurrenceSupervision,
    "random_span": RandomSpanSupervision,
    "evidence": EvidenceSupervision,
    "retrieved": RetrievedSupervision,
    "high_loss": HighLossSupervision,
    "high_entropy": HighEntropySupervision,
    "self_study": SelfStudySupervision,
    "mixture": MixtureSupervision,
}


def get_supervision(name: SupervisionName) -> type[Supervision]:
    """Return the supervision called `name`."""
    return _SUPERVISIONS[name]


__all__ = [
    "BaseReader",
    "Cloze",
    "Given",
    "Passage",
    "Supervision",
    "TokenizedDocument",
    "find_clozes",
    "find_passages",
    "get_supervision",
    "pack_clozes",
]
