"""What an evaluation writes down: one `Cell` for each arm on each example, and its seconds apart.

A cell is the same whenever and wherever it is computed, so that a run that was interrupted and
resumed leaves the file of one that was not. What changes from run to run (seconds, when, on what)
is in `CellTiming` and `RunRecord`, each in a file of its own. `ttt_core.evaluation.results` reads
and writes all of them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import Field, JsonValue

from ttt_core.config import Settings
from ttt_core.examples import Example, Split

VERSION = 1
"""Raised when a record of the same name would mean something else than before."""


class CellKey(Settings):
    """Identity of a cell: all that decides the answers. Cells of other keys never stand for it."""

    version: int = VERSION
    model: str
    """Hub id, or the name of the folder; says nothing that `weights` would not tell apart."""
    weights: str
    """Hash of weights, tokenizer and chat template."""
    task: str
    length: int | None
    """In the task's unit; None: the task has no length axis."""
    split: Split
    """Only `score` is evidence. Cells of `tune` are what settings were chosen on."""
    seed: int
    example: str
    """The example's id."""
    content: str
    """Hash of document, questions and right answers: changed data are other data."""
    arm: str
    """As it is typed, defaults left out: `qttt:supervision=recurrence`; the label in reports."""
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    """All options of the arm, defaults included; where one was tuned, its chosen value."""

    @property
    def digest(self) -> str:
        """The key as 64 hexadecimal digits."""
        return hashlib.sha256(_canonical(self.model_dump(mode="json")).encode()).hexdigest()

    @property
    def pair(self) -> tuple[str, str, int, str, int, str, str]:
        """What two arms share when they answered the same questions of the same model."""
        length = -1 if self.length is None else self.length
        return (self.model, self.task, length, self.split, self.seed, self.example, self.content)

    @property
    def order(self) -> tuple[Any, ...]:
        """By what results files are sorted."""
        return (self.split, *self.pair, self.arm, self.digest)


class QuestionResult(Settings):
    """One answer and what it was worth."""

    id: str
    text: str = Field(repr=False)
    """The answer as it was scored: what followed `Final:`, what the majority said, ..."""
    score: float = Field(ge=0, le=1)
    """From 0 to 1."""
    chance: float = Field(default=0.0, ge=0, le=1)
    """Expected score of who has not read the document."""
    flops: float = 0.0
    """Of this question alone, in the paper's terms: its tokens, what was generated, and what the
    arm did for it only (samples, passages read, adapting to the question)."""
    tokens: int = 0
    """Tokens that went through the model for this question, the document's not counted."""
    generated_tokens: int = 0
    """Of these, tokens of answers and of thinking, over all samples."""
    finish_reason: str = ""
    groups: dict[str, str] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """What an arm has to say: `samples`, `agreement`, `budget`, `passages`, `decision`, ..."""


class Failure(Settings):
    """Why a cell has no answers."""

    kind: str
    """The error's class."""
    message: str


class Cell(Settings):
    """All questions on one document, answered by one arm."""

    key: CellKey
    source: str | None = None
    """What the document shares with others that are not independent of it; see `Example`."""
    n_tokens: int = 0
    """Tokens of the document under the model's tokenizer, system prompt and template included;
    without the template where the arm does not read it (`bm25-only`, `chance`)."""
    document_flops: dict[str, float] = Field(default_factory=dict)
    """Spent once a document, whatever the number of questions: `read`, `adapt`."""
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """Of adapting: `decision`, `learning_rate`, `steps`, `steps_run`, `gain`, `p_value`, `drift`,
    `thinking_tokens`, ...; see the arms. An arm that says a `decision`, here or for its questions,
    counts as one that adapts."""
    questions: tuple[QuestionResult, ...] = ()
    """In the example's order; empty if the cell failed."""
    failure: Failure | None = None

    @property
    def score(self) -> float | None:
        """Mean score over the questions; None if the cell failed."""
        scores = [question.score for question in self.questions]
        return sum(scores) / len(scores) if scores else None

    @property
    def decisions(self) -> list[str]:
        """What adapting came to, for the document or each question; empty: nobody adapted."""
        told = [self.details, *(question.details for question in self.questions)]
        return [str(details["decision"]) for details in told if "decision" in details]

    def flops(self, questions: int) -> float:
        """FLOPs of reading, adapting, and answering `questions` questions of the mean cost.

        `flops(1)` is what a single question costs; for many, the document's share fades.
        """
        each = [question.flops for question in self.questions]
        once = sum(self.document_flops.values())
        return once + questions * sum(each) / len(each) if each else once


class CellTiming(Settings):
    """Seconds of one cell. Measured, so never twice the same."""

    version: int = VERSION
    cell: str
    """`CellKey.digest`."""
    document_seconds: dict[str, float] = Field(default_factory=dict)
    """Wall clock, once a document: `read` (measured once for all arms that share it), `adapt`."""
    question_seconds: dict[str, float] = Field(default_factory=dict)
    """By question id: the wall clock of its batch, divided evenly, and what was done for it only;
    so it is a throughput, and no latency."""
    when: str = ""
    """ISO 8601, UTC, seconds."""
    threads: int = 0
    """Of torch, on the CPU."""
    device: str = ""


class Choice(Settings):
    """An option that was chosen by score, on examples of the `tune` split only."""

    version: int = VERSION
    model: str = ""
    """As in `CellKey`, and so are `weights`: each model has its own choice."""
    weights: str = ""
    task: str
    arm: str
    """With the option `tuned`, as it was typed."""
    option: str
    scores: dict[str, float]
    """By value, as typed: the mean score over the tuning examples."""
    examples: int
    """Tuning examples behind each of the scores."""
    questions: int
    chosen: str
    """The best; of equals the one that was typed first."""
    cells: tuple[str, ...] = ()
    """Digests of the cells behind it."""


class RunRecord(Settings):
    """One start of the program; several write to one folder if it was resumed or shared."""

    version: int = VERSION
    command: str
    when: str
    """ISO 8601, UTC, seconds."""
    versions: dict[str, str]
    """Of `context-ttt`, `python`, `torch`, `transformers`."""
    device: str
    platform: str


def content_hash(example: Example) -> str:
    """Return a hash of all that an example asks and holds: 64 hexadecimal digits."""
    parts: list[object] = [example.document]
    for question in example.questions:
        room = [] if question.max_new_tokens is None else [question.max_new_tokens]
        asked = [question.id, question.text, *question.references, "|", *question.choices]
        parts.append(asked + room)
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()


def to_line(record: Settings) -> bytes:
    """Write a record as one line of JSON: the same record always gives the same bytes."""
    return (_canonical(record.model_dump(mode="json")) + "\n").encode("ascii")


def _canonical(value: object) -> str:
    # ASCII, so that lone surrogates, which answers may hold, can be written at all.
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
