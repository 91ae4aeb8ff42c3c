"""The protocol of all arms: ways to answer an example's questions, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from ttt_core.flops import answer_flops

if TYPE_CHECKING:
    from ttt_core.adapted import AdaptedDocument
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example
    from ttt_core.generate import Answer


@dataclass(frozen=True)
class Reply:
    """An arm's answer to one question, and what was spent for it only.

    Attributes:
        text: What is scored.
        flops: In the paper's terms; see `ttt_core.flops`.
        tokens: Tokens that went through the model, the document's not counted.
        generated_tokens: Of these, those of answers and thinking.
        finish_reason: The answer's; of several samples, that of the one that was chosen.
        seconds: What only this question took; what is shared is in `ArmResult.seconds`.
        details: See `QuestionResult.details`.
        score: Where it follows from no text; None: the task scores the text.
    """

    text: str = field(repr=False)
    flops: float = 0.0
    tokens: int = 0
    generated_tokens: int = 0
    finish_reason: str = ""
    seconds: float = 0.0
    details: dict[str, JsonValue] = field(default_factory=dict)
    score: float | None = None


@dataclass(frozen=True)
class ArmResult:
    """All of an example's questions, answered.

    Attributes:
        n_tokens: Of the document that was read.
        replies: One for each question, in their order.
        document_flops: See `Cell.document_flops`.
        document_seconds: See `CellTiming.document_seconds`.
        seconds: Wall clock of answering all questions together.
        details: See `Cell.details`.
    """

    n_tokens: int
    replies: tuple[Reply, ...]
    document_flops: dict[str, float] = field(default_factory=dict)
    document_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    details: dict[str, JsonValue] = field(default_factory=dict)


class Arm(Protocol):
    """A way to answer.

    Attributes:
        name: As typed on the command line, options that are not the default included.
        description: One line.
        settings: All options, as JSON.
    """

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def settings(self) -> dict[str, JsonValue]: ...

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """Answer an example's questions.

        Raises:
            TTTError: It cannot be done with this model and document.
        """
        ...


def reply(bench: Bench, document: AdaptedDocument | None, answer: Answer) -> Reply:
    """Write down one answer as it came, and its cost behind `document`."""
    n_tokens = document.n_tokens if document else 0
    tokens = spent_tokens(answer, n_tokens)
    return Reply(
        text=answer.text,
        flops=answer_flops(bench.architecture, tokens, n_tokens),
        tokens=tokens,
        generated_tokens=answer.usage.completion_tokens,
        finish_reason=answer.finish_reason,
    )


def spent_tokens(answer: Answer, n_tokens: int) -> int:
    """Tokens behind the document that an answer put through the model: all but its last one."""
    asked = answer.usage.prompt_tokens - n_tokens
    return asked + max(answer.usage.completion_tokens - 1, 0)


def questions(example: Example) -> Sequence[str]:
    """The texts of an example's questions."""
    return [question.text for question in example.questions]
